"""What is loaded when, which the import contract of pyproject.toml cannot see."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["yoyak.commands", "yoyak.preflight.status", "yoyak.evaluation.run", "yoyak.submission.run"]
)
def test_a_command_that_computes_nothing_starts_without_pytorch(module: str) -> None:
    loaded = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0
