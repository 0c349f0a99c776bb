"""Beams of a decoder-only model, whose prompts' keys and values are stored once for all beams."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from yoyak.inference.forward import prefill
from yoyak.inference.shared_prefix import Prefill, shared_prefix
from yoyak.modeling.attention import supports_flash
from yoyak.modeling.beam_cache import BeamCache, Step, as_bias

NAME = "beams"


class DecoderOnly:
    """A model of a family that `has_plain_attention` knows, which computes attention by `over_beams` meanwhile."""

    def __init__(self, model: Any, slots: int, beams: int) -> None:
        self.model, self.flash = model, supports_flash(model)
        self.cache = BeamCache(slots, beams, model.device)

    def read(self, at: torch.Tensor, prompts: list[list[int]]) -> tuple[torch.Tensor, bool]:
        """Logits after prompts (prompts, vocabulary), which are put at slots; whether anything was moved for it."""
        prefilled, logits = prefill(self.model, prompts, self.flash)
        return logits, self.cache.write_prompts(at, prefilled.lengths, prefilled.layers)

    def after(self, step: Step) -> torch.Tensor:
        """Logits (slots, beams, vocabulary)."""
        positions = self.cache.begin(step.number).expand_as(step.tokens)
        output = self.model(
            input_ids=step.tokens, position_ids=positions, use_cache=False, kv_cache=Seen(self.cache, step.ancestors)
        )
        logits: torch.Tensor = output.logits
        return logits

    def reserve(self, tokens: int) -> bool:
        return self.cache.reserve(tokens)

    def forget(self, at: torch.Tensor) -> None:
        """Prompts at slots."""
        self.cache.lengths[at] = 0

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.cache.select(at)


class Seen:
    """A cache in a step, in which all layers of one window see the same: what they add to scores is made once."""

    def __init__(self, cache: BeamCache, ancestors: torch.Tensor) -> None:
        self.cache, self.ancestors = cache, ancestors
        self._biases: dict[tuple[int | None, int], torch.Tensor] = {}

    def bias(self, window: int | None, group: int, dtype: torch.dtype) -> torch.Tensor:
        """Shape (slots, 1, group x beams, keys)."""
        if (window, group) not in self._biases:
            seen = self.cache.seen(self.ancestors, window)
            self._biases[window, group] = as_bias(seen.repeat(1, 1, group, 1), dtype)
        return self._biases[window, group]


def over_beams(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    kv_cache: Prefill | Seen,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (1 or slots, heads, tokens or beams, head size)."""
    if isinstance(kv_cache, Prefill):
        return shared_prefix(
            module, query, key, value, None, kv_cache=kv_cache, scaling=scaling, sliding_window=sliding_window
        )
    keys, values = kv_cache.cache.update(key, value, module.layer_idx)
    slots, heads, beams, size = query.shape
    # Heads that share a key are, like the beams, more queries over it.
    group = heads // keys.shape[1]
    queries = query.reshape(slots, keys.shape[1], group * beams, size).to(keys.dtype)
    bias = kv_cache.bias(sliding_window, group, keys.dtype)
    output = scaled_dot_product_attention(queries, keys, values, attn_mask=bias, scale=scaling)
    return output.reshape(slots, heads, beams, size).transpose(1, 2).to(query.dtype), None
