"""Which token comes next: what is searched for, what is forbidden, and how chance decides."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from yoyak.parameters import Section

if TYPE_CHECKING:
    from yoyak.decoding import Facts, Said


class GenerationParams(Section):
    """How summaries are searched for."""

    search: Literal["greedy", "beam", "diverse_beam", "sample"]
    """Always the likeliest token, a beam search, one of unlike groups of beams, or random draws."""
    max_new_tokens: int = Field(ge=1)
    """Longest summary, in tokens."""
    min_new_tokens: int = Field(default=0, ge=0)
    """Shortest summary, in tokens."""
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
    """Seed of the draws of `search: sample`."""
    load_in_4bit: bool = False
    """Under `method: lora`, keep the base weights in 4 bits as `quantization` has them, the adapter beside them and not
    merged: slower, for cards that the weights in 16 bits do not fit."""

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


class Chooser:
    """The next tokens of answers, for `decoding.decode`: on the device, for all rows at once."""

    def __init__(
        self,
        params: GenerationParams,
        end_ids: list[int],
        device: Any,
        seeds: Sequence[int],
        forbidden: Callable[[list[int]], Any] | None = None,
    ) -> None:
        """`seeds`: a prompt's draws are its own, and do not depend on its company.

        `forbidden`: from numbers of prompts to tokens that must not stand in any answer to them, shape (prompts,
        vocabulary).
        """
        import torch

        self.params, self.device = params, device
        self.ends = torch.tensor(end_ids, device=device)
        self.seeds, self.forbidden = seeds, forbidden

    def facts(self, prompts: list[int]) -> "Facts":
        facts: Facts = {}
        if self.forbidden is not None:
            facts["forbidden"] = self.forbidden(prompts)
        if self.params.search == "sample":
            facts["draws"] = self._draws(prompts)
        return facts

    def _draws(self, prompts: list[int]) -> Any:
        """From [0, 1), shape (prompts, candidates, max_new_tokens)."""
        import torch

        shape = self.params.candidates, self.params.max_new_tokens
        generators = [torch.Generator().manual_seed(self.seeds[number]) for number in prompts]
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        return draws.to(self.device)

    def choose(self, logits: Any, said: "Said") -> Any:
        """Shape (rows, answers), from logits (rows, answers, vocabulary).

        It is recorded as a CUDA graph: nothing comes from the host, and nothing waits for the GPU.
        """
        if (forbidden := said.facts.get("forbidden")) is not None:
            # In one kernel; `masked_fill` copies first.
            logits = logits.where(~forbidden[:, None], -float("inf"))
        scores, answers = logits.flatten(0, 1), logits.shape[1]
        counts = said.counts.repeat_interleave(answers)
        scores = penalised(scores, said.tokens.flatten(0, 1), counts, self.params, self.ends)
        if self.params.search == "greedy":
            return scores.argmax(-1).view(-1, answers)
        at = said.counts[:, None, None].expand(-1, answers, 1)
        draws = said.facts["draws"].gather(2, at).flatten()
        return drawn(scores, draws, self.params).view(-1, answers)


def drawn(scores: Any, draws: Any, params: GenerationParams) -> Any:
    """For each line of `scores` (lines, vocabulary) the token at which shares add up to the draw, shape (lines,)."""
    shares, tokens = likeliest(scores, params)
    cumulated = shares.cumsum(-1)
    place = (cumulated <= draws[:, None] * cumulated[:, -1:]).sum(-1)
    # A draw next to 1 may be rounded to the whole.
    place = place.minimum((shares > 0).sum(-1) - 1)
    return tokens.gather(-1, place[:, None])[:, 0]


def likeliest(scores: Any, params: GenerationParams) -> tuple[Any, Any]:
    """Probabilities of the tokens that are drawn from, the likeliest first, and the tokens: shapes (lines, `top_k`).

    As temperature, top-k and top-p of transformers, which sorts the whole vocabulary: here `top_k` tokens alone.
    """
    values, tokens = scores.topk(min(params.top_k or scores.shape[-1], scores.shape[-1]))
    shares = (values / params.temperature).softmax(-1)
    # What is likelier than a token already has `top_p` together: it is not needed.
    shares = shares.where(shares.cumsum(-1) - shares < params.top_p, 0.0)
    return shares, tokens


def penalised(scores: Any, tokens: Any, counts: Any, params: GenerationParams, ends: Any) -> Any:
    """What is done to scores (lines, vocabulary) whatever the search; `ends` are the end tokens, shape (n,).

    `tokens` (lines, most) have been said, so many of them as `counts` (lines,) tells. As transformers' processors,
    whose lines have all said as much.
    """
    import torch

    size = params.no_repeat_ngram_size
    if params.repetition_penalty != 1.0:
        said = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]
        penalty = params.repetition_penalty
        less_likely = torch.where(scores > 0, scores / penalty, scores * penalty)
        scores = less_likely.where(_marked(scores, tokens, said), scores)
    if 0 < size <= tokens.shape[1]:
        scores = scores.masked_fill(_marked(scores, *_continuations(tokens, counts, size)), -float("inf"))
    if params.min_new_tokens:
        ends = ends.expand(len(tokens), -1)
        early = (counts < params.min_new_tokens)[:, None].expand_as(ends)
        scores = scores.masked_fill(_marked(scores, ends, early), -float("inf"))
    return scores


def _continuations(tokens: Any, counts: Any, size: int) -> tuple[Any, Any]:
    """Tokens that once followed what has been said last, and whether they did: shapes (lines, windows)."""
    import torch

    windows = tokens.unfold(1, size, 1)
    last = counts[:, None] - (size - 1) + torch.arange(size - 1, device=tokens.device)
    prefix = tokens.gather(1, last.clamp(min=0))
    same = (windows[..., :-1] == prefix[:, None]).all(-1)
    inside = torch.arange(windows.shape[1], device=tokens.device) + size <= counts[:, None]
    return windows[..., -1], same & inside


def _marked(scores: Any, tokens: Any, which: Any) -> Any:
    """True at those of `tokens` (lines, n) that `which` (lines, n) is true for, shape as `scores`."""
    import torch

    vocabulary = scores.shape[1]
    marks = torch.zeros((len(scores), vocabulary + 1), dtype=torch.bool, device=scores.device)
    return marks.scatter_(1, tokens.where(which, vocabulary), True)[:, :-1]
