"""What a decoder computes beside its matrix products, each step in one kernel (Triton, which PyTorch for CUDA brings).

PyTorch's own kernels read and write the whole batch once for each addition and product. Roundings are those of
transformers' modules: what these round to the dtype of the model is rounded here, too.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from yoyak.inference.paged_cache import PAGE

PROMPT_TOKENS, OWN_TOKENS, QUERIES = 64, 16, 64
"""Of a prompt and of a candidate, keys that are looked at together, and of one prompt queries that look at them: fewer
where heads are long, for all must lie in the memory of a block."""


def rms_norm(
    norm: Any, hidden: torch.Tensor, residual: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """`hidden` (tokens, size) plus `residual`; and that normalised by transformers' module `norm`."""
    tokens, size = hidden.shape
    normed = torch.empty_like(hidden)
    total = hidden if residual is None else torch.empty_like(hidden)
    _rms_norm[tokens,](
        hidden,
        residual,
        norm.weight,
        total,
        normed,
        size,
        epsilon_of(norm),
        add=residual is not None,
        one_more=adds_one(norm),
        block=triton.next_power_of_2(size),
        num_warps=8 if size > 2048 else 4,
    )
    return total, normed


@triton.jit
def _rms_norm(
    hidden,
    residual,
    weight,
    total,
    normed,
    size,
    epsilon,
    add: tl.constexpr,
    one_more: tl.constexpr,
    block: tl.constexpr,
):
    column = tl.arange(0, block)
    inside = column < size
    at = tl.program_id(0).to(tl.int64) * size + column
    value = tl.load(hidden + at, mask=inside, other=0.0).to(tl.float32)
    dtype = normed.dtype.element_ty
    if add:
        value = (value + tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)).to(dtype)
        tl.store(total + at, value, mask=inside)
        value = value.to(tl.float32)
    scaled = value * tl.rsqrt(tl.sum(value * value) / size + epsilon)
    factor = tl.load(weight + column, mask=inside, other=0.0)
    tl.store(normed + at, _weighed(scaled, factor, dtype, one_more), mask=inside)


@triton.jit
def _weighed(scaled, factor, dtype: tl.constexpr, one_more: tl.constexpr):
    """Gemma multiplies by one more than its weights, in fp32; the others round before."""
    if one_more:
        return (scaled * (1.0 + factor.to(tl.float32))).to(dtype)
    return (factor.to(tl.float32) * scaled.to(dtype).to(tl.float32)).to(dtype)


def adds_one(norm: Any) -> bool:
    """Whether it is Gemma's, whose epsilon has another name, too."""
    return not hasattr(norm, "variance_epsilon")


def epsilon_of(norm: Any) -> float:
    return float(norm.eps if adds_one(norm) else norm.variance_epsilon)


def gated(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """The activation of `gate` times `up`, both (tokens, size), whose rows may lie apart."""
    tokens, size = gate.shape
    output = gate.new_empty(tokens, size)
    block = 1024
    grid = tokens, triton.cdiv(size, block)
    _gated[grid](gate, up, output, size, gate.stride(0), up.stride(0), silu=activation == "silu", block=block)
    return output


@triton.jit
def _gated(gate, up, output, size, gate_stride, up_stride, silu: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    inside = column < size
    value = tl.load(gate + row * gate_stride + column, mask=inside, other=0.0).to(tl.float32)
    if silu:
        active = value / (1.0 + tl.exp(-value))
    else:
        # tanh(x) = 2 * sigmoid(2 * x) - 1
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        active = value * tl.sigmoid(2.0 * inner)
    dtype = output.dtype.element_ty
    factor = tl.load(up + row * up_stride + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + row * size + column, (active.to(dtype).to(tl.float32) * factor).to(dtype), mask=inside)


def rotate_and_store(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    norms: tuple[Any, Any] | None,
    angles: tuple[torch.Tensor, torch.Tensor],
    pages: torch.Tensor,
    places: torch.Tensor,
) -> None:
    """Normalise queries and keys, turn them by their position, in place, and put keys and values into pages.

    Query, key and value: (tokens, heads, head size), whose tokens may lie apart. `angles`: cosines and sines, (tokens,
    head size). `pages`: (2, pages, heads, `PAGE`, head size); `places`: (tokens,), page x `PAGE` + token of the page.
    """
    tokens, heads, size = key.shape
    query_norm, key_norm = norms or (None, None)
    _rotate_and_store[tokens, heads](
        query,
        key,
        value,
        query_norm and query_norm.weight,
        key_norm and key_norm.weight,
        *angles,
        *pages,
        places,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        epsilon_of(query_norm) if query_norm else 0.0,
        norm=norms is not None,
        one_more=query_norm is not None and adds_one(query_norm),
        heads=heads,
        group=query.shape[1] // heads,
        size=size,
        page_size=PAGE,
        num_warps=1,
    )


@triton.jit
def _rotate_and_store(
    query,
    key,
    value,
    query_weight,
    key_weight,
    cosines,
    sines,
    key_pages,
    value_pages,
    places,
    query_stride,
    key_stride,
    value_stride,
    epsilon,
    norm: tl.constexpr,
    one_more: tl.constexpr,
    heads: tl.constexpr,
    group: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    middle: tl.constexpr = size // 2
    half = tl.arange(0, middle)
    cosine = tl.load(cosines + token * size + half).to(tl.float32)
    sine = tl.load(sines + token * size + half).to(tl.float32)
    for member in tl.static_range(group):
        at = query + token * query_stride + (head * group + member) * size
        left, right = _rotated(at, query_weight, cosine, sine, half, epsilon, norm, one_more, size)
        tl.store(at + half, left)
        tl.store(at + middle + half, right)
    at = key + token * key_stride + head * size
    left, right = _rotated(at, key_weight, cosine, sine, half, epsilon, norm, one_more, size)
    tl.store(at + half, left)
    tl.store(at + middle + half, right)
    place = tl.load(places + token).to(tl.int64)
    stored = ((place // page_size * heads + head) * page_size + place % page_size) * size
    tl.store(key_pages + stored + half, left)
    tl.store(key_pages + stored + middle + half, right)
    whole = tl.arange(0, size)
    tl.store(value_pages + stored + whole, tl.load(value + token * value_stride + head * size + whole))


@triton.jit
def _rotated(at, weight, cosine, sine, half, epsilon, norm: tl.constexpr, one_more: tl.constexpr, size: tl.constexpr):
    middle: tl.constexpr = size // 2
    dtype: tl.constexpr = at.dtype.element_ty
    left = tl.load(at + half).to(tl.float32)
    right = tl.load(at + middle + half).to(tl.float32)
    if norm:
        scale = tl.rsqrt((tl.sum(left * left) + tl.sum(right * right)) / size + epsilon)
        left = _weighed(left * scale, tl.load(weight + half), dtype, one_more).to(tl.float32)
        right = _weighed(right * scale, tl.load(weight + middle + half), dtype, one_more).to(tl.float32)
    turned_left = _product(left, cosine, dtype) - _product(right, sine, dtype)
    turned_right = _product(right, cosine, dtype) + _product(left, sine, dtype)
    return turned_left.to(dtype), turned_right.to(dtype)


@triton.jit
def _product(one, other, dtype: tl.constexpr):
    return (one * other).to(dtype).to(tl.float32)


def attend(
    query: torch.Tensor,
    pages: torch.Tensor,
    prompts: tuple[torch.Tensor, torch.Tensor],
    own: tuple[torch.Tensor, torch.Tensor],
    scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:
    """Attention of the newest token of each candidate over its prompt and over what it has generated.

    Query: (slots x candidates, heads, head size), whose candidates may lie apart; the output is of the same shape.
    `pages` as in `rotate_and_store`. `prompts`: tables of pages, (slots, most pages), and lengths, (slots,); `own`:
    tables, (slots x candidates, most pages), and the number of the newest token, (slots,): all in int32.

    A prompt's keys are read once for all of its candidates. The two parts are joined by the sums of their exponentials
    (Milakov and Gimelshein 2018, arXiv:1805.02867).
    """
    lanes, query_heads, size = query.shape
    heads, (slots, _) = pages.shape[2], prompts[0].shape
    candidates, group = lanes // slots, query_heads // heads
    over_prompts = query.new_empty((lanes, query_heads, size), dtype=torch.float32)
    log_sums = query.new_empty((lanes, query_heads), dtype=torch.float32)
    output = query.new_empty((lanes, query_heads, size))
    shape = {
        "candidates": candidates,
        "heads": heads,
        "group": group,
        "size": size,
        "page_size": PAGE,
        "window": sliding_window or 0,
    }
    prompt_tokens, most = blocks(size, query.itemsize)
    queries = min(most, triton.next_power_of_2(max(16, candidates * group)))
    grid = slots, heads, triton.cdiv(candidates * group, queries)
    _over_prompts[grid](
        *(query, *pages, *prompts, own[1], over_prompts, log_sums),
        *(scaling, query.stride(0), prompts[0].stride(0)),
        **shape,
        block_tokens=prompt_tokens,
        block_queries=queries,
        num_warps=4,
    )
    _over_own[lanes, heads](
        *(query, *pages, *own, over_prompts, log_sums, output),
        *(scaling, query.stride(0), own[0].stride(0)),
        **shape,
        block_tokens=OWN_TOKENS,
        block_queries=triton.next_power_of_2(max(16, group)),
        num_warps=1,
        num_stages=4,
    )
    return output


def blocks(size: int, bytes_a_value: int) -> tuple[int, int]:
    """How many keys of a prompt, and how many queries."""
    return min(PROMPT_TOKENS, 2**14 // (size * bytes_a_value)), min(QUERIES, 2**15 // (size * bytes_a_value))


@triton.jit
def _over_prompts(
    query,
    key_pages,
    value_pages,
    tables,
    lengths,
    newest,
    output,
    log_sums,
    scaling,
    query_stride,
    table_stride,
    candidates: tl.constexpr,
    heads: tl.constexpr,
    group: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
    window: tl.constexpr,
    block_tokens: tl.constexpr,
    block_queries: tl.constexpr,
):
    slot = tl.program_id(0)
    head = tl.program_id(1)
    line = tl.program_id(2) * block_queries + tl.arange(0, block_queries)
    inside = line < candidates * group
    lane = (slot * candidates + line // group).to(tl.int64)
    query_head = head * group + line % group
    along = tl.arange(0, size)
    at = lane[:, None] * query_stride + query_head[:, None] * size + along[None, :]
    queries = tl.load(query + at, mask=inside[:, None], other=0.0)
    length = tl.load(lengths + slot)
    # No further ahead than what lies before the window of the newest token.
    first = length + tl.load(newest + slot) - window + 1
    begin = 0
    if window > 0:
        begin = tl.maximum(first, 0) // block_tokens * block_tokens
    else:
        first = 0
    top = tl.full([block_queries], float("-inf"), tl.float32)
    total = tl.zeros([block_queries], tl.float32)
    sums = tl.zeros([block_queries, size], tl.float32)
    table = tables + slot.to(tl.int64) * table_stride
    for start in range(begin, length, block_tokens):
        token = start + tl.arange(0, block_tokens)
        seen = (token < length) & (token >= first)
        top, total, sums = _and_tokens(
            queries,
            key_pages,
            value_pages,
            table,
            token,
            seen,
            head,
            along,
            scaling,
            top,
            total,
            sums,
            heads,
            size,
            page_size,
        )
    known = total > 0
    result = sums / tl.where(known, total, 1.0)[:, None]
    row = lane * (heads * group) + query_head
    tl.store(output + row[:, None] * size + along[None, :], result, mask=inside[:, None])
    tl.store(log_sums + row, tl.where(known, top + tl.log(tl.where(known, total, 1.0)), float("-inf")), mask=inside)


@triton.jit
def _over_own(
    query,
    key_pages,
    value_pages,
    tables,
    newest,
    over_prompts,
    log_sums,
    output,
    scaling,
    query_stride,
    table_stride,
    candidates: tl.constexpr,
    heads: tl.constexpr,
    group: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
    window: tl.constexpr,
    block_tokens: tl.constexpr,
    block_queries: tl.constexpr,
):
    lane = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    line = tl.arange(0, block_queries)
    inside = line < group
    query_head = head * group + line
    along = tl.arange(0, size)
    at = lane * query_stride + query_head[:, None] * size + along[None, :]
    queries = tl.load(query + at, mask=inside[:, None], other=0.0)
    count = tl.load(newest + lane // candidates) + 1
    first = 0
    if window > 0:
        first = tl.maximum(count - window, 0)
    row = lane * (heads * group) + query_head
    # The prompt's part is where this one goes on from.
    top = tl.load(log_sums + row, mask=inside, other=float("-inf"))
    total = tl.where(top > float("-inf"), 1.0, 0.0)
    sums = tl.load(over_prompts + row[:, None] * size + along[None, :], mask=inside[:, None], other=0.0)
    table = tables + lane * table_stride
    for start in range(first // block_tokens * block_tokens, count, block_tokens):
        token = start + tl.arange(0, block_tokens)
        seen = (token < count) & (token >= first)
        top, total, sums = _and_tokens(
            queries,
            key_pages,
            value_pages,
            table,
            token,
            seen,
            head,
            along,
            scaling,
            top,
            total,
            sums,
            heads,
            size,
            page_size,
        )
    result = (sums / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + row[:, None] * size + along[None, :], result, mask=inside[:, None])


@triton.jit
def _and_tokens(
    queries,
    key_pages,
    value_pages,
    table,
    token,
    seen,
    head,
    along,
    scaling,
    top,
    total,
    sums,
    heads: tl.constexpr,
    size: tl.constexpr,
    page_size: tl.constexpr,
):
    """Maxima, sums of exponentials, and sums of values by these, with some more tokens looked at."""
    page = tl.load(table + token // page_size, mask=seen, other=0).to(tl.int64)
    at = ((page * heads + head) * page_size + token % page_size) * size
    keys = tl.load(key_pages + at[None, :] + along[:, None], mask=seen[None, :], other=0.0)
    scores = tl.dot(queries, keys, input_precision="ieee") * scaling
    scores = tl.where(seen[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    # Nothing seen so far: no difference of infinities.
    finite = tl.where(higher > float("-inf"), higher, 0.0)
    shares = tl.exp(scores - finite[:, None])
    decay = tl.exp(top - finite)
    values = tl.load(value_pages + at[:, None] + along[None, :], mask=seen[:, None], other=0.0)
    sums = sums * decay[:, None] + tl.dot(shares.to(values.dtype), values, input_precision="ieee")
    return higher, total * decay + tl.sum(shares, 1), sums


def log_sum_exp(logits: torch.Tensor) -> torch.Tensor:
    """In fp32, over the last dimension of `logits` (lines, vocabulary), which is read once."""
    lines, vocabulary = logits.shape
    output = logits.new_empty(lines, dtype=torch.float32)
    _log_sum_exp[lines,](logits, output, vocabulary, logits.stride(0), block=4096, num_warps=8)
    return output


@triton.jit
def _log_sum_exp(logits, output, vocabulary, stride, block: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    top = tl.full([block], float("-inf"), tl.float32)
    total = tl.zeros([block], tl.float32)
    for start in range(0, vocabulary, block):
        value = tl.load(logits + line * stride + start + column, mask=start + column < vocabulary, other=float("-inf"))
        value = value.to(tl.float32)
        higher = tl.maximum(top, value)
        finite = tl.where(higher > float("-inf"), higher, 0.0)
        total = total * tl.exp(top - finite) + tl.exp(value - finite)
        top = higher
    highest = tl.max(top)
    tl.store(output + line, highest + tl.log(tl.sum(total * tl.exp(top - highest))))


def maxima(blocks: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, a power of two: PyTorch's own reduction of so few values takes ten times as long."""
    size = blocks.shape[-1]
    count = blocks.numel() // size
    output = blocks.new_empty(blocks.shape[:-1])
    together = 4096 // size
    _maxima[triton.cdiv(count, together),](blocks, output, count, together=together, size=size, num_warps=4)
    return output


@triton.jit
def _maxima(blocks, output, count, together: tl.constexpr, size: tl.constexpr):
    block = tl.program_id(0).to(tl.int64) * together + tl.arange(0, together)
    inside = block < count
    at = block[:, None] * size + tl.arange(0, size)[None, :]
    values = tl.load(blocks + at, mask=inside[:, None], other=float("-inf"))
    tl.store(output + block, tl.max(values, 1), mask=inside)
