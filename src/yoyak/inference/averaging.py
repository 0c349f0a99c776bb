"""Several models as one that transformers' `generate` can search with: at each step the mean of their logits counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast

from yoyak.core.errors import UserError
from yoyak.modeling.loading import Loaded, vocabulary_of
from yoyak.modeling.tokenization import PromptTokenizer


def mean_logits(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """In fp32, of tensors of like shape but for the last dimension, the vocabulary; a single one stays as it is.

    Some models have more embeddings than their tokenizer has tokens, and not all as many more: those are left out.
    """
    if len(logits) == 1:
        return logits[0]
    vocabulary = min(each.shape[-1] for each in logits)
    first, *others = (each[..., :vocabulary].float() for each in logits)
    for other in others:
        first = first + other
    return first / len(logits)


class AveragedModel(PreTrainedModel, GenerationMixin):
    """A model without weights of its own.

    To `generate` it is decoder-only, and each prompt is a single token: what its members read, prompts or an encoder's
    input, they have for themselves.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        # As wide as the mean of logits is: the beam search of transformers 5.17 asks its model's configuration.
        super().__init__(PreTrainedConfig(vocab_size=min(map(vocabulary_of, models))))
        self.models = torch.nn.ModuleList(models)

    def generate(self, prompts: Sequence[Any], **options: Any) -> Any:
        """Token ids, the first of each row without meaning; `prompts` are each member's, padded, with their mask."""
        past = Past([_begin(model, padded) for model, padded in zip(self.models, prompts, strict=True)])
        start = torch.zeros((len(prompts[0]["input_ids"]), 1), dtype=torch.long, device=self.device)
        # With a mask, for the one token must not be taken for padding.
        mask = torch.ones_like(start)
        return super().generate(input_ids=start, attention_mask=mask, past_key_values=past, **options)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, past_key_values: "Past", attention_mask: Any, **_: Any
    ) -> dict[str, Any]:
        return {"input_ids": input_ids[:, -1:], "past_key_values": past_key_values}

    def forward(self, input_ids: torch.Tensor, past_key_values: "Past", **_: Any) -> CausalLMOutputWithPast:
        logits = mean_logits([member.after(input_ids) for member in past_key_values.members])
        past_key_values.length += 1
        return CausalLMOutputWithPast(logits=logits[:, None], past_key_values=past_key_values)


class Reader(Protocol):
    """A member in the middle of a batch."""

    cache: Any

    def after(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits (rows, vocabulary) after `tokens` (rows, 1), which are without meaning at the first step."""


class Past:
    """What `generate` keeps from step to step, as it knows a cache."""

    is_compileable = False

    def __init__(self, members: Sequence[Reader]) -> None:
        self.members = members
        self.length = 0
        """Steps done."""

    def get_seq_length(self) -> int:
        return self.length

    def reorder_cache(self, beams: torch.Tensor) -> None:
        """Beams go on from others' past: `beams` (rows,) says from whose."""
        for member in self.members:
            member.cache.reorder_cache(beams)


def _begin(model: Any, prompts: Any) -> Reader:
    kind = EncoderDecoder if model.config.is_encoder_decoder else DecoderOnly
    return kind(model, prompts["input_ids"], prompts["attention_mask"])


class DecoderOnly:
    """It reads its prompts, padded on the left, at the first step."""

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.model, self.ids, self.mask = model, ids, mask
        self.cache: Any = None

    def after(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.cache is None:
            tokens, self.mask = _for_each_row(self.ids, tokens), _for_each_row(self.mask, tokens)
        else:
            self.mask = torch.cat([self.mask, torch.ones_like(tokens)], 1)
        positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
        output = self.model(
            input_ids=tokens,
            attention_mask=self.mask,
            position_ids=positions[:, -tokens.shape[1] :],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache = output.past_key_values
        return output.logits[:, -1]  # type: ignore[no-any-return]


class EncoderDecoder:
    """It reads its prompts, padded on the right, before the first step."""

    def __init__(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.model, self.mask = model, mask
        self.encoded = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        self.cache: Any = None

    def after(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.cache is None:
            self.encoded, self.mask = _for_each_row(self.encoded, tokens), _for_each_row(self.mask, tokens)
            tokens = torch.full_like(tokens, self.model.config.decoder_start_token_id)
        output = self.model(
            encoder_outputs=BaseModelOutput(self.encoded),
            attention_mask=self.mask,
            decoder_input_ids=tokens,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache = output.past_key_values
        return output.logits[:, -1]  # type: ignore[no-any-return]


def _for_each_row(prompts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A search has several rows for each prompt, side by side."""
    return prompts.repeat_interleave(len(rows) // len(prompts), 0)


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
    def prompt_tokenizer(self) -> PromptTokenizer:
        """For candidates: prompts are each member's own."""
        return self.members[0].prompt_tokenizer

    @property
    def end_ids(self) -> list[int]:
        return self.members[0].end_ids


def assemble(name: str, members: Mapping[str, Loaded]) -> Loaded | Averaged:
    """The only one of `members`, or their average, whose entry of `models` is `name`."""
    first, *others = members
    for other in others:
        if not _same_tokens(members[first], members[other]):
            raise UserError(
                f"models.{name}.members: {first} and {other} have different tokens, or end with different ones, so "
                "that their logits cannot be averaged; choose models that share a tokenizer"
            )
        if members[first].prompt_tokenizer.persons != members[other].prompt_tokenizer.persons:
            raise UserError(
                f"models.{name}.members: {first} and {other} differ in `persons`, and so in what they write"
            )
    return Averaged(tuple(members.values())) if others else members[first]


def _same_tokens(one: Loaded, other: Loaded) -> bool:
    return one.tokenizer.get_vocab() == other.tokenizer.get_vocab() and one.end_ids == other.end_ids
