"""Attention over rows packed into one sequence, each seeing itself alone: by a kernel where the card has one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.modeling.attention import LONGEST_HEAD, each_row_alone, has_plain_attention, packed_rows, supports_flash

# Not "flash…": transformers would look for a kernel of that name on the hub.
KERNEL = "packed_rows"
ROW_BY_ROW = "row_by_row"
OURS = (KERNEL, ROW_BY_ROW)
LONGEST_HEAD_OF_CARDS_FOR_GAMERS = 192
"""The kernel's backward pass for longer ones needs more shared memory than they have."""


def use_best(model: Any) -> str:
    """Choose for `model`, and tell what was chosen.

    PyTorch's own FlashAttention for rows of different lengths, where model and card bear it; on a CPU each row by
    itself; else the attention that transformers chose, to which the rows' borders are a mask as large as the square of
    their joint length.
    """
    for name, function, bears in ((KERNEL, packed_rows, _bears_kernel), (ROW_BY_ROW, row_by_row, _bears_row_by_row)):
        if bears(model):
            ALL_ATTENTION_FUNCTIONS.register(name, function)
            model.set_attn_implementation(name)
            break
    return str(model.config._attn_implementation)


def options(model: Any, borders: torch.Tensor, longest_of_all: int) -> dict[str, Any]:
    """What our attention takes beside positions; nothing where the model has another.

    `borders`: where rows begin, and the end, shape (rows + 1,), int32. `longest_of_all`: tokens of the longest row of
    any batch.
    """
    if model.config._attn_implementation not in OURS:
        return {}
    # One number for all batches: a compiled model would be compiled anew for another.
    return {"cu_seq_lens_q": borders, "max_length_q": longest_of_all}


@contextmanager
def with_padding(model: Any) -> Iterator[None]:
    """Ours, for packed rows, does not bear it."""
    chosen = model.config._attn_implementation
    if chosen not in OURS:
        yield
        return
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    bare.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        bare.set_attn_implementation(chosen)


def row_by_row(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """`attention.packed_rows` without its kernel. On a CPU, where it is a loop over few rows.

    gemma3_270m, four rows of 210 tokens, forward and backward: 95 ms a layer; with a mask over all of them 346 ms (CPU
    time of one thread, AVX2).
    """
    lengths = cu_seq_lens_q.diff().tolist()
    return each_row_alone(query, key, value, lengths, scaling, sliding_window), None


def _bears_kernel(model: Any) -> bool:
    if _drops_out(model) or not torch.cuda.is_available():
        return False
    for_data_centres = torch.cuda.get_device_capability() in ((8, 0), (9, 0))
    return supports_flash(model, LONGEST_HEAD if for_data_centres else LONGEST_HEAD_OF_CARDS_FOR_GAMERS)


def _bears_row_by_row(model: Any) -> bool:
    """On a GPU a loop over rows would be launched, not computed."""
    return has_plain_attention(model) and not _drops_out(model) and not torch.cuda.is_available()


def _drops_out(model: Any) -> bool:
    """Whether attention itself has dropout, which neither of ours knows."""
    return bool(getattr(model.config.get_text_config(), "attention_dropout", 0.0))
