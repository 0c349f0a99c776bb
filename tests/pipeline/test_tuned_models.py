"""A model of `run.tuned`, from `dvc repro` to what people do with its result."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from project import Project
from safetensors.torch import load_file, save_file

from yoyak.core.folds import Fold, seen
from yoyak.core.params import read_yaml, write_yaml
from yoyak.core.records import Prompt, read_json, read_records
from yoyak.exporting.measured import Kind
from yoyak.exporting.run import Options, export

TUNED = "llama32_3b_tuned"
MEAN = "llama_mean"
GIVEN = Options(rows=0, licence="llama3.2", data_licence=None, quantized=None, repository=None)


@pytest.fixture(scope="module")
def project(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shrunk project with its adapters tuned, and the mean of the weights before and after."""
    copied = reproduced.copy(tmp_path_factory.mktemp("tuned") / "project")
    copied.edit(lambda params: params["run"].update(tuned=["llama32_3b"], averaged=[MEAN]))
    members = {"members": ["llama32_3b", TUNED], "mean_of": "weights"}
    copied.edit(lambda params: params["models"].update({MEAN: members}))
    said = copied.run("dvc", "repro").stdout
    assert "Running stage 'train@" not in said
    assert f"{TUNED}: 8 dialogues, 2 summaries of each, 4 dialogues a step" in said
    assert f"{TUNED}: llama32_3b is tuned without a GPU: 2 summaries of each dialogue" in said
    assert "epoch 2 of 2, on dev ROUGE" in said
    copied.run("git", "add", ".")
    copied.run("git", "commit", "-m", "tuned")
    return copied


def read(project: Project, path: str) -> Any:
    return json.loads((project.root / path).read_text())


def test_it_is_scored_and_ensembled_beside_the_model_it_comes_from(project: Project) -> None:
    assert {"llama32_3b", TUNED} <= set(read(project, "metrics/scores.json")["models"])
    assert {"llama32_3b", TUNED} <= set(read(project, "metrics/ensemble.json")["members"])
    record = read(project, f"metrics/train/{TUNED}.json")
    assert record["steps"] == 4
    assert record["dev"]["best"]["step"] in (2, 4)
    assert record["dev"]["before"].keys() == record["dev"]["best"].keys() - {"step"}
    assert (project.root / f"plots/training/{TUNED}/epochs.csv").read_text().startswith("epoch,step,loss,rouge_mean")
    adapter = read(project, f"models/{TUNED}/adapter_config.json")
    assert (
        adapter["base_model_name_or_path"]
        == read(project, "models/llama32_3b/adapter_config.json")["base_model_name_or_path"]
    )


def test_commands_know_it(project: Project) -> None:
    status = project.run("yoyak", "status").stdout
    assert any(line.split()[:4] == [TUNED, "up", "to", "date"] for line in status.splitlines())
    dialogue = project.root / "dialogue.txt"
    dialogue.write_text("#Person1#: 안녕하세요.\n#Person2#: 네, 안녕하세요.\n")
    project.run("yoyak", "summarize", "--model", TUNED, str(dialogue))


def test_the_mean_of_weights_is_a_model_like_any(project: Project) -> None:
    assert MEAN in read(project, "metrics/scores.json")["models"]
    assert set(read(project, f"data/members/{MEAN}.json")) == {"llama32_3b", TUNED}
    assert "train" not in read(project, f"metrics/infer/{MEAN}.json")
    status = project.run("yoyak", "status").stdout
    assert any(line.split()[:4] == [MEAN, "up", "to", "date"] for line in status.splitlines())
    printed = project.run("yoyak", "summarize", "data/sample/test.csv", "--model", MEAN).stdout
    said = [json.loads(line)["summary"] for line in printed.splitlines() if line.startswith("{")]
    written = (project.root / f"predictions/{MEAN}/test.jsonl").read_text().splitlines()
    assert said == [json.loads(line)["text"] for line in written]


# Exported


@pytest.fixture
def here(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = project.copy(tmp_path / "project")
    monkeypatch.chdir(copied.root)
    return copied.root


def test_a_tuned_model_is_exported_with_both_of_its_trainings(here: Path) -> None:
    made = export(TUNED, "hf", GIVEN)
    assert made.parity["checks"][0] == "100.0 % of the greedy summaries in fp32 are the pipeline's to the letter"
    text = (made.folder / "README.md").read_text(encoding="utf-8")
    first, second = text.index("`llama32_3b` was trained, on 8 rows"), text.index(f"`{TUNED}` was tuned for the ROUGE")
    assert first < text.index("early_stopping_patience: 2") < second < text.index("max_length_ratio: 1.2")
    assert f"**{read_json(here / 'metrics/scores.json')['models'][TUNED]['rouge_mean']}**" in text
    assert "other parameters" not in text


@pytest.mark.parametrize("kind", ["adapter", "hf"])
def test_a_mean_of_weights_is_exported(kind: Kind, here: Path) -> None:
    for member in ("llama32_3b", TUNED):
        _let_it_write_words(here / f"models/{member}", seed=len(member))
    made = export(MEAN, kind, GIVEN)
    assert made.parity["checks"][0] == "100.0 % of the greedy summaries in fp32 are the pipeline's to the letter"
    pipeline, exported = (row["loss"] for row in made.parity["models"])
    assert exported == pytest.approx(pipeline, abs=1e-4)
    text = (made.folder / "README.md").read_text(encoding="utf-8")
    assert f"The weights are the mean of those of `llama32_3b` and `{TUNED}`." in text
    assert "its stage would run again, for models/llama32_3b is not as the stage wrote it." in text
    assert f"None of the pipeline: infer_averaged@{MEAN}, score would run anew" in text
    if kind == "adapter":
        assert read_json(made.folder / "adapter_config.json")["r"] == 32


def _let_it_write_words(adapter: Path, seed: int) -> None:
    """Factors so large that the model has other words for each dialogue."""
    path = adapter / "adapter_model.safetensors"
    torch.manual_seed(seed)
    factors = {name: torch.randn_like(weight) * 0.3 for name, weight in load_file(path).items()}
    path.unlink()
    save_file(factors, path)


def test_the_card_of_a_fold_has_the_rows_that_it_saw(here: Path) -> None:
    for path in (here / "data/resolved").glob("llama32_3b*/*.yaml"):
        write_yaml(path, read_yaml(path) | {"fold": {"part": 0, "of": 2}})
    text = (export("llama32_3b", "adapter", GIVEN).folder / "README.md").read_text(encoding="utf-8")
    rows = read_records(here / "data/prompts/train.jsonl", Prompt)
    assert f"Trained on {len(seen(rows, Fold(part=0, of=2)))} rows of data/sample" in text
    assert 0 < len(seen(rows, Fold(part=0, of=2))) < len(rows)
    assert "its stage would run again, for fold: null → " in text
