"""What a model computes in on this machine; and weights, adapter, inputs and kept keys of one dtype: tiny twins."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trainers import PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from twins import llama32, save_twin

from yoyak.core import environment
from yoyak.core.errors import UserError
from yoyak.core.records import write_json
from yoyak.inference import generate
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import OneModelConfig
from yoyak.modeling import precision, weights
from yoyak.modeling.loading import Loaded
from yoyak.modeling.precision import TORCH_DTYPES
from yoyak.modeling.spec import DType, ModelSpec, QuantizationParams

NF4 = QuantizationParams(load_in_4bit=True, type="nf4", double=True)
SEARCHES = {
    "greedy": {},
    "sample": {"candidates": 3},
    "beam": {"num_beams": 3, "candidates": 3},
    "diverse_beam": {"num_beams": 4, "num_beam_groups": 2, "candidates": 3},
}


def in_blocks() -> Any:
    """bitsandbytes 0.50 repacks 4-bit weights on some CPUs, and needs rows of whole blocks of 64 for it."""
    config, tokenizer = llama32()
    config.intermediate_size = 128
    return config, tokenizer


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(in_blocks, tmp_path_factory.mktemp("llama") / "twin")


@pytest.fixture(scope="module")
def adapter(twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that says something: its second half is no zeros."""
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForCausalLM.from_pretrained(twin, dtype=torch.float32)
    torch.manual_seed(0)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=64, target_modules="all-linear"))
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    peft.save_pretrained(folder)
    AutoTokenizer.from_pretrained(twin).save_pretrained(folder)
    return folder


def job_of(twin: Path, dtype: DType, quantization: QuantizationParams | None, search: str = "greedy") -> OneModelConfig:
    pin = weights.pin(str(twin), "twin")
    model = {"weights": str(twin), "pin": pin, "method": "lora", "dtype": dtype, "prompt": "structured"}
    params = {"search": search, "max_new_tokens": 8, "batch_size": 5, **SEARCHES[search]}
    return OneModelConfig.model_validate({"model": model, "generation": params, "quantization": quantization})


def load(config: OneModelConfig, adapter: Path) -> Loaded:
    return load_for_inference(config.model, adapter, config.quantization)


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = loaded.model(input_ids=torch.arange(5, 60)[None].to(loaded.model.device)).logits
    return found


@pytest.mark.usefixtures("dtypes_as_asked")
@pytest.mark.parametrize("quantization", [None, NF4], ids=["merged", "beside_nf4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_all_is_of_one_dtype(twin: Path, adapter: Path, dtype: DType, quantization: QuantizationParams | None) -> None:
    loaded = load(job_of(twin, dtype, quantization), adapter)
    weights_of_all = {weight.dtype for name, weight in loaded.model.named_parameters() if weight.dtype != torch.uint8}
    assert weights_of_all == {TORCH_DTYPES[dtype]}
    assert any("lora_" in name for name, _ in loaded.model.named_parameters()) == (quantization is not None)
    assert logits(loaded).dtype == TORCH_DTYPES[dtype]
    assert loaded.model.is_loaded_in_4bit if quantization else not hasattr(loaded.model, "quantization_method")


@pytest.mark.usefixtures("dtypes_as_asked")
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("quantization", [None, NF4], ids=["merged", "beside_nf4"])
def test_the_adapter_says_the_same_in_each(
    twin: Path, adapter: Path, dtype: DType, quantization: QuantizationParams | None
) -> None:
    """As in fp32; over 4-bit weights as over their very values."""
    found = logits(load(job_of(twin, dtype, quantization), adapter)).float()
    expected = logits(load(job_of(twin, "fp32", quantization), adapter)).float()
    without = logits(load_for_inference(job_of(twin, "fp32", None).model, None)).float()
    assert torch.nn.functional.cosine_similarity(found, expected, -1).mean() > 0.99
    assert torch.nn.functional.cosine_similarity(found, without, -1).mean() < 0.9


@pytest.mark.usefixtures("dtypes_as_asked")
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("quantization", [None, NF4], ids=["merged", "beside_nf4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_each_search_runs_in_each(
    twin: Path, adapter: Path, tmp_path: Path, dtype: DType, quantization: QuantizationParams | None, search: str
) -> None:
    config = job_of(twin, dtype, quantization, search)
    found = generate.generate(load(config, adapter), PROMPTS[:3], config, "twin", tmp_path).predictions
    for row in found:
        assert len(row.candidates) == config.generation.candidates
        assert all(-30 < candidate.log_probability < 0 for candidate in row.candidates)


def test_adapters_meet_no_weights_but_their_own(tmp_path: Path) -> None:
    spec = ModelSpec(weights="some/model", pin="b" * 40, method="lora", dtype="bf16", prompt="structured")
    adapters = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 0, "bias": "none"}
    adapters |= {"target_modules": ["q_proj"], "base_model_name_or_path": "some/model", "revision": "a" * 40}
    write_json(tmp_path / "adapter_config.json", adapters)
    with pytest.raises(UserError, match=r"trained on other base weights \(some/model, a{40}\).*some/model, b{40}"):
        load_for_inference(spec, tmp_path)


# What is chosen


@pytest.mark.parametrize("asked", ["bf16", "fp16", "fp32"])
def test_a_cpu_without_bf16_computes_in_fp32(asked: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    chosen = precision.choose(asked)
    assert chosen.dtype == "fp32"
    assert (chosen.why == precision.ASKED_FOR) == (asked == "fp32")


def test_a_cpu_with_bf16_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    chosen = {asked: precision.choose(asked).dtype for asked in precision.TORCH_DTYPES}
    assert chosen == {"bf16": "bf16", "fp16": "fp32", "fp32": "fp32"}


@pytest.mark.parametrize("feature", environment.BF16_INSTRUCTIONS)
@pytest.mark.parametrize("reached", [True, False])
def test_instructions_count_where_onednn_uses_them(
    feature: str, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, feature: True})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: reached)
    assert environment.cpu_has_bf16() == reached
    with torch.backends.mkldnn.flags(enabled=False):
        assert not environment.cpu_has_bf16()


def test_wide_registers_alone_are_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN takes bf16 on each CPU with AVX-512, and converts it where that has no instructions for it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert not environment.cpu_has_bf16()


@pytest.mark.parametrize(
    ("capability", "chosen"),
    [
        ((6, 1), {"bf16": "fp32", "fp16": "fp32"}),
        ((7, 0), {"bf16": "fp16", "fp16": "fp16"}),
        ((7, 5), {"bf16": "fp16", "fp16": "fp16"}),
        ((8, 6), {"bf16": "bf16", "fp16": "fp16"}),
    ],
)
def test_what_a_gpu_has(
    capability: tuple[int, int], chosen: dict[DType, DType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    has_bf16 = capability >= (8, 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation)
    assert {asked: precision.choose(asked).dtype for asked in chosen} == chosen
    assert precision.choose("fp32").dtype == "fp32"


@pytest.mark.parametrize("largest", [1.0, 1e6])
def test_fp16_in_place_of_bf16_only_where_it_holds_the_models_numbers(
    largest: float, twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = AutoModelForCausalLM.from_pretrained(twin, dtype=torch.float32)
    for layer in (model.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.down_proj):
        layer.weight.data *= largest
    model.save_pretrained(tmp_path / "twin")
    AutoTokenizer.from_pretrained(twin).save_pretrained(tmp_path / "twin")
    without_bf16 = precision.Precision("fp16", precision.FP16_FOR_BF16)
    monkeypatch.setattr(precision, "choose", lambda asked: without_bf16)
    loaded = load_for_inference(job_of(tmp_path / "twin", "bf16", None).model, None)
    expected = without_bf16 if largest == 1 else precision.Precision("fp32", precision.OVERFLOWS)
    assert loaded.precision == expected
    assert loaded.model.dtype == expected.torch_dtype
    assert logits(loaded).isfinite().all()


def test_the_record_names_each_dtype_of_an_average() -> None:
    one, other = precision.Precision("fp32", "as asked for"), precision.Precision("bf16", "as asked for")
    assert precision.describe([one, other, one]) == {"dtype": "fp32, bf16", "dtype_why": "as asked for"}
