"""Beams of a decoder-only model, whose prompts' keys and values are stored once for all beams."""

from typing import Any

import torch

from yoyak.inference.beam_cache import BeamCache, Step, as_bias, attention
from yoyak.inference.decoding import prefill
from yoyak.inference.shared_prefix import Prefill, shared_prefix
from yoyak.modeling.attention import supports_flash

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
    """A cache in a step, in which all layers of one window see the same."""

    def __init__(self, cache: BeamCache, ancestors: torch.Tensor) -> None:
        self.cache, self.ancestors = cache, ancestors
        self._biases: dict[int | None, torch.Tensor] = {}

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        if window not in self._biases:
            self._biases[window] = as_bias(self.cache.seen(self.ancestors, window), dtype)
        return self._biases[window]


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
    return attention(query, keys, values, kv_cache.bias(sliding_window, keys.dtype), scaling), None
