"""A model's forward pass with the keys and values that it keeps of prompts and candidates, each prompt at its slot."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from yoyak.core import gpu
from yoyak.inference.fused import FusedDecoder, supports_fused
from yoyak.inference.paged_cache import PagedCache, pages_for
from yoyak.inference.shared_prefix import KVCache, Prefill
from yoyak.modeling.attention import supports_flash

MAX_PREFILL_TOKENS = 8_192
"""Most prompt tokens that go through a model at once: a constant, so that texts do not depend on the machine."""
PREFILL_SHARE = 4
"""A quarter of the slots is prefilled at once: fewer would be slow, and more would wait empty for each other."""
EXPECTED_TOKENS = 128
"""Of a candidate: what pages are counted by. Where candidates grow longer, fewer prompts are in work."""


POOL_SHARE = 0.9
"""Of the memory that is free beside activations: the rest is for what lies between them."""


class Forward(Protocol):
    """What decoding asks of a model."""

    def room(self, prompts: Sequence[list[int]]) -> int:
        """How many of the next prompts there is memory for."""

    def prefill(self, slots: list[int], prompts: Sequence[list[int]]) -> tuple[torch.Tensor, bool]:
        """Logits after each prompt, (prompts, vocabulary), which get these slots; whether tensors had to be moved."""

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether there is memory for so many tokens of each candidate, at each slot."""

    def reserve(self, tokens: Sequence[int]) -> bool:
        """Take it; whether tensors had to be moved."""

    def step(self, tokens: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        """Logits (slots, candidates, vocabulary) after `tokens` (slots, candidates), each candidate's token number
        `newest` (slots,). It is recorded as a CUDA graph."""

    def release(self, slots: list[int]) -> None:
        """The prompts at these slots are done."""

    def select(self, slots: list[int]) -> None:
        """Forget all slots but these."""


class PlainForward:
    """By transformers' modules: on a CPU, and where `supports_fused` says no."""

    def __init__(self, model: Any, slots: int, candidates: int) -> None:
        self.model = model
        self.cache = KVCache(slots, candidates, model.device, supports_flash(model))

    def room(self, prompts: Sequence[list[int]]) -> int:
        return len(prompts)

    def prefill(self, slots: list[int], prompts: Sequence[list[int]]) -> tuple[torch.Tensor, bool]:
        prefilled, logits = prefill(self.model, prompts, self.cache.flash)
        return logits, self.cache.write_prompts(gpu.sent(slots, logits.device), prefilled)

    def fits(self, tokens: Sequence[int]) -> bool:
        return True

    def reserve(self, tokens: Sequence[int]) -> bool:
        return self.cache.reserve(max(tokens))

    def step(self, tokens: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        return decode_step(self.model, self.cache, tokens, newest)

    def release(self, slots: list[int]) -> None:
        self.cache.lengths[gpu.sent(slots, self.cache.lengths.device)] = 0

    def select(self, slots: list[int]) -> None:
        self.cache.select(gpu.sent(slots, self.cache.lengths.device))


def prefill(model: Any, prompts: Sequence[list[int]], flash: bool) -> tuple[Prefill, torch.Tensor]:
    """With the logits after each prompt, shape (prompts, vocabulary)."""
    prompt_cache = Prefill([len(prompt) for prompt in prompts], model.device, flash)
    output = model(
        input_ids=torch.tensor([[token for prompt in prompts for token in prompt]], device=model.device),
        position_ids=prompt_cache.positions[None],
        use_cache=False,
        logits_to_keep=prompt_cache.borders[1:] - 1,
        kv_cache=prompt_cache,
    )
    return prompt_cache, output.logits[0]


def decode_step(model: Any, cache: KVCache, tokens: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Logits (slots, candidates, vocabulary) after `tokens` (slots, candidates), each candidate's token number `steps`
    (slots,)."""
    cache.steps.copy_(steps)
    output = model(
        input_ids=tokens.reshape(-1, 1), position_ids=cache.next_positions(), use_cache=False, kv_cache=cache
    )
    logits: torch.Tensor = output.logits
    return logits.view(*tokens.shape, -1)


class FusedForward:
    """By fused kernels, over pages."""

    def __init__(self, decoder: FusedDecoder, cache: PagedCache) -> None:
        self.decoder, self.cache = decoder, cache

    def room(self, prompts: Sequence[list[int]]) -> int:
        return self.cache.room([len(prompt) for prompt in prompts])

    def prefill(self, slots: list[int], prompts: Sequence[list[int]]) -> tuple[torch.Tensor, bool]:
        places = self.cache.admit(slots, [len(prompt) for prompt in prompts])
        return self.decoder.prefill(prompts, places, self.cache.pool), False

    def fits(self, tokens: Sequence[int]) -> bool:
        return self.cache.fits(tokens)

    def reserve(self, tokens: Sequence[int]) -> bool:
        self.cache.reserve(tokens)
        return False

    def step(self, tokens: torch.Tensor, newest: torch.Tensor) -> torch.Tensor:
        return self.decoder.step(tokens, newest, self.cache)

    def release(self, slots: list[int]) -> None:
        self.cache.release(slots)

    def select(self, slots: list[int]) -> None:
        self.cache.select(slots)


def forwards_of(
    models: Sequence[Any], slots: int, candidates: int, max_new_tokens: int, prompts: Sequence[Sequence[list[int]]]
) -> Sequence[Forward]:
    """Of each of the models, which have the `prompts` in their own forms."""
    if not all(map(supports_fused, models)):
        return [PlainForward(model, slots, candidates) for model in models]
    decoders = [FusedDecoder(model) for model in models]
    lengths = [sorted(map(len, form), reverse=True)[:slots] for form in prompts]
    own = candidates * pages_for(min(EXPECTED_TOKENS, max_new_tokens))
    wanted = [1 + sum(map(pages_for, longest)) + slots * own for longest in lengths]
    least = [1 + pages_for(longest[0]) + candidates * pages_for(max_new_tokens) for longest in lengths]
    prefilled = [min(MAX_PREFILL_TOKENS, max(1, slots // PREFILL_SHARE) * longest[0]) for longest in lengths]
    bytes_wanted = sum(count * decoder.page_bytes for count, decoder in zip(wanted, decoders, strict=True))
    activations = sum(
        decoder.activation_bytes(tokens, slots * candidates)
        for decoder, tokens in zip(decoders, prefilled, strict=True)
    )
    share = POOL_SHARE * (gpu.free_memory() - activations) / bytes_wanted
    if share < 1:
        # Joined weights have left holes behind, of half of their size and more.
        share = POOL_SHARE * (gpu.memory_in_one_piece() - activations) / bytes_wanted
    pages = [max(enough, int(min(share, 1.0) * count)) for enough, count in zip(least, wanted, strict=True)]
    return [
        FusedForward(decoder, PagedCache(decoder.pool(count), slots, candidates, longest[0], max_new_tokens))
        for decoder, count, longest in zip(decoders, pages, lengths, strict=True)
    ]
