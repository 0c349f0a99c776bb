"""Causal attention over rows packed into one sequence, each seeing itself alone.

By PyTorch's FlashAttention for rows of different lengths, where model and card bear it, or row by row.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

LONGEST_HEAD = 256


def supports_flash(model: Any, longest_head: int = LONGEST_HEAD) -> bool:
    """Whether the kernel computes what the model's own attention does, on this card and in the model's dtype."""
    if not has_plain_attention(model):
        return False
    config = model.config.get_text_config()
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (
        torch.cuda.is_available()
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability() >= (8, 0)
        and model.dtype in (torch.bfloat16, torch.float16)
        and head_size % 8 == 0
        and head_size <= longest_head
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


def each_row_alone(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: list[int],
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """The same without the kernel, row by row: no padding, and no mask as large as the square of the joint length.

    `lengths`: tokens of each row. Query has shape (1, heads, tokens, head size), the output (1, tokens, heads, head
    size).
    """
    outputs = []
    rows = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
    for one, keys, values in zip(*rows, strict=True):
        length, grouped = one.shape[2], one.shape[1] != keys.shape[1]
        mask = _window(length, sliding_window, one.device) if sliding_window and sliding_window < length else None
        output = scaled_dot_product_attention(
            one, keys, values, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
        outputs.append(output)
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _window(length: int, sliding_window: int, device: torch.device) -> torch.Tensor:
    """True where a token (line) sees another (column)."""
    return torch.ones((length, length), dtype=torch.bool, device=device).tril().triu(1 - sliding_window)


def has_plain_attention(model: Any) -> bool:
    """Causal softmax, over a window perhaps, and nothing else: what this module and `shared_prefix` compute. Other
    families may look ahead, or have sinks; tests hold these four to transformers' own."""
    config = model.config.get_text_config()
    return (
        config.model_type in ("llama", "qwen2", "qwen3", "gemma3_text")
        and not getattr(config, "attn_logit_softcapping", None)
        and not getattr(config, "use_bidirectional_attention", False)
    )
