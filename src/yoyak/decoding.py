"""Answers to prompts, token by token, from decoder-only models, where transformers' `generate` would wait.

A place whose answers are done is given to the next prompt (continuous batching: Yu et al. 2022, Orca), so that a step
is never of finished answers alone; a prompt's keys and values are kept once for all of its answers, not once for each;
a step is a single CUDA graph; and the log-probability of each answer comes with it, not from a second pass. Beams,
which exchange one answer's past for another's, are not for here.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "shared_prompts"
READ_TOGETHER = 16_384
"""Most prompt tokens that go through the model at once, padding counted: a constant, so that texts do not depend on the
machine."""
READ_SHARE = 4
"""A quarter of the places is read at once: fewer would be read slowly, and more would wait empty for each other."""
ROOM = 64
"""Tokens by which the room for answers grows."""
SPARE_ROOM = 256
"""Is not given back: the next long answer would need it again."""

Facts = dict[str, torch.Tensor]
"""What is to be known of prompts while their answers are chosen, row by row."""


@dataclass(frozen=True)
class Said:
    """What answers have said so far."""

    tokens: torch.Tensor
    """Shape (rows, answers, most)."""
    counts: torch.Tensor
    """How many of them there are, shape (rows,)."""
    facts: Facts
    """Of the rows' prompts."""


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
def decode(model: Any, prompts: list[list[int]], together: int, request: Request) -> Iterator[tuple[int, Answers]]:
    """The number of each prompt and its answers, as they are done, with at most `together` prompts in work.

    Prompts of like length side by side, the longest first, waste least. Until the last are told, `model` computes
    attention in a way that is of use here alone.
    """
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prompts)
    model.set_attn_implementation(NAME)
    try:
        yield from _decode(model, prompts, together, request)
    finally:
        model.set_attn_implementation(before)


def _decode(model: Any, prompts: list[list[int]], together: int, request: Request) -> Iterator[tuple[int, Answers]]:
    waiting = deque(range(len(prompts)))
    places = Places(model, min(together, len(prompts)), request)
    while waiting or places.taken:
        while batch := _next_to_read(waiting, places, prompts):
            yield from places.begin(batch, [prompts[number] for number in batch])
        if not waiting:
            places.close_empty_ones()
        if places.taken:
            yield from places.step()


def _next_to_read(waiting: deque[int], places: "Places", prompts: list[list[int]]) -> list[int]:
    """Numbers of prompts for which there is room; none where it is better to wait for more."""
    if not waiting:
        return []
    fitting = READ_TOGETHER // len(prompts[waiting[0]])
    size = min(len(waiting), max(1, min(places.count // READ_SHARE, fitting)))
    return [waiting.popleft() for _ in range(size)] if places.empty >= size else []


class Places:
    """Prompts in work, each at its place, and their answers."""

    def __init__(self, model: Any, count: int, request: Request) -> None:
        self.model, self.request = model, request
        self.numbers: list[int | None] = [None] * count
        """Which prompt is at each place."""
        self.said: list[int] = [0] * count
        """How many tokens each answer has there: known without a look at the GPU."""
        self.ends = torch.tensor(request.end_ids, device=model.device)
        of_answers = (count, request.answers)
        self.tokens = torch.zeros((*of_answers, request.most), dtype=torch.long, device=model.device)
        self.counts = torch.zeros(count, dtype=torch.long, device=model.device)
        self.lengths = torch.zeros(of_answers, dtype=torch.long, device=model.device)
        """`most` while an answer has not ended."""
        self.totals = torch.zeros(of_answers, device=model.device)
        """Of log-probabilities."""
        self.facts: Facts = {}
        self.kept = Kept(count, request.answers, model.device)
        self.stepper = Stepper(model, self.kept)

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def taken(self) -> int:
        return self.count - self.empty

    @property
    def empty(self) -> int:
        return self.numbers.count(None)

    def begin(self, numbers: list[int], prompts: list[list[int]]) -> Iterator[tuple[int, Answers]]:
        """Read prompts, give each a place, and choose the first tokens of its answers."""
        read = read_prompts(self.model, prompts)
        places = [place for place, number in enumerate(self.numbers) if number is None][: len(numbers)]
        for place, number in zip(places, numbers, strict=True):
            self.numbers[place], self.said[place] = number, 0
        at = torch.tensor(places, device=self.model.device)
        self.stepper.changed |= self.kept.place(at, read)
        self.counts[at], self.totals[at], self.lengths[at] = 0, 0.0, self.request.most
        for name, fact in self.request.facts(numbers).items():
            if name not in self.facts:
                self.facts[name] = fact.new_zeros((self.count, *fact.shape[1:]))
            self.facts[name][at] = fact
        logits = read.logits[:, None].expand(-1, self.request.answers, -1)
        yield from self._chosen(places, at, logits)

    def step(self) -> Iterator[tuple[int, Answers]]:
        """One more token of each answer."""
        self.stepper.changed |= self.kept.make_room(max(self.said))
        at = torch.arange(self.count, device=self.model.device)
        last = (self.counts - 1).clamp(min=0)
        logits = self.stepper.next(self.tokens[at, :, last], last)
        yield from self._chosen(list(range(self.count)), at, logits)

    def _chosen(self, places: list[int], at: torch.Tensor, logits: torch.Tensor) -> Iterator[tuple[int, Answers]]:
        """Add to the answers at `places`, and tell those that are done; `at` are the same as a tensor."""
        logits, most = logits.float(), self.request.most
        said = Said(self.tokens[at], self.counts[at], {name: fact[at] for name, fact in self.facts.items()})
        chosen = self.request.choose(logits, said)
        unended = self.lengths[at] == most
        self.tokens[at, :, said.counts] = chosen
        likely = logits.gather(-1, chosen[..., None])[..., 0] - logits.logsumexp(-1)
        self.totals[at] += likely.where(unended, 0.0)
        # An empty place stays where it is.
        self.counts[at] += unended.any(1)
        ended = unended & torch.isin(chosen, self.ends)
        self.lengths[at] = self.lengths[at].where(~ended, self.counts[at][:, None])
        done = (self.lengths[at] < most).all(1) | (self.counts[at] == most)
        yield from self._finished(places, done.tolist())

    def _finished(self, places: list[int], done: list[bool]) -> Iterator[tuple[int, Answers]]:
        finished = [place for place, over in zip(places, done, strict=True) if over and self.numbers[place] is not None]
        for place in places:
            self.said[place] += self.numbers[place] is not None
        if not finished:
            return
        at = torch.tensor(finished, device=self.model.device)
        tokens, lengths = self.tokens[at].tolist(), self.lengths[at].tolist()
        values = (self.totals[at] / self.lengths[at]).tolist()
        self.counts[at], self.lengths[at], self.kept.positions[at] = 0, 0, -1
        for place, answers, ends, log_probabilities in zip(finished, tokens, lengths, values, strict=True):
            number, self.numbers[place], self.said[place] = self.numbers[place], None, 0
            assert number is not None
            ids = [answer[:end] for answer, end in zip(answers, ends, strict=True)]
            yield number, Answers(ids, log_probabilities)

    def close_empty_ones(self) -> None:
        """Where they are half of all, for each step takes the time of all places."""
        if not 0 < self.taken <= self.count // 2:
            return
        stay = [place for place, number in enumerate(self.numbers) if number is not None]
        at = torch.tensor(stay, device=self.model.device)
        self.numbers, self.said = [self.numbers[place] for place in stay], [self.said[place] for place in stay]
        self.tokens, self.counts = self.tokens[at], self.counts[at]
        self.lengths, self.totals = self.lengths[at], self.totals[at]
        self.facts = {name: fact[at] for name, fact in self.facts.items()}
        self.stepper.forget()
        self.kept.keep(at)


@dataclass(frozen=True)
class Read:
    """Prompts that went through the model."""

    positions: torch.Tensor
    """Of tokens in their prompt, shape (rows, width), below 0 in the padding, which stands before them."""
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]
    """Keys and values, each of shape (rows, heads, width, head size)."""
    logits: torch.Tensor
    """After each prompt, shape (rows, vocabulary)."""


def read_prompts(model: Any, prompts: list[list[int]]) -> Read:
    width = max(map(len, prompts))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    positions = (torch.arange(width)[None] - (width - lengths)[:, None]).to(model.device)
    ids = torch.tensor([[prompt[0]] * (width - len(prompt)) + prompt for prompt in prompts])
    reading = Reading(positions, {})
    output = model(
        input_ids=ids.to(model.device),
        position_ids=positions.clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
        kept=reading,
    )
    return Read(positions, reading.layers, output.logits[:, -1])


@dataclass(frozen=True)
class Reading:
    """What attention is given while prompts are read: where it puts their keys and values."""

    positions: torch.Tensor
    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]


class Kept:
    """Keys and values at all places, layer by layer."""

    def __init__(self, places: int, answers: int, device: Any) -> None:
        self.answer_count = answers
        self.positions = torch.full((places, 0), -1, device=device)
        """Of prompt tokens in their prompt, shape (places, width), below 0 in the padding, which stands before them."""
        self.steps = torch.zeros(places, dtype=torch.long, device=device)
        """Number of the answers' token that is looked at, at each place."""
        self.prompts: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Shape (places, heads, width, head size)."""
        self.answers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Shape (places, answers, heads, room, head size)."""

    @property
    def width(self) -> int:
        return self.positions.shape[1]

    @property
    def room(self) -> int:
        return next(iter(self.answers.values()))[0].shape[3] if self.answers else 0

    def place(self, at: torch.Tensor, read: Read) -> bool:
        """Put prompts at places; whether anything had to be moved for it."""
        self._allocate(read)
        self.positions[at] = -1
        width = read.positions.shape[1]
        moved = self._fit_width(max(width, self._longest()))
        self.positions[at, self.width - width :] = read.positions
        for layer, pair in read.layers.items():
            for room, new in zip(self.prompts[layer], pair, strict=True):
                room[at, :, self.width - width :] = new
        return moved

    def _allocate(self, read: Read) -> None:
        for layer, (keys, _) in read.layers.items():
            if layer in self.prompts:
                return
            _, heads, _, size = keys.shape
            places = len(self.positions)
            none = keys.new_zeros((places, heads, self.width, size))
            self.prompts[layer] = none, none.clone()
            none = keys.new_zeros((places, self.answer_count, heads, 0, size))
            self.answers[layer] = none, none.clone()

    def _longest(self) -> int:
        return int((self.positions >= 0).sum(1).max()) if self.width else 0

    def _fit_width(self, needed: int) -> bool:
        """Wide enough, and not twice as wide as it must be."""
        if needed <= self.width < 2 * needed:
            return False
        more = needed - self.width
        self.positions = pad(self.positions, (more, 0), value=-1)
        for layer, pair in self.prompts.items():
            # The last dimension but one; less than none is taken away.
            self.prompts[layer] = pad(pair[0], (0, 0, more, 0)), pad(pair[1], (0, 0, more, 0))
        return True

    def make_room(self, tokens: int) -> bool:
        """For so many tokens of each answer, and not for many more; whether anything had to be moved for it."""
        needed = -(-tokens // ROOM) * ROOM
        if needed <= self.room <= max(2 * needed, SPARE_ROOM):
            return False
        more = needed - self.room
        for layer, pair in self.answers.items():
            self.answers[layer] = pad(pair[0], (0, 0, 0, more)), pad(pair[1], (0, 0, 0, more))
        return True

    def keep(self, at: torch.Tensor) -> None:
        """Forget all places but these."""
        self.positions, self.steps = self.positions[at], self.steps[at]
        for kept in (self.prompts, self.answers):
            for layer, (keys, values) in kept.items():
                kept[layer] = keys[at], values[at]
        self._fit_width(max(1, self._longest()))


class Stepper:
    """From the last tokens of answers to the logits of their next.

    A step is a thousand small kernels, and launching them takes the host several times as long as a GPU computes. So
    the second step after a change of shape is recorded as a CUDA graph, and those after it launch that.
    """

    def __init__(self, model: Any, kept: Kept) -> None:
        self.model, self.kept = model, kept
        self.changed = True
        """Whether tensors were moved: a graph is of tensors at their places."""
        self._recorded: tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor] | None = None
        """With the tokens that it reads and the logits that it writes."""

    def next(self, tokens: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Logits (places, answers, vocabulary) after `tokens` (places, answers), the answers' tokens number `steps`.

        They are overwritten by the next call.
        """
        self.kept.steps.copy_(steps)
        if self.changed or tokens.device.type == "cpu":
            self.forget()
            self.changed = False
            return _after(self.model, self.kept, tokens)
        if self._recorded is None:
            self._recorded = self._record(tokens)
        graph, read, written = self._recorded
        read.copy_(tokens)
        graph.replay()
        return written

    def forget(self) -> None:
        self._recorded, self.changed = None, True

    def _record(self, tokens: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        graph, read = torch.cuda.CUDAGraph(), tokens.clone()
        with torch.cuda.graph(graph):
            written = _after(self.model, self.kept, read)
        return graph, read, written


def _after(model: Any, kept: Kept, tokens: torch.Tensor) -> torch.Tensor:
    positions = kept.positions[:, -1] + 1 + kept.steps
    output = model(
        input_ids=tokens.reshape(-1, 1),
        # An empty place has none.
        position_ids=positions.clamp(min=0).repeat_interleave(tokens.shape[1])[:, None],
        use_cache=False,
        kept=kept,
    )
    logits: torch.Tensor = output.logits
    return logits.view(*tokens.shape, -1)


def shared_prompts(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    kept: Reading | Kept,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (rows or rows x answers, heads, tokens, head size)."""
    layer = module.layer_idx
    if isinstance(kept, Reading):
        kept.layers[layer] = _to_keep(key), _to_keep(value)
        output = _over_prompts(query, key, value, kept.positions, scaling, sliding_window)
    else:
        _keep_answers(kept, layer, key, value)
        output = _over_answers(kept, layer, query, scaling, sliding_window)
    return output, None


def _over_prompts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:
    distance = positions[:, :, None] - positions[:, None, :]
    seen = (distance >= 0) & (positions[:, None, :] >= 0)
    if sliding_window is not None:
        seen &= distance < sliding_window
    # A row of padding that sees nothing would be no number, and padding is seen by nobody.
    seen |= torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=seen[:, None], scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2)


def _keep_answers(kept: Kept, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """The keys and values of one token of each answer."""
    at = torch.arange(len(kept.steps), device=key.device)
    for room, new in zip(kept.answers[layer], (key, value), strict=True):
        places, answers, heads, _, size = room.shape
        room[at, :, :, kept.steps] = new.view(places, answers, heads, size).to(room.dtype)


def _over_answers(
    kept: Kept, layer: int, query: torch.Tensor, scaling: float, sliding_window: int | None
) -> torch.Tensor:
    """Queries of one token of each answer, over its prompt and over what it has said.

    Heads that share a key are, like the answers to one prompt, more queries over the same keys.
    """
    prompt_keys, prompt_values = kept.prompts[layer]
    answer_keys, answer_values = kept.answers[layer]
    rows, answers, heads, _, size = answer_keys.shape
    group = query.shape[1] // heads
    queries = query.view(rows, answers, heads, group, size) * scaling
    of_prompts = queries.transpose(1, 2).reshape(rows, heads, answers * group, size)

    prompt_scores = _product(of_prompts, prompt_keys.transpose(-1, -2))
    prompt_scores = prompt_scores.masked_fill(~_seen_of_prompts(kept, sliding_window)[:, None, None], -torch.inf)
    prompt_scores = prompt_scores.view(rows, heads, answers, group, -1).transpose(1, 2)
    answer_scores = _product(queries, answer_keys.transpose(-1, -2))
    unseen = ~_seen_of_answers(kept, sliding_window)[:, None, None, None]
    answer_scores = answer_scores.masked_fill(unseen, -torch.inf)

    width = prompt_keys.shape[2]
    shares = torch.cat([prompt_scores, answer_scores], -1).softmax(-1).to(query.dtype)
    of_prompts = shares[..., :width].transpose(1, 2).reshape(rows, heads, answers * group, width)
    output = _product(of_prompts, prompt_values).view(rows, heads, answers, group, size).transpose(1, 2)
    output = output + _product(shares[..., width:], answer_values)
    return output.reshape(rows * answers, 1, heads * group, size).to(query.dtype)


def _to_keep(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU multiplies bf16 into bf16; what is rounded there changes texts, and memory is plenty."""
    return tensor.float() if tensor.device.type == "cpu" else tensor


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Matrix products in fp32, as fused kernels sum them up."""
    if other.dtype == torch.float32:
        return one.float() @ other
    flat = torch.bmm(one.flatten(0, -3), other.flatten(0, -3), out_dtype=torch.float32)
    return flat.view(*one.shape[:-1], other.shape[-1])


def _seen_of_prompts(kept: Kept, sliding_window: int | None) -> torch.Tensor:
    """Shape (places, width)."""
    seen = kept.positions >= 0
    if sliding_window is not None:
        now = kept.positions[:, -1:] + 1 + kept.steps[:, None]
        seen = seen & (now - kept.positions < sliding_window)
    return seen


def _seen_of_answers(kept: Kept, sliding_window: int | None) -> torch.Tensor:
    """Shape (places, room)."""
    ago = kept.steps[:, None] - torch.arange(kept.room, device=kept.steps.device)
    return (ago >= 0) if sliding_window is None else (ago >= 0) & (ago < sliding_window)
