"""Beam search of decoder-only models and of encoder-decoders: the candidates of transformers' `generate`, sooner.

As in `decoding`, a slot whose search is over is given to the next prompt, what all beams have in common is stored once,
and a step is a single CUDA graph, at whose end one word for each slot goes to the host: whether its search is over.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.inference.averaging import mean_logits
from yoyak.inference.beam_search import BeamSearch
from yoyak.inference.decoder_only import NAME, DecoderOnly, over_beams
from yoyak.inference.decoding import Candidates
from yoyak.inference.forward import MAX_PREFILL_TOKENS, PREFILL_SHARE
from yoyak.inference.params import GenerationParams
from yoyak.modeling import encoder_decoder
from yoyak.modeling.attention import has_plain_attention
from yoyak.modeling.cuda_graphs import GraphedStep
from yoyak.modeling.encoder_decoder import EncoderDecoder

Forms = tuple[list[int], ...]
"""A prompt's tokens, in the form of each model."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    params: GenerationParams
    """Of `search: beam`."""
    end_ids: list[int]
    forbidden: Callable[[list[int]], torch.Tensor] | None = None
    """From numbers of prompts to tokens that must not stand in any candidate to them, shape (prompts, vocabulary)."""


def is_known(model: Any) -> bool:
    """Whether `decode` knows the model's family."""
    return has_plain_attention(model) or encoder_decoder.is_known(model)


@torch.inference_mode()
def decode(
    models: Sequence[Any], prompts: Sequence[Sequence[list[int]]], max_batch_size: int, request: Request
) -> Iterator[tuple[int, Candidates]]:
    """The number of each prompt and its candidates, best first, as they are done, with at most `max_batch_size` prompts
    in work.

    Several models of one vocabulary decode together, by the mean of their logits. Each has the prompts in its own form,
    in the same order. Prompts of like length side by side, the longest first, waste least.
    """
    with _attention(models):
        yield from _decode(models, list(zip(*prompts, strict=True)), max_batch_size, request)


@contextmanager
def _attention(models: Sequence[Any]) -> Iterator[None]:
    """Until the last candidates are told, decoder-only models compute attention in a way that is of use here alone."""
    changed = [model for model in models if not model.config.is_encoder_decoder]
    before = [model.config._attn_implementation for model in changed]
    ALL_ATTENTION_FUNCTIONS.register(NAME, over_beams)
    try:
        for model in changed:
            model.set_attn_implementation(NAME)
        yield
    finally:
        for model, attention in zip(changed, before, strict=True):
            model.set_attn_implementation(attention)


def _decode(
    models: Sequence[Any], prompts: list[Forms], max_batch_size: int, request: Request
) -> Iterator[tuple[int, Candidates]]:
    waiting = deque(range(len(prompts)))
    slots = Slots(models, min(max_batch_size, len(prompts)), request)
    while waiting or slots.active:
        while size := _next_to_read(waiting, slots, prompts):
            numbers = [waiting.popleft() for _ in range(size)]
            yield from slots.read(numbers, [prompts[number] for number in numbers])
        if not waiting:
            slots.drop_free_slots()
        if slots.active:
            yield from slots.step()


def _next_to_read(waiting: deque[int], slots: "Slots", prompts: list[Forms]) -> int:
    """How many prompts; none where it is better to wait for more slots."""
    if not waiting:
        return 0
    fitting = MAX_PREFILL_TOKENS // max(map(len, prompts[waiting[0]]))
    size = min(len(waiting), max(1, min(slots.count // PREFILL_SHARE, fitting)))
    return size if slots.free >= size else 0


class Slots:
    """The prompts in work, each in its slot, and their beams."""

    def __init__(self, models: Sequence[Any], count: int, request: Request) -> None:
        self.request, self.device = request, models[0].device
        self.numbers: list[int | None] = [None] * count
        """Which prompt is in each slot."""
        self.steps: list[int] = [0] * count
        """How many tokens each beam has there: known without a look at the GPU."""
        self.search = BeamSearch(count, request.params, request.end_ids, self.device)
        self.readers = [
            (EncoderDecoder if model.config.is_encoder_decoder else DecoderOnly)(model, count, request.params.num_beams)
            for model in models
        ]
        self.next_tokens = GraphedStep(self.device)

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def active(self) -> int:
        return self.count - self.free

    @property
    def free(self) -> int:
        return self.numbers.count(None)

    def read(self, numbers: list[int], prompts: list[Forms]) -> Iterator[tuple[int, Candidates]]:
        """Run prompts through the models, give each a slot, and choose the first tokens of its beams."""
        slots = [slot for slot, number in enumerate(self.numbers) if number is None][: len(numbers)]
        for slot, number in zip(slots, numbers, strict=True):
            self.numbers[slot], self.steps[slot] = number, 0
        at = torch.tensor(slots, device=self.device)
        after_prompts = []
        for reader, forms in zip(self.readers, zip(*prompts, strict=True), strict=True):
            logits, moved = reader.read(at, list(forms))
            after_prompts.append(logits)
            self.next_tokens.changed |= moved
        self.search.begin(at, self.request.forbidden(numbers) if self.request.forbidden else None)
        logits = mean_logits(after_prompts).float()[:, None].expand(-1, self.request.params.num_beams, -1)
        yield from self._finished(slots, self.search.advance(at, logits).tolist())

    def step(self) -> Iterator[tuple[int, Candidates]]:
        """One more token of each beam."""
        for reader in self.readers:
            self.next_tokens.changed |= reader.reserve(max(self.steps))
        yield from self._finished(list(range(self.count)), self.next_tokens(self._next_tokens).tolist())

    def _next_tokens(self) -> torch.Tensor:
        step = self.search.next_step()
        at = torch.arange(self.count, device=self.device)
        return self.search.advance(at, mean_logits([reader.after(step) for reader in self.readers]).float())

    def _finished(self, slots: list[int], done: list[bool]) -> Iterator[tuple[int, Candidates]]:
        """Yield the candidates of those `slots` that are `done`, and free them."""
        finished = [slot for slot, over in zip(slots, done, strict=True) if over and self.numbers[slot] is not None]
        for slot in slots:
            self.steps[slot] += self.numbers[slot] is not None
        if not finished:
            return
        at = torch.tensor(finished, device=self.device)
        results = self.search.results(at)
        self.search.end(at)
        for reader in self.readers:
            reader.forget(at)
        for slot, result in zip(finished, results, strict=True):
            number, self.numbers[slot], self.steps[slot] = self.numbers[slot], None, 0
            assert number is not None
            yield number, Candidates(*result)

    def drop_free_slots(self) -> None:
        """Where they are half of all, for each step takes the time of all slots."""
        if not 0 < self.active <= self.count // 2:
            return
        stay = [slot for slot, number in enumerate(self.numbers) if number is not None]
        at = torch.tensor(stay, device=self.device)
        self.numbers, self.steps = [self.numbers[slot] for slot in stay], [self.steps[slot] for slot in stay]
        self.next_tokens.forget()
        self.search.select(at)
        for reader in self.readers:
            reader.select(at)
