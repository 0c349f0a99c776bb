"""Candidates for prompts, token by token, from decoder-only models, where transformers' `generate` would wait.

A slot whose candidates are done is given to the next prompt (continuous batching: Yu et al. 2022, Orca), so that a step
is never of finished candidates alone; a prompt's keys and values are stored once for all of its candidates;
a step is a single CUDA graph; and the log-probability of each candidate comes with it, not from a second pass. Beams,
which exchange one candidate's past for another's, are not for here.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.core.gpu import sent
from yoyak.inference.averaging import mean_logits
from yoyak.inference.forward import MAX_PREFILL_TOKENS, PREFILL_SHARE, forwards_of
from yoyak.inference.sampling import Facts, GeneratedTokens, log_sum_exp
from yoyak.inference.shared_prefix import NAME, shared_prefix
from yoyak.modeling.cuda_graphs import GraphedStep

Choose = Callable[[torch.Tensor, GeneratedTokens], torch.Tensor]
"""From logits (rows, candidates, vocabulary) to the next tokens (rows, candidates)."""


@dataclass(frozen=True)
class Candidates:
    """To one prompt."""

    ids: list[list[int]]
    """Tokens; the end token is the last one, unless the limit came first."""
    log_probabilities: list[float]
    """Mean over a candidate's tokens, under the model itself, whatever was done to the logits before choosing."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    candidates: int
    """To each prompt."""
    max_new_tokens: int
    """Tokens of a candidate."""
    end_ids: list[int]
    choose: Choose
    facts: Callable[[list[int]], Facts] = lambda prompts: {}
    """Of some of the prompts, by their numbers."""


@torch.inference_mode()
def decode(
    models: Sequence[Any], prompts: Sequence[Sequence[list[int]]], max_batch_size: int, request: Request
) -> Iterator[tuple[int, Candidates]]:
    """The number of each prompt and its candidates, as they are done, with at most `max_batch_size` prompts in work.

    Several models of one vocabulary decode together: a token is chosen from the mean of their logits, which is, but for
    a constant, the geometric mean of their distributions. Each has the prompts in its own form, in the same order.

    Prompts of like length side by side, the longest first, waste least. Until the last are told, the models compute
    attention in a way that is of use here alone.
    """
    before = [model.config._attn_implementation for model in models]
    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prefix)
    try:
        for model in models:
            model.set_attn_implementation(NAME)
        yield from _decode(models, list(zip(*prompts, strict=True)), max_batch_size, request)
    finally:
        for model, attention in zip(models, before, strict=True):
            model.set_attn_implementation(attention)


Forms = tuple[list[int], ...]
"""A prompt's tokens, in the form of each model."""


def _decode(
    models: Sequence[Any], prompts: list[Forms], max_batch_size: int, request: Request
) -> Iterator[tuple[int, Candidates]]:
    waiting = deque(range(len(prompts)))
    slots = Slots(models, min(max_batch_size, len(prompts)), request, prompts)
    while waiting or slots.active:
        while batch := _next_to_prefill(waiting, slots, prompts):
            slots.prefill(batch, [prompts[number] for number in batch])
        if not waiting:
            yield from slots.drop_free_slots()
        while not slots.fits():
            waiting.appendleft(slots.give_up_newest())
        if slots.active:
            yield from slots.step()
        if not slots.active:
            yield from slots.settle()


def _next_to_prefill(waiting: deque[int], slots: "Slots", prompts: list[Forms]) -> list[int]:
    """Numbers of prompts for which there is a slot; none where it is better to wait for more."""
    if not waiting:
        return []
    room = slots.room([prompts[number] for number in islice(waiting, slots.free)])
    fitting = MAX_PREFILL_TOKENS // max(map(len, prompts[waiting[0]]))
    size = min(len(waiting), max(1, min((slots.active + room) // PREFILL_SHARE, fitting)))
    return [waiting.popleft() for _ in range(size)] if room >= size else []


class Slots:
    """The prompts in work, each in its slot, and their candidates.

    The host looks at the end of a step when the next one has been launched, so that a GPU does not wait for it.
    """

    def __init__(self, models: Sequence[Any], count: int, request: Request, prompts: Sequence[Forms]) -> None:
        self.request, self.device = request, models[0].device
        self.numbers: list[int | None] = [None] * count
        """Which prompt is in each slot."""
        self.steps: list[int] = [0] * count
        """How many tokens each candidate has there, or one more: known without a look at the GPU."""
        self.ends = torch.tensor(request.end_ids, device=self.device)
        of_candidates = (count, request.candidates)
        # One more than there may be: a step that was launched before the host saw the end writes there.
        shape = *of_candidates, request.max_new_tokens + 1
        self.tokens = torch.zeros(shape, dtype=torch.long, device=self.device)
        self.counts = torch.zeros(count, dtype=torch.long, device=self.device)
        self.lengths = torch.zeros(of_candidates, dtype=torch.long, device=self.device)
        """`max_new_tokens` while a candidate has not ended; 0 in a free slot."""
        self.totals = torch.zeros(of_candidates, device=self.device)
        """Of log-probabilities."""
        self.facts: Facts = {}
        forms = list(zip(*prompts, strict=True))
        self.forwards = forwards_of(models, count, request.candidates, request.max_new_tokens, forms)
        """Of each model."""
        self.next_tokens = GraphedStep(self.device)
        self.launched: Launched | None = None
        """A step whose end the host has not looked at."""
        self.results: Results | None = None
        """Of slots that are free again; on their way from the GPU."""

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def active(self) -> int:
        return self.count - self.free

    @property
    def free(self) -> int:
        return self.numbers.count(None)

    def room(self, prompts: Sequence[Forms]) -> int:
        """How many of the next prompts there are slots and memory for."""
        forms = zip(*prompts, strict=True) if prompts else [[]] * len(self.forwards)
        return min(forward.room(form) for forward, form in zip(self.forwards, forms, strict=True))

    def fits(self) -> bool:
        """Whether there is memory for one more token of each candidate."""
        return all(forward.fits(self.steps) for forward in self.forwards)

    def give_up_newest(self) -> int:
        """The prompt that loses least by it; its number. It will begin anew, with the draws that it had."""
        slot = min((slot for slot in range(self.count) if self.steps[slot]), key=self.steps.__getitem__)
        number = self.numbers[slot]
        assert number is not None
        self._release([slot])
        return number

    def prefill(self, numbers: list[int], prompts: list[Forms]) -> None:
        """Run prompts through the model, give each a slot, and choose the first tokens of its candidates."""
        slots = [slot for slot, number in enumerate(self.numbers) if number is None][: len(numbers)]
        forms = zip(*prompts, strict=True)
        prefilled = [forward.prefill(slots, form) for forward, form in zip(self.forwards, forms, strict=True)]
        self.next_tokens.changed |= any(moved for _, moved in prefilled)
        # While the GPU computes the prompts.
        facts = self.request.facts(numbers)
        for slot, number in zip(slots, numbers, strict=True):
            self.numbers[slot], self.steps[slot] = number, 1
        at = sent(slots, self.device)
        self.counts[at], self.totals[at], self.lengths[at] = 0, 0.0, self.request.max_new_tokens
        for name, fact in facts.items():
            if name not in self.facts:
                self.facts[name] = fact.new_zeros((self.count, *fact.shape[1:]))
            self.facts[name][at] = fact
        logits = mean_logits([logits for logits, _ in prefilled])
        self._add_to(at, logits[:, None].repeat(1, self.request.candidates, 1))

    def step(self) -> Iterator[tuple[int, Candidates]]:
        """One more token of each candidate; and the candidates that are known to be done."""
        for forward in self.forwards:
            self.next_tokens.changed |= forward.reserve(self.steps)
        done = self.next_tokens(self._next_tokens)
        for slot, number in enumerate(self.numbers):
            self.steps[slot] += number is not None
        before, self.launched = self.launched, Launched(list(self.numbers), Fetched([done]))
        if before is not None:
            yield from self._results_after(before)
        if not self._looks_behind:
            yield from self.settle()

    @property
    def _looks_behind(self) -> bool:
        """Whether steps go on meanwhile."""
        return bool(self.device.type == "cuda")

    def settle(self) -> Iterator[tuple[int, Candidates]]:
        """Wait for the GPU, and yield all candidates that are done."""
        launched, self.launched = self.launched, None
        if launched is not None:
            yield from self._results_after(launched)
        results, self.results = self.results, None
        if results is not None:
            yield from results.candidates()

    def _next_tokens(self) -> torch.Tensor:
        """Add one to all candidates; at which slots all are done, shape (slots,)."""
        last = (self.counts - 1).clamp(min=0)
        at = torch.arange(self.count, device=self.device)
        tokens = self.tokens[at, :, last]
        return self._add_to(at, mean_logits([forward.step(tokens, last) for forward in self.forwards]))

    def _add_to(self, at: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Add a token to the candidates at slots `at`; at which of them all are done."""
        max_new_tokens, counts = self.request.max_new_tokens, self.counts[at]
        facts = {name: fact[at] for name, fact in self.facts.items()}
        # Slots that are done have no next token, and theirs may be any.
        before = counts.clamp(max=max_new_tokens - 1)
        generated = GeneratedTokens(self.tokens[at, :, :max_new_tokens], before, facts)
        chosen = self.request.choose(logits, generated)
        unended = (self.lengths[at] == max_new_tokens) & (counts < max_new_tokens)[:, None]
        self.tokens[at, :, counts] = chosen
        likely = logits.gather(-1, chosen[..., None])[..., 0].float() - log_sum_exp(logits)
        self.totals[at] += likely.where(unended, 0.0)
        # A free slot does not advance, nor does one whose candidates are done.
        counts = counts + unended.any(1)
        self.counts[at] = counts
        ended = unended & (chosen[..., None] == self.ends).any(-1)
        self.lengths[at] = self.lengths[at].where(~ended, counts[:, None])
        return (self.lengths[at] < max_new_tokens).all(1) | (counts == max_new_tokens)

    def _results_after(self, launched: "Launched") -> Iterator[tuple[int, Candidates]]:
        """Free the slots that were done at the end of a step; and yield the candidates of those that were before."""
        (done,) = launched.done.wait()
        finished = {
            slot: number
            for slot, (over, number) in enumerate(zip(done.tolist(), launched.numbers, strict=True))
            if over and number is not None and number == self.numbers[slot]
        }
        before, self.results = self.results, None
        if finished:
            at = sent([*finished], self.device)
            means = self.totals[at] / self.lengths[at]
            self.results = Results([*finished.values()], Fetched([self.tokens[at], self.lengths[at], means]))
            self._release([*finished])
        if before is not None:
            yield from before.candidates()

    def _release(self, slots: list[int]) -> None:
        at = sent(slots, self.device)
        self.counts[at], self.lengths[at] = 0, 0
        for slot in slots:
            self.numbers[slot], self.steps[slot] = None, 0
        for forward in self.forwards:
            forward.release(slots)

    def drop_free_slots(self) -> Iterator[tuple[int, Candidates]]:
        """Where they are half of all, for each step takes the time of all slots. What was done till then is yielded."""
        if not 0 < self.active <= self.count // 2 or self.count * self.request.candidates <= self._as_fast_as_one:
            return
        yield from self.settle()
        stay = [slot for slot, number in enumerate(self.numbers) if number is not None]
        at = sent(stay, self.device)
        self.numbers, self.steps = [self.numbers[slot] for slot in stay], [self.steps[slot] for slot in stay]
        self.tokens, self.counts = self.tokens[at], self.counts[at]
        self.lengths, self.totals = self.lengths[at], self.totals[at]
        self.facts = {name: fact[at] for name, fact in self.facts.items()}
        self.next_tokens.forget()
        for forward in self.forwards:
            forward.select(stay)

    @property
    def _as_fast_as_one(self) -> int:
        """So many candidates take no longer than one: a GPU reads all weights for either."""
        return 1 if self.device.type == "cpu" else 64


class Fetched:
    """Tensors on their way from the device, behind all that it was told before."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        on_gpu = tensors[0].device.type == "cuda"
        self.copies = [
            torch.empty_like(tensor, device="cpu", pin_memory=on_gpu).copy_(tensor, non_blocking=True)
            for tensor in tensors
        ]
        self.arrival: Any = torch.cuda.Event() if on_gpu else None  # type: ignore[no-untyped-call]
        if self.arrival:
            self.arrival.record()

    def wait(self) -> list[torch.Tensor]:
        if self.arrival:
            self.arrival.synchronize()
        return self.copies


@dataclass(frozen=True)
class Launched:
    """A step that the device works on."""

    numbers: list[int | None]
    """Which prompt was in each slot."""
    done: Fetched
    """Where all candidates are, shape (slots,)."""


@dataclass(frozen=True)
class Results:
    """Of slots whose candidates are done."""

    numbers: list[int]
    """Of the prompts."""
    fetched: Fetched
    """Tokens (slots, candidates, max_new_tokens + 1), lengths and mean log-probabilities (slots, candidates)."""

    def candidates(self) -> Iterator[tuple[int, Candidates]]:
        rows = (tensor.tolist() for tensor in self.fetched.wait())
        for number, tokens, lengths, means in zip(self.numbers, *rows, strict=True):
            yield number, Candidates([ids[:end] for ids, end in zip(tokens, lengths, strict=True)], means)
