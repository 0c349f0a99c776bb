"""What becomes of an adapter on its way from training to inference: dev loss and greedy ROUGE of each way to load it.

    python benchmarks/merging.py MODEL...

In a project where each MODEL, of `method: lora`, is trained. Differences of loss are in percent of the first way, which
is training's own; ROUGE is of one greedy summary a dialogue of dev.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from yoyak.core import environment, gpu
from yoyak.core.records import Prompt, read_records
from yoyak.inference.generate import Asked, as_texts, within_memory
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import GenerationParams, OneModelConfig
from yoyak.metrics import rouge
from yoyak.modeling.loading import Loaded
from yoyak.training.base_model import dequantize, load_for_training
from yoyak.training.params import TrainingConfig, read_config
from yoyak.tuning.groups import Group, laid_out, log_probabilities, use_shared_prompts

ROWS = 16
Way = Callable[[TrainingConfig, Path], Loaded]


def main() -> None:
    print(environment.describe()["device"])
    dev = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    for name in sys.argv[1:]:
        config, first = read_config(Path(f"data/resolved/{name}/training.yaml")), None
        for way, load in WAYS.items():
            loaded = load(config, Path(f"models/{name}"))
            loss = dev_loss(loaded, dev)
            started = time.perf_counter()
            score = greedy_rouge(loaded, config, dev)
            seconds = time.perf_counter() - started
            first = first or loss
            lost = f"loss {loss:.4f} ({loss / first - 1:+.2%})"
            print(f"{name}: {way}: {lost}, ROUGE {score:.2f}, {seconds:.1f} s", flush=True)
            del loaded
            gpu.release_memory()


def as_trained(config: TrainingConfig, adapter: Path) -> Loaded:
    assert config.quantization is not None
    loaded = load_for_training(config.model, config.quantization, [])
    model, _ = dequantize(loaded.model)
    with_adapter = PeftModel.from_pretrained(model.to(environment.device()), adapter)
    return replace(loaded, model=with_adapter.get_base_model().eval())


def beside(config: TrainingConfig, adapter: Path, dtype: torch.dtype = torch.float32) -> Loaded:
    loaded = load_for_inference(config.model, None)
    model = PeftModel.from_pretrained(loaded.model, adapter, autocast_adapter_dtype=False)
    for layer in lora_layers(model):
        layer.to(loaded.model.dtype)
        for part in (layer.lora_A, layer.lora_B):
            part.to(dtype)
    return replace(loaded, model=model.get_base_model().eval())


def beside_rounded(config: TrainingConfig, adapter: Path) -> Loaded:
    return beside(config, adapter, torch.bfloat16)


def merged(config: TrainingConfig, adapter: Path) -> Loaded:
    return load_for_inference(config.model, adapter)


def merged_in_fp32(config: TrainingConfig, adapter: Path) -> Loaded:
    """And rounded once."""
    loaded = load_for_inference(config.model, None)
    return replace(loaded, model=added(loaded.model, adapter, loaded.model.dtype))


def merged_and_kept_in_fp32(config: TrainingConfig, adapter: Path) -> Loaded:
    loaded = load_for_inference(config.model, None)
    return replace(loaded, model=added(loaded.model.float(), adapter, torch.float32))


def merged_into_trained_values(config: TrainingConfig, adapter: Path) -> Loaded:
    """The base as training had it, quantised and unpacked, in place of the whole one."""
    assert config.quantization is not None
    loaded = load_for_training(config.model, config.quantization, [])
    model, _ = dequantize(loaded.model)
    return replace(loaded, model=added(model.to(environment.device()), adapter, model.dtype))


WAYS: dict[str, Way] = {
    "as trained, adapter in fp32 beside the base as training has it": as_trained,
    "adapter in fp32 beside the 16-bit base": beside,
    "adapter in bf16 beside the 16-bit base": beside_rounded,
    "merged in bf16 (today)": merged,
    "merged in fp32, rounded to 16 bits once": merged_in_fp32,
    "merged and kept in fp32": merged_and_kept_in_fp32,
    "merged in fp32 into the base as training has it, rounded once": merged_into_trained_values,
}


def lora_layers(model: Any) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def added(model: Any, adapter: Path, dtype: torch.dtype) -> Any:
    with_adapter = PeftModel.from_pretrained(model, adapter)
    for layer in lora_layers(with_adapter):
        weight = layer.get_base_layer().weight
        weight.data = (weight.data.float() + layer.get_delta_weight("default").float()).to(dtype)
    return with_adapter.unload().eval()


@torch.no_grad()
def dev_loss(loaded: Loaded, dev: list[Prompt]) -> float:
    """Mean of a label, as training has it."""
    model, tokenizer = loaded.model, loaded.prompt_tokenizer
    use_shared_prompts(model)
    groups = [
        Group(tokenizer.encode_prompt(prompt).ids, [tokenizer.encode_summary(prompt.summary or "")], [1.0])
        for prompt in dev
    ]
    total = labels = 0.0
    for start in range(0, len(groups), ROWS):
        with in_its_dtype(model):
            values = log_probabilities(model, laid_out(groups[start : start + ROWS], model.device))
        total, labels = total - values.sum().item(), labels + len(values)
    return total / labels


def in_its_dtype(model: Any) -> Any:
    """As the trainer computes."""
    return (
        nullcontext()
        if model.dtype == torch.float32
        else torch.autocast(model.device.type, model.dtype, cache_enabled=False)
    )


def greedy_rouge(loaded: Loaded, config: TrainingConfig, dev: list[Prompt]) -> float:
    params = GenerationParams(search="greedy", max_new_tokens=192, batch_size=64)
    asked = [
        Asked(row, [loaded.prompt_tokenizer.encode_prompt(prompt).ids], "\n".join(prompt.turns))
        for row, prompt in enumerate(dev)
    ]
    asked.sort(key=lambda each: len(each.ids[0]), reverse=True)
    texts = [""] * len(dev)
    with in_its_dtype(loaded.model):
        for group in within_memory(loaded, asked, OneModelConfig(model=config.model, generation=params)):
            for each, found in group:
                texts[each.row] = as_texts(loaded, found)[0].text
    return 100 * fmean(score.mean for score in rouge.score(texts, [(prompt.summary or "",) for prompt in dev]))


if __name__ == "__main__":
    main()
