"""The mean of what several adapters add, as one adapter: their factors side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad

from yoyak.core.errors import UserError
from yoyak.core.records import write_json
from yoyak.inference.merging import is_plain, read_config

CONFIG, WEIGHTS = OF_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
IN, OUT = ".lora_A.weight", ".lora_B.weight"


def check(name: str, adapters: Sequence[Path]) -> None:
    """Stop where they are more than two factors a layer."""
    if not all(is_plain(read_config(adapter)) for adapter in adapters):
        raise UserError(f"{name} is the mean of adapters that are more than two factors a layer: --to hf")


def write(folder: Path, adapters: Sequence[Path]) -> None:
    """Of plain adapters without biases. The rank of what is written is the sum of theirs, and the mean is exact, which
    that of the factors would not be: (B1 A1 + B2 A2) / 2 = [B1/2 B2/2] [A1; A2]."""
    configs = [read_config(adapter) for adapter in adapters]
    factors = [load_file(adapter / WEIGHTS) for adapter in adapters]
    scales = [config["lora_alpha"] / config["r"] / len(adapters) for config in configs]
    rank = sum(config["r"] for config in configs)
    layers = list(dict.fromkeys(name.removesuffix(IN) for each in factors for name in each if name.endswith(IN)))
    written: dict[str, torch.Tensor] = {}
    for layer in layers:
        members = [(each, scale) for each, scale in zip(factors, scales, strict=True) if layer + IN in each]
        into = torch.cat([each[layer + IN].float() for each, _ in members])
        out = torch.cat([each[layer + OUT].float() * scale for each, scale in members], dim=1)
        # All layers have one rank: a member that has no such layer adds zeros.
        spare = rank - len(into)
        written |= {layer + IN: pad(into, (0, 0, 0, spare)), layer + OUT: pad(out, (0, spare))}
    save_file(written, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(
        folder / CONFIG,
        # An alpha of the rank's size scales by 1.
        {**configs[0], "r": rank, "lora_alpha": rank, "target_modules": _targets(configs, layers)},
    )


def _targets(configs: Sequence[dict[str, Any]], layers: Sequence[str]) -> Any:
    """As the members have them; where these differ, each layer by its whole name."""
    first, *others = [config["target_modules"] for config in configs]
    alike = all(_as_set(other) == _as_set(first) for other in others)
    return first if alike else [layer.removeprefix("base_model.model.") for layer in layers]


def _as_set(targets: str | list[str]) -> str | set[str]:
    return targets if isinstance(targets, str) else set(targets)
