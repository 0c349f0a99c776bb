"""Adapters merged without PEFT, held to PEFT's own merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config

from yoyak.inference.merging import is_plain, merge, read_config

FAMILIES = {
    name: lambda family=family: family()[0]
    for name, family in {
        "llama32": twins.llama32,
        "qwen25, with biases": twins.qwen25,
        "gemma3": twins.gemma3,
        "lfm2, with convolutions": twins.lfm2,
        "granite_hybrid": twins.granite_hybrid,
        "granite_experts": twins.granite_experts,
    }.items()
} | {"gpt2, weights transposed": lambda: GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=100)}


def fresh(config: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(), dtype=dtype)


def save_adapter(config: Callable[[], Any], folder: Path, **options: Any) -> Path:
    """As training leaves it; factors and biases that do something."""
    options = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | options
    model = get_peft_model(fresh(config), LoraConfig(**options))
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data.normal_(std=0.1)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.mark.parametrize(
    ("dtype", "bias"), [(torch.bfloat16, "none"), (torch.float16, "all"), (torch.float32, "lora_only")], ids=str
)
@pytest.mark.parametrize("family", FAMILIES)
def test_as_peft_merges_to_the_bit(tmp_path: Path, family: str, dtype: torch.dtype, bias: str) -> None:
    folder = save_adapter(FAMILIES[family], tmp_path / "adapter", bias=bias)
    plain, ours, theirs = (fresh(FAMILIES[family], dtype) for _ in range(3))
    merge(ours, [folder])
    assert is_plain(read_config(folder))
    expected = PeftModel.from_pretrained(theirs, folder).merge_and_unload().state_dict()
    weights = ours.state_dict()
    assert weights.keys() == expected.keys()
    assert [name for name in weights if not torch.equal(weights[name], expected[name])] == []
    changed = [name for name, weight in plain.state_dict().items() if not torch.equal(weight, weights[name])]
    assert len(changed) >= 8


@pytest.mark.parametrize(
    "options", [{"use_dora": True}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 3}}], ids=str
)
def test_what_else_an_adapter_may_be_is_for_peft(tmp_path: Path, options: dict[str, Any]) -> None:
    assert not is_plain(read_config(save_adapter(FAMILIES["llama32"], tmp_path, **options)))


def test_experts_are_for_peft(tmp_path: Path) -> None:
    """Whose weights are parameters of one module, several layers in one."""
    assert not is_plain(read_config(save_adapter(lambda: twins.qwen3_next()[0], tmp_path)))
