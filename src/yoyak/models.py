"""From a model's name to its weights, tokenizer, quantisation and dtype: the same code for training and inference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yoyak import gpu, precision
from yoyak import weights as weights_of
from yoyak.errors import UserError
from yoyak.machine import GIB, device
from yoyak.parameters import refuse_unknown
from yoyak.precision import Precision
from yoyak.prompts import Encoder
from yoyak.records import read_json
from yoyak.spec import SPECIAL_TOKENS, ModelSpec, QuantizationParams

ROOM_BESIDE_DENSE_WEIGHTS = 8 * GIB
"""For activations: of a model of 3 B parameters, 2,500 tokens' and more."""


@dataclass(frozen=True)
class Loaded:
    """A model in memory with all that is needed to talk to it."""

    model: Any
    tokenizer: Any
    encoder: Encoder
    precision: Precision

    @property
    def members(self) -> tuple["Loaded", ...]:
        """Itself alone: it is asked as `Averaged` is."""
        return (self,)

    @property
    def end_ids(self) -> list[int]:
        """A chat model's end of turn is often not its tokenizer's end token: either ends a summary."""
        return sorted({self.encoder.end_id, self.tokenizer.eos_token_id})


@dataclass(frozen=True)
class Averaged:
    """Models in memory that are asked as one: each next token is chosen by the mean of their logits.

    Which is the mean of their log-probabilities but for a constant: the geometric mean of their distributions.
    """

    members: tuple[Loaded, ...]
    """Of one tokenizer. Each reads its own prompt."""

    @property
    def tokenizer(self) -> Any:
        return self.members[0].tokenizer

    @property
    def encoder(self) -> Encoder:
        """For answers: prompts are each member's own."""
        return self.members[0].encoder

    @property
    def end_ids(self) -> list[int]:
        return self.members[0].end_ids


def together(name: str, members: Mapping[str, Loaded]) -> Loaded | Averaged:
    """The only one of `members`, or their average, whose entry of `models` is `name`."""
    first, *others = members
    for other in others:
        if not _same_tokens(members[first], members[other]):
            raise UserError(
                f"models.{name}.members: {first} and {other} have different tokens, or end with different ones, so "
                "that their logits cannot be averaged; choose models that share a tokenizer"
            )
        if members[first].encoder.persons != members[other].encoder.persons:
            raise UserError(
                f"models.{name}.members: {first} and {other} differ in `persons`, and so in what they write"
            )
    return Averaged(tuple(members.values())) if others else members[first]


def _same_tokens(one: Loaded, other: Loaded) -> bool:
    return one.tokenizer.get_vocab() == other.tokenizer.get_vocab() and one.end_ids == other.end_ids


def load_for_training(spec: ModelSpec, quantization: QuantizationParams | None, texts: list[str]) -> Loaded:
    """Weights ready to train, in `spec.dtype` or what is fast in its place, or, for adapters over them, 4 bits.

    Adapters are the trainer's to add. `texts` are what a tokenizer is learned from, for a model from scratch.
    """
    if spec.weights == "scratch":
        return _from_scratch(spec, texts)
    folder = weights_of.fetch(spec.weights, spec.pin)
    _check_method(spec, folder)
    tokenizer = _tokenizer(folder, folder)

    def load(chosen: Precision) -> Any:
        if spec.method == "full":
            # Master weights in fp32: at 5e-5 a bf16 weight loses most updates. `spec.dtype` is the autocast dtype.
            return _model_class(folder).from_pretrained(folder, dtype="float32")
        assert quantization is not None, "the preflight gives it to each model with method: lora"
        return _quantised(chosen, quantization, folder)

    return _loaded(spec, *_in_fast_dtype(spec, load, tokenizer), tokenizer)


def _in_fast_dtype(spec: ModelSpec, load: Callable[[Precision], Any], tokenizer: Any) -> tuple[Any, Precision]:
    """The model as `load` gives it in `spec.dtype`, or in what is fast here in its place and holds its numbers."""
    chosen = precision.choose(spec.dtype)
    model = load(chosen)
    if chosen.why != precision.FP16_FOR_BF16 or not precision.overflows(model.to(device()), tokenizer, chosen):
        return model, chosen
    del model
    gpu.give_back()
    chosen = Precision("fp32", precision.OVERFLOWS)
    return load(chosen), chosen


def _check_method(spec: ModelSpec, folder: Path) -> None:
    from transformers import AutoConfig

    encoder_decoder = AutoConfig.from_pretrained(folder).is_encoder_decoder
    if encoder_decoder != (spec.method == "full"):
        kind, method = ("an encoder-decoder", "full") if encoder_decoder else ("decoder-only", "lora")
        raise UserError(f"{spec.weights} is {kind}: its entry of models needs method: {method}")


def load_for_inference(spec: ModelSpec, trained: Path | None, quantization: QuantizationParams | None = None) -> Loaded:
    """Weights in `spec.dtype`, or what is fast in its place, with the adapter merged in, or the fully trained model;
    untuned where `trained` is None.

    Adapters are merged into weights reloaded in that dtype: merging into 4-bit weights would round the adapter away.
    With `quantization` the base weights are in 4 bits, and the adapter stays beside them.
    """
    if spec.method == "full":
        folder = trained or weights_of.fetch(spec.weights, spec.pin)
    else:
        if trained:
            _check_base(spec, trained)
        folder = weights_of.fetch(spec.weights, spec.pin)
    tokenizer = _tokenizer(trained or folder, folder)

    def load(chosen: Precision) -> Any:
        model = _quantised(chosen, quantization, folder) if quantization else _dense(chosen, folder)
        if trained and spec.method == "lora":
            return _beside(model, trained) if quantization else _merged(model, trained)
        return model

    model, chosen = _in_fast_dtype(spec, load, tokenizer)
    model.get_output_embeddings().register_forward_pre_hook(_with_fresh_strides)
    return _loaded(spec, model.to(device()).eval(), chosen, tokenizer)


def _check_base(spec: ModelSpec, adapter: Path) -> None:
    """Adapters on other weights than theirs would load, and write nonsense."""
    known = read_json(adapter / "adapter_config.json")
    if known["revision"] not in (None, spec.pin):
        raise UserError(
            f"{adapter}: these adapters were trained on other base weights ({known['base_model_name_or_path']}, "
            f"{known['revision']}) than the entry's now ({spec.weights}, {spec.pin}); `dvc repro` trains them anew"
        )


def _dense(chosen: Precision, folder: Path) -> Any:
    return _model_class(folder).from_pretrained(folder, dtype=chosen.torch_dtype)


def _merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


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


def has_plain_attention(model: Any) -> bool:
    """Causal softmax, over a window perhaps, and nothing else: what `attention` and `shared_prompts` compute. Other
    families may look ahead, or have sinks; tests hold these four to transformers' own."""
    config = model.config.get_text_config()
    return (
        config.model_type in ("llama", "qwen2", "qwen3", "gemma3_text")
        and not getattr(config, "attn_logit_softcapping", None)
        and not getattr(config, "use_bidirectional_attention", False)
    )


def vocabulary_of(model: Any) -> int:
    """Tokens that it has logits of: of some models more than their tokenizer has."""
    return int(model.get_output_embeddings().weight.shape[0])


def _loaded(spec: ModelSpec, model: Any, chosen: Precision, tokenizer: Any) -> Loaded:
    _use_safe_attention()
    encoder = Encoder(tokenizer, spec.prompt, spec.max_prompt_tokens, spec.persons)
    return Loaded(model, tokenizer, encoder, chosen)


def _use_safe_attention() -> None:
    """cuDNN's attention gives NaN gradients for Qwen2 in bf16 on padded batches (torch 2.11): never choose it."""
    torch.backends.cuda.enable_cudnn_sdp(False)


def _model_class(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = AutoConfig.from_pretrained(folder)
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _tokenizer(folder: Path, base: Path) -> Any:
    """The model's own tokenizer, its vocabulary never resized; the end token pads where there is no pad token.

    `base` is where the model's configuration is: a folder with an adapter has none.

    Padding with the end token is harmless here: labels and attention masks are built by position, not from token ids.
    """
    from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

    # `tokenizer.json` is whole; the class that a configuration names would build its own kind from its vocabulary.
    # paust/pko-t5-base, a BPE over bytes under the name of T5's unigram class, does not load that way.
    kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    tokenizer = kind.from_pretrained(folder)
    _name_missing_tokens(tokenizer, AutoConfig.from_pretrained(base), folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _name_missing_tokens(tokenizer: Any, config: Any, folder: Path) -> None:
    """`tokenizer.json` alone names no end and no pad token; the model's configuration knows their ids."""
    for role in ("eos_token", "pad_token"):
        token_id = getattr(config, f"{role}_id", None)
        if getattr(tokenizer, role) is None and isinstance(token_id, int):
            setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(token_id))
    if tokenizer.eos_token is None:
        raise UserError(f"{folder}: neither its tokenizer nor its config.json names an end token (eos_token)")


def _quantised(chosen: Precision, quantization: QuantizationParams, folder: Path) -> Any:
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization.type,
        bnb_4bit_use_double_quant=quantization.double,
        bnb_4bit_compute_dtype=chosen.torch_dtype,
    )
    return _model_class(folder).from_pretrained(
        folder,
        dtype=chosen.torch_dtype,
        quantization_config=config if quantization.load_in_4bit else None,
        device_map={"": 0} if device() == "cuda" else None,
    )


def unpack(model: Any) -> tuple[Any, str]:
    """4-bit base weights as dense ones of the very same values, where memory bears it; and what they are now.

    What a 4-bit layer computes with is these values, unpacked at each use. Dense, they need no unpacking, and layers
    compile without a break. On a CPU 4 bits save no time, and bitsandbytes 0.50 spoils the weights there: where the CPU
    has avx512_bf16, the first forward pass without gradients repacks them for good, and later gradients are wrong.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    if not getattr(model, "is_loaded_in_4bit", False):
        return model, dtype
    # Two values a byte.
    values = 2 * sum(weights.numel() for weights in model.parameters() if weights.dtype == torch.uint8)
    dense = values * model.dtype.itemsize
    if device() == "cuda" and gpu.free_memory() - dense < ROOM_BESIDE_DENSE_WEIGHTS:
        return model, f"4 bits, computing in {dtype}"
    return model.dequantize(), f"4-bit values in {dtype}"


def _from_scratch(spec: ModelSpec, texts: list[str]) -> Loaded:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    assert spec.architecture is not None, "checked by ModelSpec"
    tokenizer = _learned_tokenizer(texts, spec.architecture["vocab_size"])
    config = AutoConfig.for_model(
        **spec.architecture,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id,
    )
    return _loaded(spec, AutoModelForSeq2SeqLM.from_config(config), precision.choose(spec.dtype), tokenizer)


CANNOT_BE_BUILT = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What transformers raises of an architecture, depending on the key."""


def check_architecture(architecture: dict[str, Any], where: str) -> None:
    """Build the model without memory: transformers takes a misspelt key without a word, and the model is another."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForSeq2SeqLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

    kind = str(architecture.get("model_type"))
    if kind not in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"{where}.model_type: {kind!r} is no encoder-decoder of transformers; bart and t5 are")
    # The token ids are the learned tokenizer's.
    known = [key for key in CONFIG_MAPPING[kind]().to_dict() if not key.endswith("_token_id")]
    refuse_unknown(architecture, known, where)
    _check_numbers(architecture, where)
    try:
        with torch.device("meta"):
            AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**architecture))
    except (*CANNOT_BE_BUILT, StrictDataclassError) as error:
        raise UserError(f"{where}: no {kind} can be built so: {error}") from None


def _check_numbers(architecture: dict[str, Any], where: str) -> None:
    """A model without memory is built with any."""
    for key, value in architecture.items():
        most = 1 if key.endswith(("dropout", "layerdrop")) else float("inf")
        if isinstance(value, int | float) and not 0 <= value <= most:
            raise UserError(f"{where}.{key}: {value} is not between 0 and {most:g}")


def _learned_tokenizer(texts: list[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer of BART's kind, learned from the training data."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
