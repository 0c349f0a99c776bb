"""A model with a NaN in it is refused where it is loaded, and so comes into no prediction, score or submission.

By two ways a NaN could come further, as far as the code goes: a buffer that is saved with the weights and is none of
the parameters, and what sound weights compute. From there on it would be a log-probability, which is written as null:
texts hold no numbers.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import Project
from safetensors.torch import load_file, save_file

LATER = ("predictions", "scores", "ensemble", "submission", "metrics/scores.json", "metrics/ensemble.json")
"""What must not change."""


def _with_nan(name: str) -> Callable[[dict[str, Any]], None]:
    def spoil(weights: dict[str, Any]) -> None:
        weights[name].view(-1)[3] = math.nan

    return spoil


def _overflowing(weights: dict[str, Any]) -> None:
    """Each number is one, and their products are none."""
    for name in ("fc1", "fc2"):
        weights[f"model.decoder.layers.0.{name}.weight"].fill_(1e30)


ADAPTER = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
NO_NUMBERS = r"its weights have values that are no numbers (NaN or infinite), in "
CASES: dict[str, tuple[str, Callable[[dict[str, Any]], None], str]] = {
    "adapter": ("llama32_3b", _with_nan(ADAPTER), f"models/llama32_3b: {NO_NUMBERS}"),
    "parameter": ("bart_mini", _with_nan("model.decoder.layers.0.fc1.weight"), f"models/bart_mini: {NO_NUMBERS}"),
    "buffer": ("bart_mini", _with_nan("final_logits_bias"), f"models/bart_mini: {NO_NUMBERS}final_logits_bias"),
    "overflow": ("bart_mini", _overflowing, "bart_mini dev, dialogue "),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_with_no_numbers_is_not_inferred(reproduced: Project, tmp_path: Path, case: str) -> None:
    project = reproduced.copy(tmp_path / "project")
    model, spoil, told = CASES[case]
    (path,) = (project.root / "models" / model).glob("*model.safetensors")
    weights = load_file(path)
    spoil(weights)
    # DVC's cache has a link to it.
    path.unlink()
    save_file(weights, path, {"format": "pt"})
    before = {name: _contents(project.root / name) for name in LATER}

    done = project.stage("infer", model, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"error: {told}"), done.stdout
    assert {name: _contents(project.root / name) for name in LATER} == before


@pytest.mark.parametrize("stage", ["score", "ensemble", "submit"])
def test_a_log_probability_that_is_no_number_ends_each_later_stage(
    reproduced: Project, tmp_path: Path, stage: str
) -> None:
    project = reproduced.copy(tmp_path / "project")
    read = "ensemble/test.jsonl" if stage == "submit" else "predictions/bart_mini/dev.jsonl"
    path = project.root / read
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(first)
    assert row["candidates"]
    row["candidates"][0]["log_probability"] = None
    path.unlink()
    path.write_text("\n".join([json.dumps(row), *rest, ""]), encoding="utf-8")
    before = _contents(project.root / "submission")

    done = project.stage(stage, check=False)
    assert done.returncode == 1, done.stdout
    assert done.stdout.startswith(f"error: {read}, line 1: candidates.0.log_probability: "), done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert _contents(project.root / "submission") == before


def _contents(path: Path) -> dict[Path, bytes]:
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {each: each.read_bytes() for each in files}
