"""docs/machines.md: what its scripts and files say is what the programs take."""

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from documents import blocks
from project import ROOT, Project
from ruamel.yaml import YAML

PAGE = ROOT / "docs/machines.md"
RAY_SCHEMA = ROOT / ".cache/ray/ray/autoscaler/ray-schema.json"


def test_tasks_of_a_slurm_array_side_by_side(reproduced: Project, tmp_path: Path) -> None:
    """As Slurm runs them, each with its number: of a run that is whole they find nothing to do."""
    project = reproduced.copy(tmp_path / "project")
    (script,) = blocks(PAGE, "bash")
    options = re.search(r"^#SBATCH (.+)$", script, re.MULTILINE)
    assert options
    assert all(re.fullmatch(r"--[a-z-]+=\S+", option) for option in options[1].split())
    script, count = re.subn(r"^models=\(.*\)$", "models=(llama32_3b bart_mini)", script, flags=re.MULTILINE)
    assert count == 1
    (project.root / "array.sh").write_text(script)

    def task(number: int) -> str:
        environment = project.environment() | {"SLURM_ARRAY_TASK_ID": str(number)}
        done = subprocess.run(
            ["bash", "array.sh"], cwd=project.root, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    with ThreadPoolExecutor() as together:
        for model, told in zip(("llama32_3b", "bart_mini"), together.map(task, range(2)), strict=True):
            for stage in ("train", "infer"):
                assert f"Stage '{stage}@{model}' didn't change, skipping" in told


@pytest.mark.skipif(not RAY_SCHEMA.exists() and not os.environ.get("CI"), reason="no .cache/ray; `make test` brings it")
def test_the_cluster_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the schema that `ray up` checks it against."""
    monkeypatch.syspath_prepend(str(ROOT / ".cache/ray"))
    from jsonschema import Draft7Validator

    (text,) = blocks(PAGE, "yaml")
    cluster, schema = YAML(typ="safe").load(text), json.loads(RAY_SCHEMA.read_text())
    assert list(Draft7Validator(schema).iter_errors(cluster)) == []
    assert list(Draft7Validator(schema).iter_errors({**cluster, "hosts": []})) != []
    started = [line for kind in ("head", "worker") for line in cluster[f"{kind}_start_ray_commands"] if "start" in line]
    assert len(started) == 2
    assert all(line.startswith("RAY_AUTH_MODE=token ray start ") for line in started)
