"""Weights from the Hugging Face Hub, through the hub's own client; the hub is on this machine."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from local_hub import REVISION, serve_hub
from logs import BAR
from project import Project
from safetensors.torch import load_file
from twins import save_twin

from yoyak.core.params import read_yaml
from yoyak.core.records import read_json

TOO_LARGE = 10**13
"""Bytes that no disk of a test has; the file that says so is sparse."""


@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def repository(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """koBART's twin with its weights in one of the two formats."""
    folder = save_twin(twins.bart, tmp_path / "repository")
    if request.param == "pytorch_model.bin":
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def address(repository: Path) -> Iterator[str]:
    with serve_hub("some/kobart", repository) as address:
        yield address


def run(project: Project, address: str, stage: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A stage with a network that has this hub alone."""
    hub = (f"HF_ENDPOINT={address}", f"HF_HOME={project.root.parent / 'hf'}", "HF_HUB_OFFLINE=0")
    return project.run("env", *hub, "python", f"stages/{stage}.py", *arguments, check=False)


def use_the_hub(params: Any) -> None:
    params["run"]["models"] = ["kobart"]
    params["models"]["kobart"].update(weights="some/kobart")
    params["models"]["kobart"].setdefault("training", {})["epochs"] = 1


def test_a_model_is_pinned_downloaded_and_trained(project: Project, address: str) -> None:
    project.edit(use_the_hub)
    prepared = run(project, address, "prepare_prompts")
    assert prepared.returncode == 0, prepared.stdout
    assert read_yaml(project.root / "weights.lock.yaml")["some/kobart"] == REVISION
    assert not list(project.root.parent.glob("hf/**/*.safetensors")), "the first stage downloads nothing large"
    trained = run(project, address, "train", "kobart")
    assert trained.returncode == 0, trained.stdout
    assert read_json(project.root / "metrics/train/kobart.json")["steps"] == 1
    assert re.search(r"^downloading some/kobart, 0.00 GB: done in .* s$", trained.stdout, re.MULTILINE)
    converted = re.search(r"^converting some--kobart-a+ to safetensors, once: done in", trained.stdout, re.MULTILINE)
    assert bool(converted) == (not list(project.root.parent.glob("hf/**/*.safetensors")))
    assert not re.search(BAR, prepared.stdout + trained.stdout)


def test_room_is_looked_for_before_the_download(project: Project, repository: Path, address: str) -> None:
    project.edit(use_the_hub)
    weights_file = next(file for file in repository.iterdir() if file.suffix in (".safetensors", ".bin"))
    with weights_file.open("r+b") as sparse:
        sparse.truncate(TOO_LARGE)
    twice = 1 + (weights_file.suffix == ".bin")  # What is pickled is converted.
    done = run(project, address, "prepare_prompts")
    assert done.returncode == 1
    assert done.stdout.startswith(
        "error: this run, with weights that are still to be downloaded or converted, needs "
        f"{1 + twice * TOO_LARGE / 1e9:.1f} GB of the "
    )
    assert done.stdout.count("\n") == 1
    assert not (project.root / "data/resolved").exists()


@pytest.mark.parametrize("repository", ["model.safetensors"], indirect=True)
def test_a_gated_model_is_told_before_any_training(project: Project, repository: Path) -> None:
    project.edit(use_the_hub)
    with serve_hub("some/kobart", repository, gated=True) as address:
        done = run(project, address, "prepare_prompts")
    assert done.returncode == 1
    assert done.stdout.startswith("error: some/kobart cannot be downloaded (GatedRepoError: ")
    assert "`hf auth login`" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("repository", ["model.safetensors"], indirect=True)
def test_a_network_that_is_lost_before_the_download_is_told(project: Project, repository: Path) -> None:
    project.edit(use_the_hub)
    with serve_hub("some/kobart", repository) as address:
        assert run(project, address, "prepare_prompts").returncode == 0
    done = run(project, address, "train", "kobart")
    assert done.returncode == 1
    assert re.search(
        r"^error: some/kobart cannot be downloaded \(ConnectError: .*try again$", done.stdout, re.MULTILINE
    )
    assert "Traceback" not in done.stdout
