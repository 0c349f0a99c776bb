"""Attention of several candidates to each prompt, whose keys and values are stored once for all of them.

Prompts go through the model packed into one sequence (`Prefill`). Their keys and values are then copied into slots
(`KVCache`), and each candidate's next token attends to its prompt's and to its own.
"""

from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from yoyak.modeling.attention import each_row_alone, packed_rows
from yoyak.modeling.beam_cache import CAPACITY_STEP, SPARE_CAPACITY, Layers

NAME = "shared_prefix"


class Prefill:
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
    max_queries: int
    keys: torch.Tensor
    """Where its keys begin, shape (sequences + 1,), the last of no meaning."""
    used: torch.Tensor
    """How many there are, shape (sequences,)."""


class KVCache:
    """Keys and values of one model at all slots, layer by layer."""

    def __init__(self, slots: int, candidates: int, device: torch.device, flash: bool) -> None:
        self.candidate_count, self.flash = candidates, flash
        self.lengths = torch.zeros(slots, dtype=torch.int32, device=device)
        """Of prompts; 0 at an empty slot."""
        self.steps = torch.zeros(slots, dtype=torch.int32, device=device)
        """Number of the candidates' token that is looked at, at each slot."""
        self.prompts: Layers = {}
        """Shape (slots, heads, width, head size)."""
        self.candidates: Layers = {}
        """Shape (slots, candidates, heads, capacity, head size)."""
        self.of_prompts: Spans | None = None
        self.of_candidates: Spans | None = None

    @property
    def width(self) -> int:
        return next(iter(self.prompts.values()))[0].shape[2] if self.prompts else 0

    @property
    def capacity(self) -> int:
        return next(iter(self.candidates.values()))[0].shape[3] if self.candidates else 0

    def write_prompts(self, at: torch.Tensor, prefilled: Prefill) -> bool:
        """Put prompts at slots; whether anything had to be moved for it."""
        self._allocate(prefilled)
        lengths = torch.tensor(prefilled.lengths, device=at.device)
        self.lengths[at] = lengths.int()
        moved = self._fit_width()
        rows, columns = at.repeat_interleave(lengths), prefilled.positions
        for layer, pair in prefilled.layers.items():
            for stored, new in zip(self.prompts[layer], pair, strict=True):
                stored[rows, :, columns] = new
        return moved

    def _allocate(self, prefilled: Prefill) -> None:
        for layer, (keys, _) in prefilled.layers.items():
            if layer in self.prompts:
                return
            _, heads, size = keys.shape
            slots = len(self.lengths)
            none = keys.new_zeros((slots, heads, 0, size))
            self.prompts[layer] = none, none.clone()
            none = keys.new_zeros((slots, self.candidate_count, heads, 0, size))
            self.candidates[layer] = none, none.clone()

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

    def reserve(self, tokens: int) -> bool:
        """For so many tokens of each candidate, and not for many more; whether anything had to be moved for it."""
        needed = -(-tokens // CAPACITY_STEP) * CAPACITY_STEP
        if needed <= self.capacity <= max(2 * needed, SPARE_CAPACITY):
            return False
        more = (0, 0, 0, needed - self.capacity)
        for layer, (keys, values) in self.candidates.items():
            self.candidates[layer] = pad(keys, more), pad(values, more)
        return True

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.lengths, self.steps = self.lengths[at], self.steps[at]
        for layers in (self.prompts, self.candidates):
            for layer, (keys, values) in layers.items():
                layers[layer] = keys[at], values[at]
        self._fit_width()

    def next_positions(self) -> torch.Tensor:
        """Positions of the candidates' next token, shape (slots x candidates, 1)."""
        if self.flash:
            self.of_prompts = self._spans(self.candidate_count, self.width, self.lengths)
            self.of_candidates = self._spans(1, self.capacity, (self.steps + 1).repeat_interleave(self.candidate_count))
        return (self.lengths + self.steps).repeat_interleave(self.candidate_count)[:, None]

    def _spans(self, queries: int, capacity: int, used: torch.Tensor) -> Spans:
        heads = next(iter(self.prompts.values()))[0].shape[1]
        sequences = torch.arange(len(used) + 1, dtype=torch.int32, device=used.device)
        return Spans(sequences * queries, queries, sequences * (heads * capacity), used)

    def append(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Those of one token of each candidate."""
        at = torch.arange(len(self.steps), device=key.device)
        for stored, new in zip(self.candidates[layer], (key, value), strict=True):
            slots, candidates, heads, _, size = stored.shape
            stored[at, :, :, self.steps] = new.view(slots, candidates, heads, size).to(stored.dtype)


def shared_prefix(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    kv_cache: Prefill | KVCache,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (1 or slots x candidates, heads, tokens, head size)."""
    layer = module.layer_idx
    if isinstance(kv_cache, Prefill):
        kv_cache.layers[layer] = _to_keep(key[0].transpose(0, 1)), _to_keep(value[0].transpose(0, 1))
        if not kv_cache.flash:
            return each_row_alone(query, key, value, kv_cache.lengths, scaling, sliding_window), None
        return packed_rows(
            *(module, query, key, value, None),
            cu_seq_lens_q=kv_cache.borders,
            max_length_q=max(kv_cache.lengths),
            scaling=scaling,
            sliding_window=sliding_window,
        )
    kv_cache.append(layer, key, value)
    if kv_cache.flash and sliding_window is None:
        return _over_candidates_by_flash(kv_cache, layer, query, scaling), None
    return _over_candidates(kv_cache, layer, query, scaling, sliding_window), None


def _over_candidates_by_flash(cache: KVCache, layer: int, query: torch.Tensor, scaling: float) -> torch.Tensor:
    """Attention of one token of each candidate over its prompt and over its own tokens, joined by the sums of their
    exponentials (Milakov and Gimelshein 2018, arXiv:1805.02867)."""
    assert cache.of_prompts is not None, "`next_positions` comes first"
    assert cache.of_candidates is not None, "`next_positions` comes first"
    queries = query[:, :, 0]
    own_keys, own_values = (tensor.flatten(0, 1) for tensor in cache.candidates[layer])
    over_prompt, of_prompt = _by_flash(queries, *cache.prompts[layer], cache.of_prompts, scaling)
    over_own, of_own = _by_flash(queries, own_keys, own_values, cache.of_candidates, scaling)
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
        spans.max_queries,
        keys.shape[2],
        0.0,
        False,
        False,
        scale=scaling,
        seqused_k=spans.used,
    )
    return output, log_sum_exp


def _one_after_another(stored: torch.Tensor) -> torch.Tensor:
    """(sequences, heads, capacity, size) as FlashAttention wants it, (tokens, heads, size), and nothing copied.

    A head's tokens are side by side, and so a sequence begins heads x capacity tokens after the one before it.
    """
    sequences, heads, capacity, size = stored.shape
    return stored.as_strided(((sequences - 1) * heads * capacity + capacity, heads, size), (size, capacity * size, 1))


def _over_candidates(
    cache: KVCache, layer: int, query: torch.Tensor, scaling: float, sliding_window: int | None
) -> torch.Tensor:
    """Queries of one token of each candidate, over its prompt and over what it has generated.

    Heads that share a key are, like the candidates to one prompt, more queries over the same keys.
    """
    prompt_keys, prompt_values = cache.prompts[layer]
    candidate_keys, candidate_values = cache.candidates[layer]
    rows, candidates, heads, _, size = candidate_keys.shape
    group = query.shape[1] // heads
    queries = query.view(rows, candidates, heads, group, size) * scaling
    of_prompts = queries.transpose(1, 2).reshape(rows, heads, candidates * group, size)

    prompt_scores = _product(of_prompts, prompt_keys.transpose(-1, -2))
    prompt_scores = prompt_scores.masked_fill(~_seen_of_prompts(cache, sliding_window)[:, None, None], -torch.inf)
    prompt_scores = prompt_scores.view(rows, heads, candidates, group, -1).transpose(1, 2)
    candidate_scores = _product(queries, candidate_keys.transpose(-1, -2))
    unseen = ~_seen_of_candidates(cache, sliding_window)[:, None, None, None]
    candidate_scores = candidate_scores.masked_fill(unseen, -torch.inf)

    width = prompt_keys.shape[2]
    shares = torch.cat([prompt_scores, candidate_scores], -1).softmax(-1).to(query.dtype)
    of_prompts = shares[..., :width].transpose(1, 2).reshape(rows, heads, candidates * group, width)
    output = _product(of_prompts, prompt_values).view(rows, heads, candidates, group, size).transpose(1, 2)
    output = output + _product(shares[..., width:], candidate_values)
    return output.reshape(rows * candidates, 1, heads * group, size).to(query.dtype)


def _to_keep(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU multiplies bf16 into bf16; what is rounded there changes texts, and memory is plenty."""
    return tensor.float() if tensor.device.type == "cpu" else tensor


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Matrix products in fp32, as fused kernels sum them up."""
    if other.dtype == torch.float32:
        return one.float() @ other
    flat = torch.bmm(one.flatten(0, -3), other.flatten(0, -3), out_dtype=torch.float32)
    return flat.view(*one.shape[:-1], other.shape[-1])


def _seen_of_prompts(cache: KVCache, sliding_window: int | None) -> torch.Tensor:
    """Shape (slots, width)."""
    positions = torch.arange(cache.width, device=cache.lengths.device)
    seen = positions < cache.lengths[:, None]
    if sliding_window is not None:
        seen &= (cache.lengths + cache.steps)[:, None] - positions < sliding_window
    return seen


def _seen_of_candidates(cache: KVCache, sliding_window: int | None) -> torch.Tensor:
    """Shape (slots, capacity)."""
    ago = cache.steps[:, None] - torch.arange(cache.capacity, device=cache.steps.device)
    return (ago >= 0) if sliding_window is None else (ago >= 0) & (ago < sliding_window)
