"""Low-rank adapters: on which layers, and in what dtype they learn."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig
from torch.nn import Linear

from yoyak.core.errors import UserError
from yoyak.modeling.loading import is_packed
from yoyak.modeling.spec import LoraParams


def linear_layers(model: Any) -> list[str]:
    """Their names, without those of the modules that they are in."""
    return sorted({name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, Linear)})


def check_targets(lora: LoraParams, layers: list[str]) -> None:
    """`layers`: the model's linear ones."""
    for target in [] if isinstance(lora.target_modules, str) else lora.target_modules:
        if target not in layers:
            raise UserError(
                f"lora.target_modules: this model has no layer {target!r}; it has {', '.join(layers)}, or write "
                "all-linear"
            )
    if isinstance(lora.target_modules, str) and lora.target_modules != "all-linear":
        raise UserError(
            f"lora.target_modules: all-linear or a list of layers is expected (got {lora.target_modules!r})"
        )


@contextmanager
def refused_layers_told(layers: list[str]) -> Iterator[None]:
    """One line of what PEFT raises where adapters would have no effect, as on the `out_proj` of some with Mamba."""
    try:
        yield
    except ValueError as error:
        if "target_modules" not in str(error):
            raise
        said = str(error).split(". ")[0].rpartition("] ")[2]
        raise UserError(
            f"lora.target_modules: {said}; write a list of other layers of this model, which has {', '.join(layers)}"
        ) from None


def peft_config(lora: LoraParams) -> LoraConfig:
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def train_in_fp32(model: Any) -> None:
    """TRL makes adapters over 4-bit weights bf16, in which a step at a learning rate of 2e-5 is rounded away.

    It does not know 4-bit weights that are sharded. Their adapters are rounded here: they start as on a single GPU.
    """
    packed = any(map(is_packed, model.modules()))
    for parameter in model.parameters():
        if parameter.requires_grad:
            first = parameter.data.to(torch.bfloat16) if packed else parameter.data
            parameter.data = first.to(torch.float32)


def leave_routers_alone(model: Any) -> None:
    """TRL asks every model that may have experts for a loss of their own, which ours leaves out; Granite 4's small ones
    have no experts, and fail at it."""
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False
