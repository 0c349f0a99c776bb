"""A model of `run.tuned`, from `dvc repro` to what people do with its result."""

import json
from typing import Any

import pytest
from project import Project

TUNED = "llama32_3b_tuned"
MEAN = "llama_mean"


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
