"""Models without weights of their own: random ones, and a tokenizer learned from the training data."""

from typing import Any

import torch

from yoyak.core.errors import UserError
from yoyak.core.params import refuse_unknown
from yoyak.modeling import precision
from yoyak.modeling.loading import Loaded, assembled
from yoyak.modeling.spec import SPECIAL_TOKENS, ModelSpec

CANNOT_BE_BUILT = (ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
"""What transformers raises of an architecture, depending on the key."""


def from_scratch(spec: ModelSpec, texts: list[str]) -> Loaded:
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
    return assembled(spec, AutoModelForSeq2SeqLM.from_config(config), precision.choose(spec.dtype), tokenizer)


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
        largest = 1 if key.endswith(("dropout", "layerdrop")) else float("inf")
        if isinstance(value, int | float) and not 0 <= value <= largest:
            raise UserError(f"{where}.{key}: {value} is not between 0 and {largest:g}")


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
