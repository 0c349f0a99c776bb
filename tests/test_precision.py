"""Weights, adapter, inputs and kept keys of one dtype: tiny twins, as inference loads them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trainers import PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from twins import llama32, save_twin

from yoyak import generation, weights
from yoyak.errors import UserError
from yoyak.jobs import GenerationJob
from yoyak.models import DType, Loaded, ModelSpec, QuantizationParams, load_for_inference, torch_dtype
from yoyak.records import write_json

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


def job_of(twin: Path, dtype: DType, quantization: QuantizationParams | None, search: str = "greedy") -> GenerationJob:
    pin = weights.pin(str(twin), "twin")
    model = {"weights": str(twin), "pin": pin, "method": "lora", "dtype": dtype, "prompt": "structured"}
    params = {"search": search, "max_new_tokens": 8, "batch_size": 5, **SEARCHES[search]}
    return GenerationJob.model_validate({"model": model, "generation": params, "quantization": quantization})


def load(job: GenerationJob, adapter: Path) -> Loaded:
    return load_for_inference(job.model, adapter, job.quantization)


def logits(loaded: Loaded) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = loaded.model(input_ids=torch.arange(5, 60)[None].to(loaded.model.device)).logits
    return found


@pytest.mark.parametrize("quantization", [None, NF4], ids=["merged", "beside_nf4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_all_is_of_one_dtype(twin: Path, adapter: Path, dtype: DType, quantization: QuantizationParams | None) -> None:
    loaded = load(job_of(twin, dtype, quantization), adapter)
    weights_of_all = {weight.dtype for name, weight in loaded.model.named_parameters() if weight.dtype != torch.uint8}
    assert weights_of_all == {torch_dtype(dtype)}
    assert any("lora_" in name for name, _ in loaded.model.named_parameters()) == (quantization is not None)
    assert logits(loaded).dtype == torch_dtype(dtype)
    assert loaded.model.is_loaded_in_4bit if quantization else not hasattr(loaded.model, "quantization_method")


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


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("quantization", [None, NF4], ids=["merged", "beside_nf4"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_each_search_runs_in_each(
    twin: Path, adapter: Path, tmp_path: Path, dtype: DType, quantization: QuantizationParams | None, search: str
) -> None:
    job = job_of(twin, dtype, quantization, search)
    found = generation.generate(load(job, adapter), PROMPTS[:3], job, "twin", tmp_path).predictions
    for row in found:
        assert len(row.candidates) == job.generation.candidates
        assert all(-30 < candidate.log_probability < 0 for candidate in row.candidates)


def test_adapters_meet_no_weights_but_their_own(tmp_path: Path) -> None:
    spec = ModelSpec(weights="some/model", pin="b" * 40, method="lora", dtype="bf16", prompt="structured")
    write_json(tmp_path / "adapter_config.json", {"base_model_name_or_path": "some/model", "revision": "a" * 40})
    with pytest.raises(UserError, match=r"trained on other base weights \(some/model, a{40}\).*some/model, b{40}"):
        load_for_inference(spec, tmp_path)
