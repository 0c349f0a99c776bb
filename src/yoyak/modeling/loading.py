"""From a model's name to its weights, tokenizer, quantisation and dtype: the same code for training and inference."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.modeling import precision
from yoyak.modeling.chat_template import keep_default
from yoyak.modeling.precision import Precision
from yoyak.modeling.spec import ModelSpec, QuantizationParams
from yoyak.modeling.tokenization import PromptTokenizer


@dataclass(frozen=True)
class Loaded:
    """A model in memory with all that is needed to talk to it."""

    model: Any
    tokenizer: Any
    prompt_tokenizer: PromptTokenizer
    precision: Precision

    @property
    def members(self) -> tuple["Loaded", ...]:
        """Itself alone: it is asked as `Averaged` is."""
        return (self,)

    @property
    def end_ids(self) -> list[int]:
        """A chat model's end of turn is often not its tokenizer's end token: either ends a summary."""
        return sorted({self.prompt_tokenizer.end_id, self.tokenizer.eos_token_id})


def in_fast_dtype(spec: ModelSpec, load: Callable[[Precision], Any], tokenizer: Any) -> tuple[Any, Precision]:
    """The model as `load` gives it in `spec.dtype`, or in what is fast here in its place and holds its numbers."""
    chosen = precision.choose(spec.dtype)
    model = load(chosen)
    if chosen.why != precision.FP16_FOR_BF16 or not precision.overflows(model.to(device()), tokenizer, chosen):
        return model, chosen
    del model
    gpu.release_memory()
    chosen = Precision("fp32", precision.OVERFLOWS)
    return load(chosen), chosen


def vocabulary_of(model: Any) -> int:
    """Tokens that it has logits of: of some models more than their tokenizer has."""
    return int(model.get_output_embeddings().weight.shape[0])


def assembled(spec: ModelSpec, model: Any, chosen: Precision, tokenizer: Any) -> Loaded:
    _use_safe_attention()
    prompt_tokenizer = PromptTokenizer(tokenizer, spec.prompt, spec.max_prompt_tokens, spec.persons)
    loaded = Loaded(model, tokenizer, prompt_tokenizer, chosen)
    if model.config.is_encoder_decoder:
        model.config.decoder_start_token_id = _first_of_decoder(loaded, spec)
    model.generation_config = _own_tokens_alone(loaded)
    return loaded


def _first_of_decoder(loaded: Loaded, spec: ModelSpec) -> int:
    """The token before a summary's first, as training has it: mBART's is the last of its labels, whatever is configured
    for searches."""
    model, labels = loaded.model, torch.tensor([[loaded.prompt_tokenizer.end_id]])
    try:
        return int(model.prepare_decoder_input_ids_from_labels(labels=labels)[0, 0])
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"{spec.weights}: its config.json names no decoder_start_token_id, with which the decoder begins; add it"
        ) from None


def _own_tokens_alone(loaded: Loaded) -> Any:
    """In place of the base's generation config, from which `generate` takes all that it is not told."""
    from transformers import GenerationConfig

    return GenerationConfig(
        eos_token_id=loaded.end_ids,
        pad_token_id=loaded.tokenizer.pad_token_id,
        bos_token_id=loaded.tokenizer.bos_token_id,
        decoder_start_token_id=getattr(loaded.model.config, "decoder_start_token_id", None),
    )


def _use_safe_attention() -> None:
    """Never choose cuDNN's attention: for Qwen2 in bf16 on padded batches it was seen to give NaN gradients (torch
    2.11). Random Qwen2s of three head sizes, padded left or right, do not show it on an H200 (cuDNN 9.19)."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def model_class(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def pretrained(folder: Path, **options: Any) -> Any:
    """The model in `folder`, all of whose weights must be there: transformers makes random ones in place of others.

    Its generation config is not even read: some that transformers reads it does not write, and others it refuses.
    """
    from transformers import GenerationConfig

    # Else what is pickled would be read beside safetensors of another name, though no pin is of it.
    options = {"use_safetensors": True, **options, "generation_config": GenerationConfig(), "trust_remote_code": False}
    model, info = model_class(folder).from_pretrained(folder, output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{folder}: its weights lack {missing[0]}" + f" and {len(missing) - 1} others" * (len(missing) > 1) + ", "
            f"which a {type(model).__name__} has (config.json: architectures); name a model that was saved as one"
        )
    return model


def check_finite(model: Any, what: str) -> None:
    """Stop at a weight that is infinite or no number: every answer of such a model is worthless."""
    # With buffers that are saved, and no parameters: BART adds one to its logits.
    saved = ((name, weight) for name, weight in model.state_dict().items() if isinstance(weight, torch.Tensor))
    # Whole numbers, whatever their dtype says.
    packed = {f"{name}.weight" for name, module in model.named_modules() if is_packed(module)}
    for name, weight in saved:
        if name not in packed and weight.is_floating_point() and not _all_finite(weight):
            raise UserError(f"{what}: its weights have values that are no numbers (NaN or infinite), in {name}")


def is_packed(module: Any) -> bool:
    """Whether it is a layer of bitsandbytes whose weight has 4 bits a value."""
    return getattr(module, "quant_state", None) is not None


def _all_finite(weight: torch.Tensor) -> bool:
    """Least and greatest are no numbers where any value is none. Of bf16 on a CPU they take a tenth of a sum's time."""
    # Of a weight that ranks share each looks at its part, which may be none.
    part = weight.to_local() if hasattr(weight, "to_local") else weight
    # PyTorch compares no floats of 8 bits.
    values = part if part.element_size() > 1 else part.float()
    return not values.numel() or all(bool(each.isfinite()) for each in values.aminmax())


def read_tokenizer(folder: Path, base: Path) -> Any:
    """The model's own tokenizer, its vocabulary never resized; the end token pads where there is no pad token.

    `base` is where the model's configuration is: a folder with an adapter has none.

    Padding with the end token is harmless here: labels and attention masks are built by position, not from token ids.
    """
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    # `tokenizer.json` is whole; the class that a configuration names would build its own kind from its vocabulary.
    # paust/pko-t5-base, a BPE over bytes under the name of T5's unigram class, does not load that way.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer = kind.from_pretrained(folder, trust_remote_code=False, **_no_further_tokens(folder))
    keep_default(tokenizer)
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    _name_missing_tokens(tokenizer, config, folder)
    # A pad token that somebody added may have no embedding.
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= config.get_text_config().vocab_size:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _no_further_tokens(folder: Path) -> dict[str, Any]:
    """Tells transformers that no file adds tokens to `tokenizer.json`'s own, where none does.

    Else it looks for them in that file as well, which it parses in Python for it: half a second for Gemma's 33 MB.
    """
    config = folder / "tokenizer_config.json"
    files = [folder / name for name in ("tokenizer.json", "special_tokens_map.json", "added_tokens.json")]
    alone = [path.is_file() for path in files] == [True, False, False]
    named = config.is_file() and '"added_tokens_decoder"' in config.read_text(encoding="utf-8")
    return {"added_tokens_decoder": {}} if alone and not named else {}


def _name_missing_tokens(tokenizer: Any, config: Any, folder: Path) -> None:
    """`tokenizer.json` alone names no end and no pad token; the model's configuration knows their ids."""
    for role in ("eos_token", "pad_token"):
        token_id = getattr(config, f"{role}_id", None)
        if getattr(tokenizer, role) is None and isinstance(token_id, int):
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(token_id))
    if tokenizer.eos_token is None:
        raise UserError(f"{folder}: neither its tokenizer nor its config.json names an end token (eos_token)")


def quantised(chosen: Precision, quantization: QuantizationParams, folder: Path) -> Any:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=chosen.torch_dtype,
    )
    return pretrained(
        folder,
        dtype=chosen.torch_dtype,
        quantization_config=config if quantization.load_in_4bit else None,
        device_map={"": 0} if device() == "cuda" else None,
    )
