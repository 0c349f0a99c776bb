"""Which token comes next: what is searched for, what is forbidden, and how chance decides."""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_validator

from yoyak.models import ModelSpec, QuantizationParams
from yoyak.parameters import Section


class GenerationParams(Section):
    """Defaults of the top-level section `generation`, which each model may override."""

    search: Literal["greedy", "beam", "diverse_beam", "sample"]
    max_new_tokens: int = Field(ge=1)
    """Longest summary, in tokens."""
    min_new_tokens: int = Field(default=0, ge=0)
    """No summary ends before so many."""
    num_beams: int = Field(default=1, ge=1)
    """Width of the beam search."""
    num_beam_groups: int = Field(default=1, ge=1)
    """For `search: diverse_beam`: the beams are searched in so many groups of like size."""
    diversity_penalty: float = Field(default=1.0, gt=0)
    """For `search: diverse_beam`: what a token's score loses for each beam of an earlier group that has the token at
    the same place."""
    length_penalty: float = 1.0
    """Beam scores are divided by length to this power: above 1 favours longer summaries."""
    temperature: float = Field(default=1.0, gt=0)
    """For `search: sample`: below 1 favours likely tokens."""
    top_k: int = Field(default=50, ge=0)
    """For `search: sample`: so many of the likeliest tokens are drawn from; 0: all, which takes longer."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """For `search: sample`: of these, the smallest set with this much probability (Holtzman et al. 2020)."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No n-gram of tokens twice in a summary; 0 is off. A person tag is several tokens: a small size forbids naming a
    person twice."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1: tokens that the summary has already become less likely (Keskar et al. 2019); what the dialogue says does
    not count."""
    candidates: int = Field(default=1, ge=1)
    """Summaries kept for each dialogue, for the ensemble to choose from."""
    script_guard: bool = True
    """No letters but Hangul, unless the dialogue has that script; Latin ones for words of the dialogue alone."""
    batch_size: int = Field(ge=1)
    """Dialogues decoded together. In bf16 it changes texts a little, so it is a parameter, not the machine's choice."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Of the draws of `search: sample`."""
    load_in_4bit: bool = False
    """Of models with `method: lora`: base weights as `quantization` has them, the adapter beside them, not merged. For
    cards that the weights in 16 bits do not fit; slower."""

    @model_validator(mode="after")
    def _search_gives_the_candidates(self) -> "GenerationParams":
        if self.search == "greedy" and (self.num_beams, self.candidates) != (1, 1):
            raise ValueError("search: greedy has num_beams: 1 and candidates: 1")
        if self.search == "beam" and not self.candidates <= self.num_beams >= 2:
            raise ValueError("search: beam needs num_beams of at least 2 and no more candidates than beams")
        if self.search == "diverse_beam" and not self.candidates <= self.num_beams:
            raise ValueError("search: diverse_beam has no more candidates than num_beams")
        if self.search == "diverse_beam" and (self.num_beam_groups == 1 or self.num_beams % self.num_beam_groups):
            raise ValueError("search: diverse_beam needs at least 2 num_beam_groups, which divide num_beams evenly")
        if self.search != "diverse_beam" and self.num_beam_groups != 1:
            raise ValueError(f"search: {self.search} has num_beam_groups: 1")
        if self.search == "sample" and self.num_beams != 1:
            raise ValueError("search: sample has num_beams: 1")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens must not exceed max_new_tokens")
        return self


class GenerationJob(Section):
    """What decides summaries beside weights and prompts: the content of `data/resolved/<model>/generation.yaml`."""

    model: ModelSpec
    generation: GenerationParams
    quantization: QuantizationParams | None = None
    """Of base weights that stay in 4 bits."""


Processor = Callable[[Any, Any], Any]
"""Of transformers' kind: from the tokens of summaries so far (summaries, steps) and scores (summaries, vocabulary) to
scores."""


def processors(params: GenerationParams, end_ids: list[int]) -> list[Processor]:
    """What is done to scores whatever the search."""
    from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

    chain: list[Processor] = []
    if params.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.no_repeat_ngram_size:
        chain.append(NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    if params.min_new_tokens:
        chain.append(_not_before(params.min_new_tokens, end_ids))
    return chain


def _not_before(steps: int, end_ids: list[int]) -> Processor:
    """transformers' own wants the prompt's length, and a batch of ours has no single one."""

    def process(ids: Any, scores: Any) -> Any:
        if ids.shape[1] >= steps:
            return scores
        return scores.index_fill(1, scores.new_tensor(end_ids).long(), -float("inf"))

    return process


def chooser(
    params: GenerationParams, end_ids: list[int], device: Any, seed: int, forbidden: Any = None
) -> Callable[[Any, Any, Any], Any]:
    """For `decoding.decode`: the next token of each answer. `seed` is of this batch.

    `forbidden`: tokens that must not stand in any answer to a prompt, shape (prompts, vocabulary).
    """
    import torch

    chain = processors(params, end_ids)
    generator = torch.Generator(device).manual_seed(seed)

    def choose(logits: Any, so_far: Any, prompts: Any) -> Any:
        if forbidden is not None:
            logits = logits.masked_fill(forbidden[prompts][:, None], -torch.inf)
        scores = logits.flatten(0, 1)
        for process in chain:
            scores = process(so_far.flatten(0, 1), scores)
        tokens = _drawn(scores, params, generator) if params.search == "sample" else scores.argmax(-1)
        return tokens.view(logits.shape[:2])

    return choose


def _drawn(scores: Any, params: GenerationParams, generator: Any) -> Any:
    """A token for each line of `scores` (lines, vocabulary)."""
    import torch

    shares, tokens = likeliest(scores, params)
    drawn = torch.multinomial(shares, 1, generator=generator)
    return tokens.gather(-1, drawn)[:, 0]


def likeliest(scores: Any, params: GenerationParams) -> tuple[Any, Any]:
    """Probabilities of the tokens that are drawn from, the likeliest first, and the tokens: shapes (lines, `top_k`).

    As temperature, top-k and top-p of transformers, which sorts the whole vocabulary: here `top_k` tokens alone.
    """
    values, tokens = (scores / params.temperature).topk(min(params.top_k or scores.shape[-1], scores.shape[-1]))
    shares = values.softmax(-1)
    # What is likelier than a token already has `top_p` together: it is not needed.
    shares = shares.where(shares.cumsum(-1) - shares < params.top_p, 0.0)
    return shares, tokens
