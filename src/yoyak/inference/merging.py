"""Adapters merged into the weights that they were trained beside.

Where they are two factors a layer and no more, it is done without PEFT, and gives to the bit what PEFT's merge makes of
them (a test). To import PEFT loads bitsandbytes and PyTorch's compiler, too, and takes longer than all of the merging.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from yoyak.core.records import Written, read_object

PREFIX = "base_model.model."
"""Before the names of the model's own parts."""
FACTORS = ("lora_A", "lora_B")
OF_A_PLAIN_ADAPTER = {
    *("auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights"),
    *("lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r"),
    *("revision", "target_modules", "task_type"),
}
"""Keys of `adapter_config.json` that may have a value. Others make more of an adapter: experts' parameters, say."""


class AdapterConfig(Written):
    """What PEFT needs of `adapter_config.json`, and what tells the base weights."""

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None
    revision: str | None
    r: int = Field(ge=1)
    lora_alpha: float
    lora_dropout: float = Field(ge=0, lt=1)
    bias: Literal["none", "all", "lora_only"]
    target_modules: str | list[str]


def read_config(adapter: Path) -> dict[str, Any]:
    """The adapter's `adapter_config.json`."""
    return read_object(adapter / "adapter_config.json", AdapterConfig)


def merge(model: Any, adapters: Sequence[Path]) -> Any:
    """The model, in place: to each weight the mean of what the adapters add to it is added in fp32, and rounded once;
    trained biases are set."""
    configs = [read_config(adapter) for adapter in adapters]
    if not all(map(is_plain, configs)):
        return _by_peft(model, adapters)
    _add(model, [Adapter(*pair) for pair in zip(adapters, configs, strict=True)])
    return model


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether an adapter is two factors a layer, and biases perhaps."""
    return {key for key, value in config.items() if value} <= OF_A_PLAIN_ADAPTER


class Adapter:
    """A plain adapter in memory."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._alpha = config["lora_alpha"]
        self._factors: dict[str, dict[str, torch.Tensor]] = {}
        """By the layer's name in the model, then by `FACTORS`."""
        self.biases: dict[str, torch.Tensor] = {}
        """Trained ones, by their names in the model."""
        for name, weight in load_file(folder / "adapter_model.safetensors").items():
            layer, _, kind = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
            if kind in FACTORS:
                self._factors.setdefault(layer, {})[kind] = weight.float()
            else:
                assert kind == "bias", f"{folder}: {name}"
                self.biases[f"{layer.removesuffix('.base_layer')}.bias"] = weight

    @property
    def layers(self) -> list[str]:
        """Names of those that it changes."""
        return list(self._factors)

    def change(self, layer: str) -> torch.Tensor:
        """What it adds to the layer's weight, shape (outputs, inputs), in fp32."""
        into, out = (self._factors[layer][factor] for factor in FACTORS)
        return (out @ into).mul_(self._alpha / len(into))


@torch.no_grad()
def _add(model: Any, adapters: Sequence[Adapter]) -> None:
    for layer in dict.fromkeys(layer for adapter in adapters for layer in adapter.layers):
        change, *others = [adapter.change(layer) for adapter in adapters if layer in adapter.layers]
        for other in others:
            change += other
        if len(adapters) > 1:
            change /= len(adapters)
        module = model.get_submodule(layer)
        weight = module.weight
        if isinstance(module, Conv1D):
            # GPT-2's layers have their weights the other way round; PEFT sees that, too, whatever the config says.
            change = change.T
        # To add 32 bits to 16 in place gives the same, but takes a CPU 15 times as long: not by its vectors.
        weight.copy_(weight.float().add_(change))
    for adapter in adapters:
        for name, bias in adapter.biases.items():
            model.get_parameter(name).copy_(bias)


def _by_peft(model: Any, adapters: Sequence[Path]) -> Any:
    """PEFT's own `add_weighted_adapter` rounds the factors to the model's dtype first, and its `linear` is no mean."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    first, *others = adapters
    with_adapters = PeftModel.from_pretrained(model, first)
    if not others:
        return with_adapters.merge_and_unload()
    for number, adapter in enumerate(others):
        with_adapters.load_adapter(adapter, str(number))
    names = list(with_adapters.peft_config)
    for layer in with_adapters.modules():
        if isinstance(layer, LoraLayer):
            added = [layer.get_delta_weight(name) for name in names if name in layer.lora_A]
            layer.get_base_layer().weight.data += sum(added) / len(names)
    return with_adapters.unload()
