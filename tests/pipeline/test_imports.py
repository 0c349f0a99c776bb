"""What is loaded when, which the import contract of pyproject.toml cannot see."""

import subprocess
import sys

import pytest


def loads(module: str, library: str) -> bool:
    loaded = f"import {module}, sys; sys.exit({library!r} in sys.modules)"
    return bool(subprocess.run([sys.executable, "-c", loaded], check=False).returncode)


@pytest.mark.parametrize(
    "module", ["yoyak.commands", "yoyak.preflight.status", "yoyak.evaluation.run", "yoyak.submission.run"]
)
def test_a_command_that_computes_nothing_starts_without_pytorch(module: str) -> None:
    assert not loads(module, "torch")


def test_summaries_of_a_model_without_adapters_start_without_peft() -> None:
    """It brings bitsandbytes, and that PyTorch's compiler: a third of what inference imports."""
    assert not loads("yoyak.inference.run", "peft")
