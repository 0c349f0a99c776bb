"""Models of `run.rescorers`, from `dvc repro` to what people ask of the result."""

from pathlib import Path
from typing import Any

import pytest
from project import Project

from yoyak.core.records import Prediction, Rescored, read_json, read_records

MODELS = ["llama32_3b", "bart_mini"]


@pytest.fixture(scope="module")
def project(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shrunk project, whose models judge each other's candidates."""
    copied = reproduced.copy(tmp_path_factory.mktemp("rescored") / "project")
    copied.edit(lambda params: params["run"].update(rescorers=MODELS))
    said = copied.run("dvc", "repro").stdout
    assert "Running stage 'infer@" not in said
    assert "llama32_3b dev: 4 of 4 dialogues, done in" in said
    copied.run("git", "add", ".")
    copied.run("git", "commit", "-m", "rescored")
    return copied


def read(project: Project, path: str, kind: Any) -> Any:
    return read_records(project.root / path, kind)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_each_candidate_of_all_is_judged_once(project: Project, model: str, split: str) -> None:
    rescored = read(project, f"rescored/{model}/{split}.jsonl", Rescored)
    said: dict[str, set[str]] = {row.fname: set() for row in rescored}
    for member in MODELS:
        for row in read(project, f"predictions/{member}/{split}.jsonl", Prediction):
            said[row.fname] |= {candidate.text for candidate in row.candidates if candidate.text}
    for row in rescored:
        texts = [each.text for each in row.texts]
        assert len(set(texts)) == len(texts)
        assert set(texts) == said[row.fname]
    figures = read_json(project.root / f"metrics/rescore/{model}.json")[split]
    assert figures["rows"] == len(rescored)
    assert figures["texts"] == sum(map(len, said.values()))


def test_commands_know_them(project: Project) -> None:
    table = project.run("yoyak", "status").stdout.splitlines()
    assert table[0].split() == ["prepared", "trained", "inferred", "scored", "rescores"]
    assert all(line.count("up to date") == 5 for line in table[1:3])
    assert "stale: 0 of" in "\n".join(table)
    project.run("yoyak", "clean")


def test_who_rescores_is_trained_in_the_run(project: Project, tmp_path: Path) -> None:
    copied = project.copy(tmp_path / "project")
    copied.edit(lambda params: params["models"].update(both={"members": MODELS}))
    for names, fault in {
        "kobart": "run.rescorers: kobart must be trained in this run, too; there are llama32_3b, bart_mini",
        "both": "run.rescorers: both must be trained in this run, too",
    }.items():
        copied.edit(lambda params, names=names: params["run"].update(rescorers=[names]))
        said = copied.run("python", "stages/prepare_prompts.py", check=False)
        assert said.returncode != 0
        assert f"params.yaml: {fault}" in said.stdout
