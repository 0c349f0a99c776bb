"""Trained models, ready to write: adapters merged in, or their mean, or beside weights in 4 bits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.inference.merging import merge, read_config
from yoyak.modeling import weights as weights_of
from yoyak.modeling.loading import Loaded, assembled, check_finite, in_fast_dtype, pretrained, quantised, read_tokenizer
from yoyak.modeling.precision import Precision
from yoyak.modeling.spec import ModelSpec, QuantizationParams


def load_for_inference(spec: ModelSpec, trained: Path | None, quantization: QuantizationParams | None = None) -> Loaded:
    """Weights in `spec.dtype`, or what is fast in its place, with the adapter merged in, or the fully trained model;
    untuned where `trained` is None.

    Adapters are merged into weights reloaded in that dtype: merging into 4-bit weights would round the adapter away.
    With `quantization` the base weights are in 4 bits, and the adapter stays beside them.
    """
    if spec.method == "lora" and trained:
        return _with_adapters(spec, [trained], quantization)
    folder = trained or weights_of.fetch(spec.weights, spec.pin)
    what = f"{trained or spec.weights}"
    return _ready(spec, folder, folder, lambda chosen: _base(chosen, quantization, folder), what)


def load_mean(spec: ModelSpec, adapters: Sequence[Path]) -> Loaded:
    """One model: the mean of the weights of several of the same `spec`, whose folders `adapters` are."""
    return _with_adapters(spec, adapters, None)


def _with_adapters(spec: ModelSpec, adapters: Sequence[Path], quantization: QuantizationParams | None) -> Loaded:
    for adapter in adapters:
        check_base(spec, adapter)
    folder = weights_of.fetch(spec.weights, spec.pin)

    def load(chosen: Precision) -> Any:
        model = _base(chosen, quantization, folder)
        return _beside(model, adapters[0]) if quantization else merge(model, adapters)

    return _ready(spec, adapters[0], folder, load, ", ".join(map(str, adapters)))


def _ready(spec: ModelSpec, of_tokenizer: Path, folder: Path, load: Callable[[Precision], Any], what: str) -> Loaded:
    """The model that `load` gives, whose configuration is in `folder`; errors call it `what`."""
    tokenizer = read_tokenizer(of_tokenizer, folder)
    model, chosen = in_fast_dtype(spec, load, tokenizer)
    check_finite(model, what)
    model.get_output_embeddings().register_forward_pre_hook(_with_fresh_strides)
    return assembled(spec, model.to(device()).eval(), chosen, tokenizer)


def check_base(spec: ModelSpec, adapter: Path) -> None:
    """Adapters on other weights than theirs would load, and write nonsense."""
    known = read_config(adapter)
    if known["revision"] not in (None, spec.pin):
        raise UserError(
            f"{adapter}: these adapters were trained on other base weights ({known['base_model_name_or_path']}, "
            f"{known['revision']}) than the entry's now ({spec.weights}, {spec.pin}); `dvc repro` trains them anew"
        )


def _base(chosen: Precision, quantization: QuantizationParams | None, folder: Path) -> Any:
    return quantised(chosen, quantization, folder) if quantization else pretrained(folder, dtype=chosen.torch_dtype)


def _beside(model: Any, adapter: Path) -> Any:
    """Adapters in the model's dtype: PEFT would have them in fp32, and cast each input."""
    from peft import PeftModel

    with_adapter = PeftModel.from_pretrained(model, adapter, autocast_adapter_dtype=False)
    for name, weight in with_adapter.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.to(model.dtype)
    return with_adapter.get_base_model()


def _with_fresh_strides(head: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The output head gets a slice of the hidden states, and for a strided input PyTorch copies the head's weights once
    a row: 16 rows of gemma3_270m took 18.1 s to their first token on two CPU cores, 2.0 s this way."""
    return (inputs[0].clone(memory_format=torch.contiguous_format), *inputs[1:])
