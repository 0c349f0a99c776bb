"""Exports that go wrong, for tests."""

from pathlib import Path
from typing import Any

import pytest
import torch

from yoyak.exporting import folder


def write_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports have weights that are not the model's."""
    write = folder.write_weights

    def damaged(target: Path, model: Any) -> None:
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.mul_(-3)
        write(target, model)

    monkeypatch.setattr(folder, "write_weights", damaged)
