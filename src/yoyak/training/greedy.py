"""Greedy summaries of BART and T5: those of transformers' `generate`, sooner.

Summaries of a batch grow together, and those that have ended leave it. A step is one CUDA graph, from the last tokens
to the next.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from yoyak.modeling.beam_cache import CAPACITY_STEP, Step
from yoyak.modeling.cuda_graphs import GraphedStep
from yoyak.modeling.encoder_decoder import EncoderDecoder

LOOK_EVERY = 8
"""Steps between two looks at which summaries have ended: each look makes the host wait for the GPU."""


@torch.no_grad()
def summaries(model: Any, prompts: Sequence[list[int]], max_new_tokens: int, end_ids: list[int]) -> list[list[int]]:
    """Token ids to each prompt, the end token last, or as many as are allowed. The model is one that
    `encoder_decoder.is_known`."""
    batch = Batch(model, prompts, max_new_tokens, end_ids)
    found = dict(batch.written())
    return [_until_end(found[number], end_ids) for number in range(len(prompts))]


class Batch:
    """Summaries that grow together."""

    def __init__(self, model: Any, prompts: Sequence[list[int]], max_new_tokens: int, end_ids: list[int]) -> None:
        device = model.device
        self.ends, self.most = torch.tensor(end_ids, device=device), max_new_tokens
        self.prompts = torch.arange(len(prompts), device=device)
        """Which one each summary is of."""
        self.reader = EncoderDecoder(model, len(prompts), beams=1)
        self.next_tokens = GraphedStep(device)
        self.tokens = torch.zeros((len(prompts), max_new_tokens), dtype=torch.long, device=device)
        self.number = torch.zeros_like(self.prompts)
        """Of each summary's newest token."""
        self.ended = torch.zeros_like(self.prompts, dtype=torch.bool)
        # There is but one beam, and all of its past is its own.
        capacity = -(-max_new_tokens // CAPACITY_STEP) * CAPACITY_STEP
        self.ancestors = torch.zeros((len(prompts), 1, capacity), dtype=torch.long, device=device)
        logits, _ = self.reader.read(self.prompts, list(prompts))
        self._add(logits)

    def written(self) -> Iterator[tuple[int, list[int]]]:
        """The number of each prompt and its tokens; what follows an end token is without meaning."""
        for count in range(1, self.most):
            if count % LOOK_EVERY == 0:
                ended = int(self.ended.sum())
                if ended == len(self.ended):
                    break
                # A step takes about the time of all that are in it.
                if ended >= len(self.ended) / 2:
                    yield from self._leave()
            self.next_tokens.changed |= self.reader.reserve(count)
            self.next_tokens(self._next_tokens)
        yield from zip(self.prompts.tolist(), self.tokens.tolist(), strict=True)

    def _next_tokens(self) -> torch.Tensor:
        newest = self.tokens.gather(1, self.number[:, None])
        logits = self.reader.after(Step(newest, self.number, self.ancestors))
        self.number += 1
        return self._add(logits[:, 0])

    def _add(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest token of logits (summaries, vocabulary) to each summary; which have ended by now."""
        chosen = logits.argmax(-1)
        self.tokens.scatter_(1, self.number[:, None], chosen[:, None])
        self.ended |= (chosen[:, None] == self.ends).any(-1)
        return self.ended

    def _leave(self) -> Iterator[tuple[int, list[int]]]:
        """Those that have ended."""
        yield from zip(self.prompts[self.ended].tolist(), self.tokens[self.ended].tolist(), strict=True)
        at = (~self.ended).nonzero().squeeze(1)
        self.reader.select(at)
        self.prompts, self.tokens, self.number = self.prompts[at], self.tokens[at], self.number[at]
        self.ended, self.ancestors = self.ended[at], self.ancestors[at]
        self.next_tokens.forget()


def _until_end(ids: list[int], end_ids: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(ids) if token in end_ids]
    return ids[: ends[0] + 1] if ends else ids
