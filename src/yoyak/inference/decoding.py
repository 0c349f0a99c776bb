"""Answers to prompts, token by token, from decoder-only models, where transformers' `generate` would wait.

A place whose answers are done is given to the next prompt (continuous batching: Yu et al. 2022, Orca), so that a step
is never of finished answers alone; a prompt's keys and values are kept once for all of its answers, not once for each;
a step is a single CUDA graph; and the log-probability of each answer comes with it, not from a second pass. Beams,
which exchange one answer's past for another's, are not for here.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.inference.averaging import mean_logits
from yoyak.inference.sampling import Facts, Said
from yoyak.inference.shared_prefix import NAME, Kept, Reading, shared_prompts
from yoyak.modeling.attention import bears_flash

READ_TOGETHER = 16_384
"""Most prompt tokens that go through the model at once: a constant, so that texts do not depend on the machine."""
READ_SHARE = 4
"""A quarter of the places is read at once: fewer would be read slowly, and more would wait empty for each other."""


Choose = Callable[[torch.Tensor, Said], torch.Tensor]
"""From logits (rows, answers, vocabulary) in fp32 to the next tokens (rows, answers)."""


@dataclass(frozen=True)
class Answers:
    """To one prompt."""

    ids: list[list[int]]
    """Tokens; the end token is the last one, unless the limit came first."""
    log_probabilities: list[float]
    """Mean over an answer's tokens, under the model itself, whatever was done to the logits before choosing."""


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    answers: int
    """To each prompt."""
    most: int
    """Tokens of an answer."""
    end_ids: list[int]
    choose: Choose
    facts: Callable[[list[int]], Facts] = lambda prompts: {}
    """Of some of the prompts, by their numbers."""


@torch.inference_mode()
def decode(
    models: Sequence[Any], prompts: Sequence[Sequence[list[int]]], together: int, request: Request
) -> Iterator[tuple[int, Answers]]:
    """The number of each prompt and its answers, as they are done, with at most `together` prompts in work.

    Several models of one vocabulary answer together: a token is chosen from the mean of their logits, which is, but for
    a constant, the geometric mean of their distributions. Each has the prompts in its own form, in the same order.

    Prompts of like length side by side, the longest first, waste least. Until the last are told, the models compute
    attention in a way that is of use here alone.
    """
    before = [model.config._attn_implementation for model in models]
    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prompts)
    try:
        for model in models:
            model.set_attn_implementation(NAME)
        yield from _decode(models, list(zip(*prompts, strict=True)), together, request)
    finally:
        for model, attention in zip(models, before, strict=True):
            model.set_attn_implementation(attention)


Forms = tuple[list[int], ...]
"""A prompt's tokens, in the form of each model."""


def _decode(
    models: Sequence[Any], prompts: list[Forms], together: int, request: Request
) -> Iterator[tuple[int, Answers]]:
    waiting = deque(range(len(prompts)))
    places = Places(models, min(together, len(prompts)), request)
    while waiting or places.taken:
        while batch := _next_to_read(waiting, places, prompts):
            yield from places.begin(batch, [prompts[number] for number in batch])
        if not waiting:
            places.close_empty_ones()
        if places.taken:
            yield from places.step()


def _next_to_read(waiting: deque[int], places: "Places", prompts: list[Forms]) -> list[int]:
    """Numbers of prompts for which there is room; none where it is better to wait for more."""
    if not waiting:
        return []
    fitting = READ_TOGETHER // max(map(len, prompts[waiting[0]]))
    size = min(len(waiting), max(1, min(places.count // READ_SHARE, fitting)))
    return [waiting.popleft() for _ in range(size)] if places.empty >= size else []


class Places:
    """Prompts in work, each at its place, and their answers."""

    def __init__(self, models: Sequence[Any], count: int, request: Request) -> None:
        self.request, self.device = request, models[0].device
        self.numbers: list[int | None] = [None] * count
        """Which prompt is at each place."""
        self.steps: list[int] = [0] * count
        """How many tokens each answer has there: known without a look at the GPU."""
        self.ends = torch.tensor(request.end_ids, device=self.device)
        of_answers = (count, request.answers)
        self.tokens = torch.zeros((*of_answers, request.most), dtype=torch.long, device=self.device)
        self.counts = torch.zeros(count, dtype=torch.long, device=self.device)
        self.lengths = torch.zeros(of_answers, dtype=torch.long, device=self.device)
        """`most` while an answer has not ended; 0 at an empty place."""
        self.totals = torch.zeros(of_answers, device=self.device)
        """Of log-probabilities."""
        self.facts: Facts = {}
        self.models = [(model, Kept(count, request.answers, self.device, bears_flash(model))) for model in models]
        """Each with the keys and values that it keeps."""
        self.next_tokens = Recorded(self._next_tokens, self.device)

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def taken(self) -> int:
        return self.count - self.empty

    @property
    def empty(self) -> int:
        return self.numbers.count(None)

    def begin(self, numbers: list[int], prompts: list[Forms]) -> Iterator[tuple[int, Answers]]:
        """Read prompts, give each a place, and choose the first tokens of its answers."""
        forms = list(zip(*prompts, strict=True))
        read = [read_prompts(model, form, kept.flash) for (model, kept), form in zip(self.models, forms, strict=True)]
        # While the GPU reads.
        facts = self.request.facts(numbers)
        places = [place for place, number in enumerate(self.numbers) if number is None][: len(numbers)]
        for place, number in zip(places, numbers, strict=True):
            self.numbers[place], self.steps[place] = number, 0
        at = torch.tensor(places, device=self.device)
        for (_, kept), (reading, _) in zip(self.models, read, strict=True):
            self.next_tokens.changed |= kept.place(at, reading)
        self.counts[at], self.totals[at], self.lengths[at] = 0, 0.0, self.request.most
        for name, fact in facts.items():
            if name not in self.facts:
                self.facts[name] = fact.new_zeros((self.count, *fact.shape[1:]))
            self.facts[name][at] = fact
        logits = mean_logits([logits for _, logits in read])
        done = self._add_to(at, logits[:, None].repeat(1, self.request.answers, 1))
        yield from self._finished(places, done.tolist())

    def step(self) -> Iterator[tuple[int, Answers]]:
        """One more token of each answer."""
        for _, kept in self.models:
            self.next_tokens.changed |= kept.make_room(max(self.steps))
        yield from self._finished(list(range(self.count)), self.next_tokens().tolist())

    def _next_tokens(self) -> torch.Tensor:
        """Add one to all answers; at which places all are done, shape (places,)."""
        at = torch.arange(self.count, device=self.device)
        last = (self.counts - 1).clamp(min=0)
        tokens = self.tokens[at, :, last]
        return self._add_to(at, mean_logits([logits_after(model, kept, tokens, last) for model, kept in self.models]))

    def _add_to(self, at: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Add a token to the answers at places `at`; at which of them all are done."""
        most = self.request.most
        said = Said(self.tokens[at], self.counts[at], {name: fact[at] for name, fact in self.facts.items()})
        chosen = self.request.choose(logits, said)
        unended = self.lengths[at] == most
        self.tokens[at, :, said.counts] = chosen
        likely = logits.gather(-1, chosen[..., None])[..., 0] - logits.logsumexp(-1)
        self.totals[at] += likely.where(unended, 0.0)
        # An empty place stays where it is.
        self.counts[at] += unended.any(1)
        ended = unended & (chosen[..., None] == self.ends).any(-1)
        self.lengths[at] = self.lengths[at].where(~ended, self.counts[at][:, None])
        return (self.lengths[at] < most).all(1) | (self.counts[at] == most)

    def _finished(self, places: list[int], done: list[bool]) -> Iterator[tuple[int, Answers]]:
        """Tell the answers at those of `places` where they are `done`, which are empty then."""
        finished = [place for place, over in zip(places, done, strict=True) if over and self.numbers[place] is not None]
        for place in places:
            self.steps[place] += self.numbers[place] is not None
        if not finished:
            return
        at = torch.tensor(finished, device=self.device)
        tokens, lengths = self.tokens[at].tolist(), self.lengths[at].tolist()
        values = (self.totals[at] / self.lengths[at]).tolist()
        self.counts[at], self.lengths[at] = 0, 0
        for _, kept in self.models:
            kept.lengths[at] = 0
        for place, answers, ends, log_probabilities in zip(finished, tokens, lengths, values, strict=True):
            number, self.numbers[place], self.steps[place] = self.numbers[place], None, 0
            assert number is not None
            ids = [answer[:end] for answer, end in zip(answers, ends, strict=True)]
            yield number, Answers(ids, log_probabilities)

    def close_empty_ones(self) -> None:
        """Where they are half of all, for each step takes the time of all places."""
        if not 0 < self.taken <= self.count // 2:
            return
        stay = [place for place, number in enumerate(self.numbers) if number is not None]
        at = torch.tensor(stay, device=self.device)
        self.numbers, self.steps = [self.numbers[place] for place in stay], [self.steps[place] for place in stay]
        self.tokens, self.counts = self.tokens[at], self.counts[at]
        self.lengths, self.totals = self.lengths[at], self.totals[at]
        self.facts = {name: fact[at] for name, fact in self.facts.items()}
        self.next_tokens.forget()
        for _, kept in self.models:
            kept.keep(at)


def read_prompts(model: Any, prompts: Sequence[list[int]], flash: bool) -> tuple[Reading, torch.Tensor]:
    """With the logits after each prompt, shape (prompts, vocabulary)."""
    read = Reading([len(prompt) for prompt in prompts], model.device, flash)
    output = model(
        input_ids=torch.tensor([[token for prompt in prompts for token in prompt]], device=model.device),
        position_ids=read.positions[None],
        use_cache=False,
        logits_to_keep=read.borders[1:] - 1,
        kept=read,
    )
    return read, output.logits[0]


def logits_after(model: Any, kept: Kept, tokens: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Shape (places, answers, vocabulary), after `tokens` (places, answers), the answers' tokens number `steps`."""
    kept.steps.copy_(steps)
    output = model(input_ids=tokens.reshape(-1, 1), position_ids=kept.begin_step(), use_cache=False, kept=kept)
    logits: torch.Tensor = output.logits
    return logits.view(*tokens.shape, -1)


class Recorded:
    """A step as a CUDA graph.

    It is a thousand small kernels, and launching them takes the host several times as long as a GPU computes. So the
    second step after a change of shape is recorded, and those after it launch the record. Nothing in a step may wait
    for the GPU or come from elsewhere than tensors that stay where they are.
    """

    def __init__(self, step: Callable[[], torch.Tensor], device: torch.device) -> None:
        self.step, self.device = step, device
        self.changed = True
        """Whether tensors were moved: a graph is of tensors at their places."""
        self._recorded: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def __call__(self) -> torch.Tensor:
        """What the step returns; overwritten by the next call."""
        if self.changed or self.device.type == "cpu":
            self.forget()
            self.changed = False
            return self.step()
        if self._recorded is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = self.step()
            self._recorded = graph, result
        graph, result = self._recorded
        graph.replay()
        return result

    def forget(self) -> None:
        self._recorded, self.changed = None, True
