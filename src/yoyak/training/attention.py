"""Attention over rows packed into one sequence, each seeing itself alone: by a kernel where the card has one."""

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.attention import LONGEST_HEAD, bears_flash, packed_rows

# Not "flash…": transformers would look for a kernel of that name on the hub.
NAME = "packed_rows"
LONGEST_HEAD_OF_CARDS_FOR_GAMERS = 192
"""The kernel's backward pass for longer ones needs more shared memory than they have."""


def use_best(model: Any) -> str:
    """Choose for `model`, and tell what was chosen.

    PyTorch's own FlashAttention for rows of different lengths, where model and card bear it; else the attention that
    transformers chose, to which the rows' borders are a mask as large as the square of their joint length.
    """
    if _bears_packed_rows(model):
        ALL_ATTENTION_FUNCTIONS.register(NAME, packed_rows)
        model.set_attn_implementation(NAME)
    return str(model.config._attn_implementation)


def _bears_packed_rows(model: Any) -> bool:
    if getattr(model.config.get_text_config(), "attention_dropout", 0.0) or not torch.cuda.is_available():
        return False
    for_data_centres = torch.cuda.get_device_capability() in ((8, 0), (9, 0))
    return bears_flash(model, LONGEST_HEAD if for_data_centres else LONGEST_HEAD_OF_CARDS_FOR_GAMERS)
