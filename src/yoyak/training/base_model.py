"""The model before its training: weights as the trainer takes them."""

from pathlib import Path
from typing import Any

import torch

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.gpu import GIB
from yoyak.modeling import weights as weights_of
from yoyak.modeling.loading import (
    Loaded,
    assembled,
    check_finite,
    in_fast_dtype,
    is_packed,
    pretrained,
    quantised,
    read_tokenizer,
)
from yoyak.modeling.precision import Precision
from yoyak.modeling.spec import ModelSpec, QuantizationParams
from yoyak.training import sharding
from yoyak.training.from_scratch import from_scratch

ROOM_BESIDE_DENSE_WEIGHTS = 8 * GIB
"""For activations: of a model of 3 B parameters, 2,500 tokens' and more."""


def load_for_training(
    spec: ModelSpec, quantization: QuantizationParams | None, texts: list[str], sharded: bool = False
) -> Loaded:
    """Weights ready to train, in `spec.dtype` or what is fast in its place, or, for adapters over them, 4 bits.

    Adapters are the trainer's to add. `texts` are what a tokenizer is learned from, for a model from scratch.
    `sharded`: of all ranks, which are together, each has its part.
    """
    if spec.weights == "scratch":
        return from_scratch(spec, texts)
    folder = weights_of.fetch(spec.weights, spec.pin)
    _check_method(spec, folder)
    tokenizer = read_tokenizer(folder, folder)

    def load(chosen: Precision) -> Any:
        if spec.method == "full":
            # Master weights in fp32: at 5e-5 a bf16 weight loses most updates. `spec.dtype` is the autocast dtype.
            return pretrained(folder, dtype="float32")
        assert quantization is not None, "the preflight gives it to each model with method: lora"
        if sharded:
            return sharding.load_part(chosen, quantization, folder, spec.weights)
        return quantised(chosen, quantization, folder)

    model, chosen = in_fast_dtype(spec, load, tokenizer)
    check_finite(model, spec.weights)
    return assembled(spec, model, chosen, tokenizer)


def _check_method(spec: ModelSpec, folder: Path) -> None:
    from transformers import AutoConfig

    encoder_decoder = AutoConfig.from_pretrained(folder, trust_remote_code=False).is_encoder_decoder
    if encoder_decoder != (spec.method == "full"):
        kind, method = ("an encoder-decoder", "full") if encoder_decoder else ("decoder-only", "lora")
        raise UserError(f"{spec.weights} is {kind}: its entry of models needs method: {method}")


def dequantize(model: Any) -> tuple[Any, str]:
    """4-bit base weights as dense ones of the very same values, where memory bears it; and what they are now.

    What a 4-bit layer computes with is these values, unpacked at each use. Dense, they need no unpacking, and layers
    compile without a break. On a CPU 4 bits save no time, and bitsandbytes 0.50 spoils the weights there: where the CPU
    has avx512_bf16, the first forward pass without gradients repacks them for good, and later gradients are wrong.
    Sharded ones stay in 4 bits: a quarter to keep, and to send.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    if (shards := sharding.shards_of(model)) > 1:
        packed = any(map(is_packed, model.modules()))
        what = f"4 bits, computing in {dtype}" if packed else dtype
        return model, f"{what}, sharded over {shards} processes"
    if not getattr(model, "is_loaded_in_4bit", False):
        return model, dtype
    # Two values a byte.
    values = 2 * sum(weights.numel() for weights in model.parameters() if weights.dtype == torch.uint8)
    dense = values * model.dtype.itemsize
    if device() == "cuda" and gpu.free_memory() - dense < ROOM_BESIDE_DENSE_WEIGHTS:
        return model, f"4 bits, computing in {dtype}"
    return model.dequantize(), f"4-bit values in {dtype}"
