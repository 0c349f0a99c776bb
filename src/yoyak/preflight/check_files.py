"""What a model's configuration, tokenizer and chat template tell, looked at before its weights are downloaded."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.modeling import weights
from yoyak.modeling.control_tokens import DATA_TAG
from yoyak.modeling.spec import ModelSpec
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.preflight.resolve import ResolvedModel
from yoyak.tuning.params import FAMILIES

POSITIONS = "max_position_embeddings"
MOST_LETTERS = 200
"""Of a library's own message."""
RAISED = (ValueError, TypeError, LookupError, AttributeError, OSError, RuntimeError, ImportError, ArithmeticError)
"""What transformers raises of a configuration or a tokenizer, depending on what is wrong with it."""


def check_files(models: Mapping[str, ResolvedModel], prompts: Iterable[Prompt], tuned: Collection[str] = ()) -> None:
    """Stop at the first of `models` that training, tuning or inference would stop at.

    `prompts` are all that they will see; `tuned` has the names of those that are tuned.
    """
    known: dict[tuple[str, str | None], tuple[Any, Any]] = {}
    built: set[tuple[str, str | None]] = set()
    for name, configs in models.items():
        spec, key = configs.training.model, f"models.{name}.weights"
        folder = weights.small_files(spec.weights, spec.pin, key)
        if folder is None:
            continue
        where = f"{key}: {spec.weights}"
        if (spec.weights, spec.pin) not in known:
            # A vocabulary takes seconds to read, and the folds of a model share theirs.
            config = _config(folder, where)
            known[spec.weights, spec.pin] = config, _told(_tokenizer, folder, where)
        config, tokenizer = known[spec.weights, spec.pin]
        _check_method(config, spec, where)
        if name in tuned:
            _check_family(config, name)
        if (spec.weights, spec.pin) not in built:
            _build(config, where)
            built.add((spec.weights, spec.pin))
        _check_positions(config, configs, name)
        _check_vocabulary(config, _prompt_tokenizer(tokenizer, spec, where), prompts, where)


def _config(folder: Path, where: str) -> Any:
    """The model's configuration, of a class that transformers has."""
    import transformers
    from transformers import CONFIG_MAPPING, AutoConfig

    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind, version = content["model_type"], f"transformers {transformers.__version__}"
    if kind not in CONFIG_MAPPING:
        own_code = ", and code of its own (auto_map), which is never run" if "auto_map" in content else ""
        raise UserError(
            f"{where}: config.json has model_type {kind!r}, which {version} does not know{own_code}; name a model of a "
            "class that it has"
        )
    if quantised := content.get("quantization_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"{where}: its weights are quantised already (config.json: quantization_config: {method}); name the "
            "repository that has them in 16 bits, of which `quantization` makes 4"
        )
    return _told(partial(AutoConfig.from_pretrained, trust_remote_code=False), folder, where)


def _tokenizer(folder: Path) -> Any:
    # Imported here: it takes PyTorch, which a run without such models does not wait for.
    from yoyak.modeling.loading import read_tokenizer

    return read_tokenizer(folder, folder)


def _build(config: Any, where: str) -> None:
    """Without memory: some classes want packages that are not here, and some sizes do not go together."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    try:
        with torch.device("meta"):
            kind.from_config(config, trust_remote_code=False)
    except RAISED as error:
        raise UserError(f"{where}: transformers cannot build it ({_shown(error)}); name another model") from None


def _told(read: Callable[[Path], Any], folder: Path, where: str) -> Any:
    """What `read` makes of the folder, or one line of what it raises."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        return read(folder)
    except UserError as error:
        raise UserError(f"{where}: {str(error).removeprefix(f'{folder}: ')}") from None
    except (StrictDataclassError, *RAISED) as error:
        raise UserError(f"{where}: transformers cannot read it ({_shown(error)}); mend it") from None
    except Exception as error:
        # The library tokenizers has no error of its own.
        if type(error) is not Exception:
            raise
        raise UserError(f"{where}: its tokenizer cannot be read ({_shown(error)}); mend it") from error


def _shown(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}…"


def _check_method(config: Any, spec: ModelSpec, where: str) -> None:
    """Whether transformers has a class that writes texts, and trains as the entry says."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    heads = [head for head in config.architectures or [] if head.endswith(("Classification", "QuestionAnswering"))]
    if heads:
        raise UserError(f"{where}: config.json has architectures: {heads[0]}, which writes no text; name its base")
    if config.is_encoder_decoder and kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        _check_entry(spec, "full", f"{where} is an encoder-decoder")
        return
    # A model that fills gaps is known as one that writes, too, which it is not unless it says so.
    fills_gaps = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if fills_gaps or config.is_encoder_decoder or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        what = "only fills gaps in a text" if fills_gaps else "is no model of texts alone"
        raise UserError(f"{where}: config.json has model_type: {kind}, which {what}; name a model that writes")
    _check_entry(spec, "lora", f"{where} is decoder-only")


def _check_entry(spec: ModelSpec, method: str, what: str) -> None:
    if spec.method != method:
        raise UserError(f"{what}: its entry of models needs method: {method}")


def _check_family(config: Any, name: str) -> None:
    """Whether tuning computes what such a model does."""
    kind = config.get_text_config().model_type
    if kind not in FAMILIES:
        raise UserError(
            f"params.yaml: run.tuned: {name} has model_type {kind} (config.json), and tuning knows "
            f"{', '.join(FAMILIES)}; take it out"
        )


def _check_positions(config: Any, configs: ResolvedModel, name: str) -> None:
    """Whether prompt and summary fit into the text that a model was made for; an encoder-decoder has them apart."""
    spec, new = configs.training.model, configs.generation.generation.max_new_tokens
    positions = getattr(config if config.is_encoder_decoder else config.get_text_config(), POSITIONS, None)
    needed = max(spec.max_prompt_tokens, new) if config.is_encoder_decoder else spec.max_prompt_tokens + new
    if isinstance(positions, int) and needed > positions:
        raise UserError(
            f"models.{name}: max_prompt_tokens is {spec.max_prompt_tokens} and generation.max_new_tokens {new}, but "
            f"{spec.weights} has {positions} positions (config.json: {POSITIONS}); lower either"
        )


def _prompt_tokenizer(tokenizer: Any, spec: ModelSpec, where: str) -> PromptTokenizer:
    try:
        return PromptTokenizer(tokenizer, spec.prompt, spec.max_prompt_tokens, spec.persons)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_vocabulary(config: Any, prompt_tokenizer: PromptTokenizer, prompts: Iterable[Prompt], where: str) -> None:
    """Whether each token that will be read has an embedding.

    Gemma 3's tokenizer has a token for pictures, which its small models have no embedding of: it stands in no dialogue.
    A tag such as `#Person9#` may stand in one that comes later.
    """
    size, vocabulary = config.get_text_config().vocab_size, prompt_tokenizer.tokenizer.get_vocab()
    beyond = {token: token_id for token, token_id in vocabulary.items() if token_id >= size}
    if not beyond:
        return
    always = {*prompt_tokenizer.encode_prompt(next(iter(prompts))).ids, prompt_tokenizer.end_id}
    always.add(prompt_tokenizer.tokenizer.eos_token_id)
    added = {token.content for token in prompt_tokenizer.tokenizer.added_tokens_decoder.values()}
    # Any text may have what was learned, what was added only where it stands as a whole.
    seen = _tokens_in(prompts, added & beyond.keys())
    for token, token_id in sorted(beyond.items(), key=lambda item: item[1]):
        if token_id in always or token not in added or token in seen or DATA_TAG.fullmatch(token):
            raise UserError(
                f"{where}: its tokenizer has {max(beyond.values()) + 1} tokens, {token!r} among them, but the model "
                f"{size} embeddings (config.json: vocab_size); resize them, or give the tokenizer that belongs to it"
            )


def _tokens_in(prompts: Iterable[Prompt], tokens: Collection[str]) -> set[str]:
    """Those of the tokens that stand in a prompt or its summary."""
    seen: set[str] = set()
    # Not to go through a million prompts for nothing.
    for prompt in prompts if tokens else ():
        text = "\0".join((*prompt.turns, prompt.question, prompt.summary or ""))
        seen.update(token for token in tokens if token in text)
    return seen
