"""The search itself: which beams go on and which are kept, as transformers' `generate` decides, for all slots at once.

Everything stays on the device, and no line of it waits for a number from there: a step is recorded as a CUDA graph.
"""

import math
from typing import NamedTuple

import torch

from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import penalised
from yoyak.modeling.beam_cache import CAPACITY_STEP, Step

UNLIKELY = -1e9
"""The score of a beam that is none; minus infinity would be no number as soon as it is multiplied by 0."""


class Running(NamedTuple):
    """Beams that go on, best first: each of shape (slots, beams), or (slots, beams, max_new_tokens)."""

    scores: torch.Tensor
    """Sums of log-probabilities after penalties."""
    totals: torch.Tensor
    """Sums of log-probabilities before them."""
    tokens: torch.Tensor


class Kept(NamedTuple):
    """The best that have ended, best first: each of shape (slots, beams), or (slots, beams, max_new_tokens)."""

    scores: torch.Tensor
    """`Running.scores` divided by length to the power of the length penalty."""
    totals: torch.Tensor
    tokens: torch.Tensor
    lengths: torch.Tensor
    ended: torch.Tensor
    """False where none has been kept yet."""


class BeamSearch:
    """The beams of each slot."""

    def __init__(self, slots: int, params: GenerationParams, end_ids: list[int], device: torch.device) -> None:
        self.params, self.ends = params, torch.tensor(end_ids, device=device)
        self.beams, self.most = params.num_beams, params.max_new_tokens
        # Of which at most so many end that enough others are left to go on.
        self.looked_at = max(2, 1 + len(end_ids)) * self.beams
        # As divisors, since `generate` takes a power of two Python numbers.
        powers = [1.0, *(length**params.length_penalty for length in range(1, self.most + 1))]
        self.powers = torch.tensor(powers, device=device)
        of_beams, of_tokens = (slots, self.beams), (slots, self.beams, self.most)

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        numbers = [zeros(*of_beams, dtype=torch.float32) for _ in range(4)]
        self.running = Running(numbers[0], numbers[1], zeros(*of_tokens))
        self.kept = Kept(
            numbers[2], numbers[3], zeros(*of_tokens), zeros(*of_beams), zeros(*of_beams, dtype=torch.bool)
        )
        self.ancestors = zeros(*of_beams, -(-self.most // CAPACITY_STEP) * CAPACITY_STEP)
        """At which beam's place each beam's token is stored, for `beam_cache`."""
        self.counts = zeros(slots)
        """How many tokens each beam has."""
        self.improvable = zeros(slots, dtype=torch.bool)
        """False at an empty slot, too."""
        self.forbidden: torch.Tensor | None = None
        """Tokens that must not be chosen, shape (slots, vocabulary)."""

    def begin(self, at: torch.Tensor, forbidden: torch.Tensor | None) -> None:
        """A new search at each of the slots."""
        if forbidden is not None:
            if self.forbidden is None:
                self.forbidden = forbidden.new_zeros((len(self.counts), forbidden.shape[1]))
            self.forbidden[at] = forbidden
        # All beams are alike, and only what the first begins with counts.
        self.running.scores[at] = UNLIKELY
        self.running.scores[at, 0] = 0.0
        self.running.totals[at] = 0.0
        self.kept.scores[at] = UNLIKELY
        self.kept.ended[at] = False
        self.counts[at], self.improvable[at] = 0, True

    def end(self, at: torch.Tensor) -> None:
        """No more search at the slots."""
        self.counts[at], self.improvable[at] = 0, False

    def next_step(self) -> Step:
        """What models read to tell what follows it."""
        number = (self.counts - 1).clamp(min=0)
        slots, beams = (torch.arange(size, device=number.device) for size in self.ancestors.shape[:2])
        self.ancestors[slots, :, number] = beams
        return Step(self.running.tokens[slots, :, number], number, self.ancestors)

    def advance(self, at: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """One more token of each beam at slots `at` (n,), from `logits` (n, beams, vocabulary) in fp32; at which of
        them the search is over, shape (n,)."""
        counts, improvable = self.counts[at], self.improvable[at]
        running, kept = Running(*_at(self.running, at)), Kept(*_at(self.kept, at))
        lengths = counts + 1
        log_probabilities = logits.log_softmax(-1)
        scores = self._penalised(at, log_probabilities, running.tokens, counts) + running.scores[..., None]
        values, places = scores.flatten(1).topk(self.looked_at)
        parents, tokens = places // logits.shape[-1], places % logits.shape[-1]
        totals, texts = _picked((running.totals, running.tokens), parents)
        totals = totals + log_probabilities.flatten(1).gather(1, places)
        texts[torch.arange(len(at), device=at.device), :, counts] = tokens
        ends = (tokens[..., None] == self.ends).any(-1) | (lengths == self.most)[:, None]

        going_on = values + ends * UNLIKELY
        picks = going_on.topk(self.beams).indices
        running = Running(*_picked((going_on, totals, texts), picks))
        parents, ancestors = parents.gather(1, picks), self.ancestors[at]
        kept = self._kept(kept, values, totals, texts, lengths, ends, improvable)
        _put(self.running, at, running)
        _put(self.kept, at, kept)
        self.ancestors[at] = _picked((ancestors,), parents)[0]

        possible = running.scores[:, :1] / self.powers[lengths][:, None]
        worst = kept.scores.amin(1, keepdim=True).where(kept.ended, UNLIKELY)
        still = improvable & (possible > worst).any(1)
        self.counts[at] += improvable
        self.improvable[at] = still
        return ~still | (lengths == self.most)

    def _penalised(
        self, at: torch.Tensor, log_probabilities: torch.Tensor, texts: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        scores = log_probabilities
        if self.forbidden is not None:
            scores = scores.where(~self.forbidden[at][:, None], -torch.inf)
        scores = penalised(
            scores.flatten(0, 1), texts.flatten(0, 1), counts.repeat_interleave(self.beams), self.params, self.ends
        )
        return scores.view(log_probabilities.shape)

    def _kept(
        self,
        kept: Kept,
        values: torch.Tensor,
        totals: torch.Tensor,
        texts: torch.Tensor,
        lengths: torch.Tensor,
        ends: torch.Tensor,
        improvable: torch.Tensor,
    ) -> Kept:
        """With those of the best, as many as there are beams, that end now."""
        ends = ends & (torch.arange(self.looked_at, device=ends.device) < self.beams)
        scores = values / self.powers[lengths][:, None]
        scores = scores + ~improvable[:, None] * UNLIKELY + ~ends * UNLIKELY
        new = Kept(scores, totals, texts, lengths[:, None].expand_as(ends), ends)
        merged = [torch.cat(pair, 1) for pair in zip(kept, new, strict=True)]
        return Kept(*_picked(merged, merged[0].topk(self.beams).indices))

    def results(self, at: torch.Tensor) -> list[tuple[list[list[int]], list[float]]]:
        """Of each slot the candidates' tokens and their mean log-probabilities, best first."""
        wanted, empty = slice(self.params.candidates), [int(self.ends[0])]
        _, *kept = (tensor[:, wanted].tolist() for tensor in _at(self.kept, at))
        results = []
        for totals, texts, lengths, ended in zip(*kept, strict=True):
            # Where too few tokens are allowed for so many beams, the last ones are empty. What is no number stays so.
            ids = [text[:length] if there else empty for text, length, there in zip(texts, lengths, ended, strict=True)]
            values = [
                total / length if there or math.isnan(total) else UNLIKELY
                for total, length, there in zip(totals, lengths, ended, strict=True)
            ]
            results.append((ids, values))
        return results

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.running, self.kept = Running(*_at(self.running, at)), Kept(*_at(self.kept, at))
        self.ancestors, self.counts = self.ancestors[at], self.counts[at]
        self.improvable = self.improvable[at]
        if self.forbidden is not None:
            self.forbidden = self.forbidden[at]


def _at(tensors: tuple[torch.Tensor, ...], at: torch.Tensor) -> list[torch.Tensor]:
    return [tensor[at] for tensor in tensors]


def _put(tensors: tuple[torch.Tensor, ...], at: torch.Tensor, new: tuple[torch.Tensor, ...]) -> None:
    """In place, where a recorded step looks for them."""
    for tensor, values in zip(tensors, new, strict=True):
        tensor[at] = values


def _picked(tensors: list[torch.Tensor] | tuple[torch.Tensor, ...], picks: torch.Tensor) -> list[torch.Tensor]:
    """Those of the beams `picks` (n, k) of tensors (n, beams) or (n, beams, tokens)."""
    return [
        tensor.gather(1, picks if tensor.ndim == 2 else picks[..., None].expand(-1, -1, tensor.shape[2]))
        for tensor in tensors
    ]
