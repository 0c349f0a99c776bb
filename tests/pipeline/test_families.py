"""Each family's twin is trained and summarises, or is refused in one line, as docs/models.md says."""

import math
import re
import runpy
from pathlib import Path

import pytest
from families import CASES, Case, save
from project import ROOT

from yoyak.core.errors import UserError
from yoyak.core.records import Prediction, Prompt, read_json, read_records, write_records
from yoyak.data.dialogues import clean, read_dialogues
from yoyak.data.prompts import build
from yoyak.inference import decoding
from yoyak.inference.run import infer
from yoyak.modeling import weights
from yoyak.modeling.loading import read_tokenizer
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.preflight.check import read_params
from yoyak.preflight.check_files import check_files
from yoyak.preflight.resolve import ResolvedModel, resolve
from yoyak.training.run import Training, train

ROWS = {"train": 4, "dev": 2, "test": 2}
PARAMS = read_params(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """Of a few rows, written into a folder, which is the current one from here on."""
    written = []
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("families")
        patch.chdir(folder)
        for split, number in ROWS.items():
            rows = read_dialogues(ROOT / f"data/sample/{split}.csv", with_summary=split != "test")[:number]
            of_split = [build(clean(row), PARAMS.prompts, for_training=split == "train") for row in rows]
            write_records(Path(f"data/prompts/{split}.jsonl"), of_split)
            written += of_split
        yield written


def resolved(case: Case, name: str, folder: Path) -> ResolvedModel:
    """An entry with the case's weights, one epoch of one step, and short summaries."""
    entry = {
        "weights": f"./{folder}",
        "method": case.method,
        "dtype": "fp32",
        "prompt": case.prompt,
        "training": {"epochs": 1, "effective_batch_size": 4},
        "generation": {"max_new_tokens": 8, "candidates": 2},
        **case.entry,
    }
    params = PARAMS.model_copy(update={"models": {name: entry}})
    return resolve(params, name, weights.pin(f"./{folder}", f"models.{name}.weights"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.family)
def test_a_family(case: Case, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch) -> None:
    name = re.sub(r"\W", "_", case.family.lower())
    folder = save(case, Path(f"twins/{name}"))
    configs = resolved(case, name, folder)
    if case.refused:
        with pytest.raises(UserError) as told:
            check_files({name: configs}, prompts)
        message = re.sub(r"transformers [\d.]+", "transformers", str(told.value))
        assert message.startswith(f"models.{name}.weights: ./{folder}: {case.refused}")
        return
    check_files({name: configs}, prompts)
    assert_no_text_steers(case, folder, prompts[0])
    by_us = []
    decode = decoding.decode
    monkeypatch.setattr(decoding, "decode", lambda *asked: (by_us.append(asked), decode(*asked))[1])
    train(Training(name, configs.training, PARAMS.limits, PARAMS.tracking))
    record = read_json(Path(f"metrics/train/{name}.json"))
    assert math.isfinite(record["train_loss"])
    assert record["shortened_rows"] == 0
    infer(name, configs.generation, PARAMS.limits.model_copy(update={"empty_percent": 100}), untuned=False)
    for split in ("dev", "test"):
        predictions = read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction)
        assert len(predictions) == ROWS[split]
        assert all(math.isfinite(row.candidates[0].log_probability) for row in predictions)
    assert bool(by_us) == (case.decoding == "ours")
    if case.method == "lora":
        assert (record["micro_batch_tokens"] > 1) == (case.rows == "packed")


def assert_no_text_steers(case: Case, folder: Path, prompt: Prompt) -> None:
    """Whoever types a family's special tokens ends no turn and opens no role, and the model reads what was typed."""
    tokenizer = read_tokenizer(folder, folder)
    ours = PromptTokenizer(tokenizer, case.prompt, 1024)
    known = [token for token in case.special if token and token != tokenizer.unk_token]
    special = tokenizer.convert_tokens_to_ids(known)
    typed = f"가{'나'.join(known)}다"
    attack = prompt.model_copy(
        update={
            "turns": (*prompt.turns, f"#Person1#: {typed}"),
            "question": f"{prompt.question} {typed}",
            "summary": f"{prompt.summary} {typed}",
        }
    )
    read, plainly = ([ours.encode_prompt(each).ids, ours.encode_summary(each.summary)] for each in (attack, prompt))
    for with_typed, without in zip(read, plainly, strict=True):
        assert [with_typed.count(each) for each in special] == [without.count(each) for each in special]
        assert len(tokenizer.decode(with_typed)) >= len(tokenizer.decode(without)) + len(typed)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_table_of_families_is_up_to_date(language: str) -> None:
    script = runpy.run_path(str(ROOT / "docs/generate/families.py"))
    page = script["PAGES"][language]
    assert script["document"](language) == page.read_text(encoding="utf-8")
