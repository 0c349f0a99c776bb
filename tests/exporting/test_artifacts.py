"""Trained models by name and version, from another place than the project: `dvc artifacts get`."""

from pathlib import Path

from project import ROOT, Project

from yoyak.core.params import read_yaml


def test_a_tagged_model_is_brought_elsewhere(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.run("git", "tag", "--annotate", "bart-mini@v1.0.0", "--message", "the first run")
    project.run("dvc", "push")
    (project.root / "models/bart_mini/config.json").unlink()
    told = project.run("dvc", "artifacts", "get", str(project.root), "bart-mini", "--rev", "v1.0.0", "--out", "../got")
    assert "Downloaded" in told.stdout
    there = {path.name: path.read_bytes() for path in (tmp_path / "got").iterdir()}
    assert there == {path.name: path.read_bytes() for path in (reproduced.root / "models/bart_mini").iterdir()}


def test_a_tag_without_a_message_is_no_version(reproduced: Project, tmp_path: Path) -> None:
    """GTO, which DVC asks, takes annotated tags alone."""
    project = reproduced.copy(tmp_path / "project")
    project.run("git", "tag", "bart-mini@v1.0.0")
    command = ("dvc", "artifacts", "get", str(project.root), "bart-mini", "--rev", "v1.0.0", "--out", "../got")
    told = project.run(*command, check=False)
    assert told.returncode != 0
    assert not (tmp_path / "got").exists()


def test_each_artifact_is_an_entry_s_model() -> None:
    models = read_yaml(ROOT / "params.yaml")["models"]
    for name, artifact in read_yaml(ROOT / "dvc.yaml")["artifacts"].items():
        entry = name.replace("-", "_")
        assert entry in models
        assert artifact["path"] == f"models/{entry}"
