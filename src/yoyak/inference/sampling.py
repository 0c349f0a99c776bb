"""Which token comes next: what is searched for, what is forbidden, and how chance decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from yoyak.core.gpu import sent
from yoyak.inference.fused import has_triton
from yoyak.inference.params import GenerationParams

Facts = dict[str, torch.Tensor]
"""What is to be known of prompts while their candidates are chosen, row by row."""


@dataclass(frozen=True)
class GeneratedTokens:
    """What candidates have generated so far."""

    tokens: torch.Tensor
    """Shape (rows, candidates, max_new_tokens)."""
    counts: torch.Tensor
    """How many of them there are, shape (rows,)."""
    facts: Facts
    """Of the rows' prompts."""


class Chooser:
    """The next tokens of candidates, for `decoding.decode`: on the device, for all rows at once."""

    def __init__(
        self,
        params: GenerationParams,
        end_ids: list[int],
        device: torch.device,
        seeds: Sequence[int],
        forbidden: Callable[[list[int]], torch.Tensor] | None = None,
    ) -> None:
        """`seeds`: a prompt's draws are its own, and do not depend on its company.

        `forbidden`: from numbers of prompts to tokens that must not stand in any candidate to them, shape (prompts,
        vocabulary).
        """
        self.params, self.device = params, device
        self.ends = torch.tensor(end_ids, device=device)
        self.seeds, self.forbidden = seeds, forbidden

    def facts(self, prompts: list[int]) -> Facts:
        facts: Facts = {}
        if self.forbidden is not None:
            facts["forbidden"] = self.forbidden(prompts)
        if self.params.search == "sample":
            facts["draws"] = self._draws(prompts)
        return facts

    def _draws(self, prompts: list[int]) -> torch.Tensor:
        """From [0, 1), shape (prompts, candidates, max_new_tokens)."""
        shape = self.params.candidates, self.params.max_new_tokens
        generators = [torch.Generator().manual_seed(self.seeds[number]) for number in prompts]
        draws = torch.stack([torch.rand(shape, generator=generator) for generator in generators])
        return sent(draws, self.device)

    def choose(self, logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
        """Shape (rows, candidates), from logits (rows, candidates, vocabulary).

        It is recorded as a CUDA graph: nothing comes from the host, and nothing waits for the GPU.
        """
        if (forbidden := generated.facts.get("forbidden")) is not None:
            # In one kernel; `masked_fill` copies first.
            logits = logits.where(~forbidden[:, None], -float("inf"))
        scores, candidates = logits.flatten(0, 1), logits.shape[1]
        counts = generated.counts.repeat_interleave(candidates)
        scores = penalised(scores, generated.tokens.flatten(0, 1), counts, self.params, self.ends)
        if self.params.search == "greedy":
            return scores.argmax(-1).view(-1, candidates)
        at = generated.counts[:, None, None].expand(-1, candidates, 1)
        draws = generated.facts["draws"].gather(2, at).flatten()
        return drawn(scores, draws, self.params).view(-1, candidates)


def drawn(scores: torch.Tensor, draws: torch.Tensor, params: GenerationParams) -> torch.Tensor:
    """For each line of `scores` (lines, vocabulary) the token at which shares add up to the draw, shape (lines,)."""
    if not params.top_k and params.top_p == 1:
        return _drawn_from_all(scores, draws, params.temperature)
    shares, tokens = likeliest(scores, params)
    cumulated = shares.cumsum(-1)
    rank = (cumulated <= draws[:, None] * cumulated[:, -1:]).sum(-1)
    # A draw next to 1 may be rounded to the whole.
    rank = rank.minimum((shares > 0).sum(-1) - 1)
    return tokens.gather(-1, rank[:, None])[:, 0]


def _drawn_from_all(scores: torch.Tensor, draws: torch.Tensor, temperature: float) -> torch.Tensor:
    """As `drawn`: where no token is left out any order will do, and to sort a vocabulary takes longest.

    A block of tokens is drawn, and then one of them.
    """
    shares = _in_blocks((scores.float() / temperature).softmax(-1), 0.0)
    block, rest = _drawn_place(shares.sum(-1), draws)
    inside = shares.gather(1, block[:, None, None].expand(-1, 1, shares.shape[-1]))[:, 0]
    place, _ = _drawn_place(inside, rest)
    return block * shares.shape[-1] + place


def _drawn_place(shares: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where `shares` (lines, n) add up to the draw, which is of their whole; and how far into that place it fell, as a
    part of it. Both (lines,)."""
    cumulated = shares.cumsum(-1)
    wanted = draws * cumulated[:, -1]
    # A draw next to 1 may be rounded to the whole, and a share of 0 is never drawn.
    last = (shares.shape[-1] - 1) - (shares > 0).flip(-1).int().argmax(-1)
    place = (cumulated <= wanted[:, None]).sum(-1).minimum(last)
    share = shares.gather(-1, place[:, None])[:, 0]
    before = cumulated.gather(-1, place[:, None])[:, 0] - share
    return place, ((wanted - before) / share.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0, 1)


def likeliest(scores: torch.Tensor, params: GenerationParams) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of the tokens that are drawn from, the likeliest first, and the tokens: shapes (lines, `top_k`).

    As temperature, top-k and top-p of transformers, which sorts the whole vocabulary: here `top_k` tokens alone.
    """
    values, tokens = _highest(scores, min(params.top_k or scores.shape[-1], scores.shape[-1]))
    shares = (values.float() / params.temperature).softmax(-1)
    # What is likelier than a token already has `top_p` together: it is not needed.
    shares = shares.where(shares.cumsum(-1) - shares < params.top_p, 0.0)
    return shares, tokens


BLOCK = 32
"""Tokens of a block of the vocabulary."""


def _in_blocks(scores: torch.Tensor, filler: float) -> torch.Tensor:
    """(lines, vocabulary) as (lines, blocks, `BLOCK`)."""
    missing = -scores.shape[-1] % BLOCK
    padded = pad(scores, (0, missing), value=filler) if missing else scores
    return padded.reshape(len(scores), -1, BLOCK)


def _highest(scores: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `scores.topk(count)`, which takes ten times as long to look through a vocabulary.

    A block of tokens whose best is not among the `count` best ones of blocks has none of the highest.
    """
    blocks = _in_blocks(scores, -float("inf"))
    if count >= blocks.shape[1]:
        return scores.topk(count)
    best = _maxima(blocks).topk(count).indices
    inside = blocks.gather(1, best[..., None].expand(-1, -1, BLOCK)).flatten(1)
    values, at = inside.topk(count)
    return values, best.gather(1, at // BLOCK) * BLOCK + at % BLOCK


def _maxima(blocks: torch.Tensor) -> torch.Tensor:
    """Of each block."""
    if blocks.device.type == "cpu" or not has_triton():
        return blocks.amax(-1)
    from yoyak.inference import kernels

    maxima: torch.Tensor = kernels.maxima(blocks)
    return maxima


def log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """In fp32, over the last dimension."""
    if logits.device.type == "cpu" or not has_triton():
        return logits.float().logsumexp(-1)
    from yoyak.inference import kernels

    sums: torch.Tensor = kernels.log_sum_exp(logits.flatten(0, -2))
    return sums.view(logits.shape[:-1])


def penalised(
    scores: torch.Tensor, tokens: torch.Tensor, counts: torch.Tensor, params: GenerationParams, ends: torch.Tensor
) -> torch.Tensor:
    """What is done to scores (lines, vocabulary) whatever the search; `ends` are the end tokens, shape (n,).

    The first `counts` (lines,) of `tokens` (lines, max_new_tokens) have been generated. The results are those of
    transformers' processors, whose lines are all of one length.
    """
    size = params.no_repeat_ngram_size
    if params.repetition_penalty != 1.0:
        scores = scores.float()
        generated = torch.arange(tokens.shape[1], device=tokens.device) < counts[:, None]
        penalty = params.repetition_penalty
        less_likely = torch.where(scores > 0, scores / penalty, scores * penalty)
        scores = less_likely.where(_marked(scores, tokens, generated), scores)
    if 0 < size <= tokens.shape[1]:
        scores = scores.masked_fill(_marked(scores, *_continuations(tokens, counts, size)), -float("inf"))
    if params.min_new_tokens:
        ends = ends.expand(len(tokens), -1)
        early = (counts < params.min_new_tokens)[:, None].expand_as(ends)
        scores = scores.masked_fill(_marked(scores, ends, early), -float("inf"))
    return scores


def _continuations(tokens: torch.Tensor, counts: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens that once followed what has been generated last, and whether they did: shapes (lines, windows)."""
    windows = tokens.unfold(1, size, 1)
    last = counts[:, None] - (size - 1) + torch.arange(size - 1, device=tokens.device)
    prefix = tokens.gather(1, last.clamp(min=0))
    same = (windows[..., :-1] == prefix[:, None]).all(-1)
    inside = torch.arange(windows.shape[1], device=tokens.device) + size <= counts[:, None]
    return windows[..., -1], same & inside


def _marked(scores: torch.Tensor, tokens: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """True at those of `tokens` (lines, n) that `which` (lines, n) is true for, shape as `scores`."""
    vocabulary = scores.shape[1]
    marks = torch.zeros((len(scores), vocabulary + 1), dtype=torch.bool, device=scores.device)
    return marks.scatter_(1, tokens.where(which, vocabulary), True)[:, :-1]
