"""Attention of several answers to each prompt, whose keys and values are kept once for all of them.

Prompts are read, packed into one sequence (`Reading`); their keys and values then stand at places (`Kept`), and each
answer's next token looks at its prompt's and at its own.
"""

from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from yoyak.modeling.attention import each_row_alone, packed_rows

NAME = "shared_prompts"
ROOM = 64
"""Tokens by which the room for answers grows."""
SPARE_ROOM = 256
"""Is not given back: the next long answer would need it again."""
Layers = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, by the number of the layer."""


class Reading:
    """Prompts that go through a model, one after another in one sequence."""

    def __init__(self, lengths: list[int], device: torch.device, flash: bool) -> None:
        """`flash`: PyTorch's FlashAttention computes it."""
        self.lengths, self.flash = lengths, flash
        self.positions = torch.cat([torch.arange(length) for length in lengths]).to(device)
        """Of tokens in their prompt, shape (tokens,)."""
        self.borders = pad(torch.tensor(lengths).cumsum(0), (1, 0)).to(device, torch.int32)
        """Where prompts begin in the sequence, and the end, shape (prompts + 1,)."""
        self.layers: Layers = {}
        """Filled on the way, each of shape (tokens, heads, head size)."""


class Spans(NamedTuple):
    """What FlashAttention is told of sequences, in int32."""

    queries: torch.Tensor
    """Where the queries of each begin, and the end, shape (sequences + 1,)."""
    most_queries: int
    keys: torch.Tensor
    """Where its keys begin, shape (sequences + 1,), the last of no meaning."""
    used: torch.Tensor
    """How many there are, shape (sequences,)."""


class Kept:
    """Keys and values of one model at all places, layer by layer."""

    def __init__(self, places: int, answers: int, device: torch.device, flash: bool) -> None:
        self.answer_count, self.flash = answers, flash
        self.lengths = torch.zeros(places, dtype=torch.int32, device=device)
        """Of prompts; 0 at an empty place."""
        self.steps = torch.zeros(places, dtype=torch.int32, device=device)
        """Number of the answers' token that is looked at, at each place."""
        self.prompts: Layers = {}
        """Shape (places, heads, width, head size)."""
        self.answers: Layers = {}
        """Shape (places, answers, heads, room, head size)."""
        self.of_prompts: Spans | None = None
        self.of_answers: Spans | None = None

    @property
    def width(self) -> int:
        return next(iter(self.prompts.values()))[0].shape[2] if self.prompts else 0

    @property
    def room(self) -> int:
        return next(iter(self.answers.values()))[0].shape[3] if self.answers else 0

    def place(self, at: torch.Tensor, read: Reading) -> bool:
        """Put prompts at places; whether anything had to be moved for it."""
        self._allocate(read)
        lengths = torch.tensor(read.lengths, device=at.device)
        self.lengths[at] = lengths.int()
        moved = self._fit_width()
        rows, columns = at.repeat_interleave(lengths), read.positions
        for layer, pair in read.layers.items():
            for room, new in zip(self.prompts[layer], pair, strict=True):
                room[rows, :, columns] = new
        return moved

    def _allocate(self, read: Reading) -> None:
        for layer, (keys, _) in read.layers.items():
            if layer in self.prompts:
                return
            _, heads, size = keys.shape
            places = len(self.lengths)
            none = keys.new_zeros((places, heads, 0, size))
            self.prompts[layer] = none, none.clone()
            none = keys.new_zeros((places, self.answer_count, heads, 0, size))
            self.answers[layer] = none, none.clone()

    def _fit_width(self) -> bool:
        """Wide enough, and not twice as wide as it must be; whether anything was moved."""
        needed = max(1, int(self.lengths.max()))
        if needed <= self.width < 2 * needed:
            return False
        # The last dimension but one; less than none is taken away.
        more = (0, 0, 0, needed - self.width)
        for layer, (keys, values) in self.prompts.items():
            self.prompts[layer] = pad(keys, more), pad(values, more)
        return True

    def make_room(self, tokens: int) -> bool:
        """For so many tokens of each answer, and not for many more; whether anything had to be moved for it."""
        needed = -(-tokens // ROOM) * ROOM
        if needed <= self.room <= max(2 * needed, SPARE_ROOM):
            return False
        more = (0, 0, 0, needed - self.room)
        for layer, (keys, values) in self.answers.items():
            self.answers[layer] = pad(keys, more), pad(values, more)
        return True

    def keep(self, at: torch.Tensor) -> None:
        """Forget all places but these."""
        self.lengths, self.steps = self.lengths[at], self.steps[at]
        for kept in (self.prompts, self.answers):
            for layer, (keys, values) in kept.items():
                kept[layer] = keys[at], values[at]
        self._fit_width()

    def begin_step(self) -> torch.Tensor:
        """Positions of the answers' next token, shape (places x answers, 1)."""
        if self.flash:
            self.of_prompts = self._spans(self.answer_count, self.width, self.lengths)
            self.of_answers = self._spans(1, self.room, (self.steps + 1).repeat_interleave(self.answer_count))
        return (self.lengths + self.steps).repeat_interleave(self.answer_count)[:, None]

    def _spans(self, queries: int, room: int, used: torch.Tensor) -> Spans:
        heads = next(iter(self.prompts.values()))[0].shape[1]
        sequences = torch.arange(len(used) + 1, dtype=torch.int32, device=used.device)
        return Spans(sequences * queries, queries, sequences * (heads * room), used)

    def add(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Those of one token of each answer."""
        at = torch.arange(len(self.steps), device=key.device)
        for room, new in zip(self.answers[layer], (key, value), strict=True):
            places, answers, heads, _, size = room.shape
            room[at, :, :, self.steps] = new.view(places, answers, heads, size).to(room.dtype)


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
    """Attention in transformers' interface; query has shape (1 or places x answers, heads, tokens, head size)."""
    layer = module.layer_idx
    if isinstance(kept, Reading):
        kept.layers[layer] = _to_keep(key[0].transpose(0, 1)), _to_keep(value[0].transpose(0, 1))
        if not kept.flash:
            return each_row_alone(query, key, value, kept.lengths, scaling, sliding_window), None
        return packed_rows(
            *(module, query, key, value, None),
            cu_seq_lens_q=kept.borders,
            max_length_q=max(kept.lengths),
            scaling=scaling,
            sliding_window=sliding_window,
        )
    kept.add(layer, key, value)
    if kept.flash and sliding_window is None:
        return _over_answers_by_flash(kept, layer, query, scaling), None
    return _over_answers(kept, layer, query, scaling, sliding_window), None


def _over_answers_by_flash(kept: Kept, layer: int, query: torch.Tensor, scaling: float) -> torch.Tensor:
    """Queries of one token of each answer, over its prompt and over what it has said, joined by the sums of their
    exponentials (Milakov and Gimelshein 2018, arXiv:1805.02867)."""
    assert kept.of_prompts is not None, "`begin_step` comes first"
    assert kept.of_answers is not None, "`begin_step` comes first"
    queries = query[:, :, 0]
    own_keys, own_values = (tensor.flatten(0, 1) for tensor in kept.answers[layer])
    over_prompt, of_prompt = _by_flash(queries, *kept.prompts[layer], kept.of_prompts, scaling)
    over_own, of_own = _by_flash(queries, own_keys, own_values, kept.of_answers, scaling)
    share = (of_prompt - of_own).sigmoid().transpose(0, 1)[..., None]
    return (over_own + (over_prompt - over_own) * share).to(query.dtype)[:, None]


def _by_flash(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spans: Spans, scaling: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output (queries, heads, head size) and logarithm of the sum of exponentials (heads, queries), in fp32.

    `varlen_attn`, which is public, learns to be told how many keys are used only in PyTorch 2.12.
    """
    output, log_sum_exp, *_ = torch.ops.aten._flash_attention_forward(
        queries,
        _one_after_another(keys),
        _one_after_another(values),
        spans.queries,
        spans.keys,
        spans.most_queries,
        keys.shape[2],
        0.0,
        False,
        False,
        scale=scaling,
        seqused_k=spans.used,
    )
    return output, log_sum_exp


def _one_after_another(kept: torch.Tensor) -> torch.Tensor:
    """(sequences, heads, room, size) as FlashAttention wants it, (tokens, heads, size), and nothing copied.

    A head's tokens are side by side, and so a sequence begins heads x room tokens after the one before it.
    """
    sequences, heads, room, size = kept.shape
    return kept.as_strided(((sequences - 1) * heads * room + room, heads, size), (size, room * size, 1))


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
    positions = torch.arange(kept.width, device=kept.lengths.device)
    seen = positions < kept.lengths[:, None]
    if sliding_window is not None:
        seen &= (kept.lengths + kept.steps)[:, None] - positions < sliding_window
    return seen


def _seen_of_answers(kept: Kept, sliding_window: int | None) -> torch.Tensor:
    """Shape (places, room)."""
    ago = kept.steps[:, None] - torch.arange(kept.room, device=kept.steps.device)
    return (ago >= 0) if sliding_window is None else (ago >= 0) & (ago < sliding_window)
