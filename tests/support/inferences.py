"""Inferences of tiny twins."""

from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import OneModelConfig
from yoyak.modeling import weights
from yoyak.modeling.loading import Loaded


def config_of(folder: Path, method: str = "lora", **params: Any) -> OneModelConfig:
    model = {"weights": str(folder), "pin": weights.pin(str(folder), "twin"), "method": method, "dtype": "fp32"}
    search = {"search": "sample", "candidates": 3, "max_new_tokens": 12, "batch_size": 5, **params}
    form = "structured" if method == "lora" else "dialogue"
    return OneModelConfig.model_validate({"model": {**model, "prompt": form}, "generation": search})


def load(config: OneModelConfig) -> Loaded:
    return load_for_inference(config.model, None)


class WithoutTheHost(TorchDispatchMode):
    """Fails where numbers come from Python or go there: a CUDA graph can record neither."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        assert func not in (aten.lift_fresh.default, aten._local_scalar_dense.default, aten.nonzero.default)
        return func(*args, **(kwargs or {}))
