"""Attention over rows packed into one sequence, each seeing itself alone: by a kernel where the card has one."""

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.models import has_plain_attention

# Not "flash…": transformers would look for a kernel of that name on the hub.
NAME = "packed_rows"


def use_best(model: Any) -> str:
    """Choose for `model`, and tell what was chosen.

    PyTorch's own FlashAttention for rows of different lengths, where model and card bear it; else the attention that
    transformers chose, to which the rows' borders are a mask as large as the square of their joint length.
    """
    if not _bears_packed_rows(model):
        return str(model.config._attn_implementation)
    ALL_ATTENTION_FUNCTIONS.register(NAME, packed_rows)
    model.set_attn_implementation(NAME)
    return str(model.config._attn_implementation)


def _bears_packed_rows(model: Any) -> bool:
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        has_plain_attention(model)
        and torch.cuda.is_available()
        and torch.cuda.get_device_capability() >= (8, 0)
        and model.dtype in (torch.bfloat16, torch.float16)
        # The kernel's backward pass for longer heads needs more shared memory than cards for gamers have.
        and head_size <= (256 if torch.cuda.get_device_capability() in ((8, 0), (9, 0)) else 192)
        and not getattr(config, "attention_dropout", 0.0)
    )


def packed_rows(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention in transformers' interface; query has shape (1, heads, tokens, head size).

    `cu_seq_lens_q`: where rows begin, and the end, shape (rows + 1,), int32. `max_length_q`: no row is longer.
    """
    from torch.nn.attention.varlen import varlen_attn

    # PyTorch 2.13 asks for a word where keys have fewer heads than queries; 2.11 does not know it.
    grouped: Any = {"enable_gqa": True} if torch.__version__ >= "2.12" else {}
    output: Any = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),
        **grouped,
    )
    return output.unsqueeze(0), None
