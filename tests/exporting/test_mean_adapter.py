"""The mean of adapters, written as one: it changes a model as the pipeline's own mean of their weights does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from yoyak.core.errors import UserError
from yoyak.exporting import mean_adapter
from yoyak.inference.merging import merge, read_config

OTHER_RANKS: list[dict[str, Any]] = [{"r": 4, "lora_alpha": 6}, {"r": 2, "lora_alpha": 1}, {"r": 3, "lora_alpha": 3}]
OTHER_LAYERS: list[dict[str, Any]] = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": ["v_proj", "up_proj"]},
]


def fresh() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(twins.llama32()[0])


def save_adapter(folder: Path, options: dict[str, Any]) -> Path:
    """As training leaves it; factors that do something."""
    defaults = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    model = get_peft_model(fresh(), LoraConfig(**{**defaults, **options}))
    torch.manual_seed(len(folder.name))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize("members", [OTHER_RANKS, OTHER_LAYERS], ids=["other ranks", "other layers"])
def test_peft_makes_of_it_the_mean_of_the_weights(tmp_path: Path, members: list[dict[str, Any]]) -> None:
    adapters = [save_adapter(tmp_path / ("a" * number), options) for number, options in enumerate(members, start=1)]
    (tmp_path / "mean").mkdir()
    mean_adapter.write(tmp_path / "mean", adapters)
    by_peft = PeftModel.from_pretrained(fresh(), tmp_path / "mean").merge_and_unload().state_dict()
    expected = merge(fresh(), adapters).state_dict()
    assert by_peft.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(by_peft[name], weight, atol=1e-6, rtol=1e-5)
    untouched = fresh().state_dict()
    changed = [name for name, weight in expected.items() if not torch.equal(weight, untouched[name])]
    assert {name.split(".")[-2] for name in changed} == _layers(members)
    assert read_config(tmp_path / "mean")["r"] == sum(read_config(adapter)["r"] for adapter in adapters)


def _layers(members: list[dict[str, Any]]) -> set[str]:
    named = {layer for member in members for layer in member.get("target_modules", [])}
    return named or {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_what_is_more_than_two_factors_is_refused(tmp_path: Path) -> None:
    adapters = [save_adapter(tmp_path / "a", {}), save_adapter(tmp_path / "aa", {"use_dora": True})]
    with pytest.raises(UserError, match="llama_mean is the mean of adapters that are more than two factors a layer"):
        mean_adapter.check("llama_mean", adapters)
