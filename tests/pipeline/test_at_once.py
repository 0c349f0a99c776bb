"""Two runs at the same time, in one project: each ends, with its own result or in a line that says who is at work."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from project import Project

AT_WORK = ("Unable to acquire lock", "is busy, it is being blocked by", "another process works on")
"""DVC's two lines, and ours."""
RATE = "models.bart_mini.training.learning_rate"


@pytest.fixture
def alone(reproduced: Project, tmp_path: Path) -> Project:
    """The project with a model that takes seconds."""
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["run"].update(models=["bart_mini"]))
    project.commit("bart_mini alone")
    return project


def start(project: Project, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=project.root,
        env=project.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def ended(processes: list[subprocess.Popen[str]]) -> list[str | None]:
    """What each that was refused has said; None where it has done its work."""
    said = [process.communicate(timeout=300)[0] for process in processes]
    for process, text in zip(processes, said, strict=True):
        assert "Traceback" not in text, text
        assert process.returncode == 0 or any(line in text for line in AT_WORK), text
    return [text if process.returncode else None for process, text in zip(processes, said, strict=True)]


def test_two_runs_of_one_project(alone: Project) -> None:
    alone.edit(lambda params: params["models"]["bart_mini"]["training"].update(learning_rate=0.02))
    before = (alone.root / "models/bart_mini/model.safetensors").read_bytes()
    refused = ended([start(alone, "dvc", "repro") for _ in range(2)])
    assert None in refused
    for _ in [text for text in refused if text]:
        alone.run("dvc", "repro")
    assert "up to date" in alone.run("dvc", "status").stdout
    assert (alone.root / "models/bart_mini/model.safetensors").read_bytes() != before


def test_two_experiments_in_temporary_copies(alone: Project) -> None:
    rates = {"slow": 0.011, "fast": 0.02}
    commands = {
        name: ("dvc", "exp", "run", "--temp", "--name", name, "-S", f"{RATE}={rate}") for name, rate in rates.items()
    }
    before = (alone.root / "params.yaml").read_bytes()
    refused = ended([start(alone, *command) for command in commands.values()])
    assert None in refused
    # DVC makes one copy at a time, and waits some seconds for the other.
    for command, text in zip(commands.values(), refused, strict=True):
        if text:
            alone.run(*command)
    shown = json.loads(alone.run("dvc", "exp", "show", "--json").stdout)
    (experiments,) = [row["experiments"] for row in shown if row["experiments"]]
    data: dict[str, Any] = {each["name"]: each["revs"][0]["data"] for each in experiments}
    found = {name: each["params"]["params.yaml"]["data"]["models"]["bart_mini"] for name, each in data.items()}
    assert {name: entry["training"]["learning_rate"] for name, entry in found.items()} == rates
    digests = {each["outs"]["models/bart_mini"]["hash"] for each in data.values()}
    assert len(digests) == 2
    assert (alone.root / "params.yaml").read_bytes() == before
    assert alone.run("git", "status", "--short").stdout == ""
