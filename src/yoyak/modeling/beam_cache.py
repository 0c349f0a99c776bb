"""Keys and values of beams, of which none is ever moved: what beams exchange is their `ancestors`.

A beam goes on from another one's past. Instead of copying that past, a dialogue's beams look at the tokens of all of
them, and a mask leaves each its own: a key is read once for all beams, as a prompt's is.
"""

from typing import NamedTuple

import torch

CAPACITY_STEP = 64
"""Tokens by which the capacity for candidates grows."""
SPARE_CAPACITY = 256
"""Tokens of capacity that are never released: the next long candidate would need them again."""
Layers = dict[int, tuple[torch.Tensor, torch.Tensor]]
"""Keys and values, by the number of the layer."""
ALIGNMENT = 8
"""Keys come in multiples of it: PyTorch's kernel copies masks of other widths."""


class Step(NamedTuple):
    """One more token of each beam."""

    tokens: torch.Tensor
    """Shape (slots, beams)."""
    number: torch.Tensor
    """Of that token among a beam's own, at each slot, shape (slots,)."""
    ancestors: torch.Tensor
    """At which beam's place each beam's token of a number is stored, shape (slots, beams, at least the capacity)."""


def aligned(tokens: int) -> int:
    return -(-tokens // ALIGNMENT) * ALIGNMENT


def as_bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores: 0 where `seen` is true, else minus infinity."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


class BeamCache:
    """Of one model's attention to itself, at all slots, layer by layer: first what the beams of a slot all begin with,
    its prompt, then tokens of their own, all beams' tokens of one number side by side."""

    def __init__(self, slots: int, beams: int, device: torch.device) -> None:
        self.beams = beams
        self.lengths = torch.zeros(slots, dtype=torch.long, device=device)
        """Of prompts; 0 at an empty slot."""
        self.width, self.capacity = 0, 0
        """Tokens of a prompt and of a beam for which there is room."""
        self.layers: Layers = {}
        """Shape (slots, heads, width + capacity x beams, head size)."""
        self._number = self._columns = self.lengths

    def write_prompts(self, at: torch.Tensor, lengths: list[int], layers: Layers) -> bool:
        """Put prompts at slots; whether anything had to be moved for it.

        `layers` hold the tokens of one prompt after the other, shape (tokens, heads, head size).
        """
        if not self.layers:
            self._allocate(layers)
        counts = torch.tensor(lengths, device=at.device)
        self.lengths[at] = counts
        moved = self._fit_width()
        rows = at.repeat_interleave(counts)
        columns = torch.cat([torch.arange(length) for length in lengths]).to(at.device)
        for layer, pair in layers.items():
            for stored, new in zip(self.layers[layer], pair, strict=True):
                stored[rows, :, columns] = new
        return moved

    def _allocate(self, layers: Layers) -> None:
        for layer, (keys, _) in layers.items():
            _, heads, size = keys.shape
            none = keys.new_zeros((len(self.lengths), heads, 0, size))
            self.layers[layer] = none, none.clone()

    def _fit_width(self) -> bool:
        """Wide enough, and not twice as wide as it must be; whether anything was moved."""
        needed = aligned(max(1, int(self.lengths.max())))
        if needed <= self.width < 2 * needed:
            return False
        self._resize(needed, self.capacity)
        return True

    def reserve(self, tokens: int) -> bool:
        """For so many tokens of each beam, and not for many more; whether anything had to be moved for it."""
        needed = -(-tokens // CAPACITY_STEP) * CAPACITY_STEP
        if needed <= self.capacity <= max(2 * needed, SPARE_CAPACITY):
            return False
        self._resize(self.width, needed)
        return True

    def _resize(self, width: int, capacity: int) -> None:
        prompt, own = min(width, self.width), min(capacity, self.capacity) * self.beams
        for layer, pair in self.layers.items():
            resized = []
            for old in pair:
                slots, heads, _, size = old.shape
                # Zeros: what is not seen counts nothing only if it is a number.
                new = old.new_zeros((slots, heads, width + capacity * self.beams, size))
                new[:, :, :prompt] = old[:, :, :prompt]
                new[:, :, width : width + own] = old[:, :, self.width : self.width + own]
                resized.append(new)
            self.layers[layer] = resized[0], resized[1]
        self.width, self.capacity = width, capacity

    def select(self, at: torch.Tensor) -> None:
        """Forget all slots but these."""
        self.lengths = self.lengths[at]
        self.layers = {layer: (keys[at], values[at]) for layer, (keys, values) in self.layers.items()}
        self._fit_width()

    def begin(self, number: torch.Tensor) -> torch.Tensor:
        """The next `update` of each layer is of token `number` (slots,); its positions, shape (slots, 1)."""
        beams = torch.arange(self.beams, device=number.device)
        self._number, self._columns = number, self.width + number[:, None] * self.beams + beams
        return (self.lengths + number)[:, None]

    def update(self, key: torch.Tensor, value: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of the layer, with those of one more token of each beam: (slots, heads, beams, size)."""
        at = torch.arange(len(self.lengths), device=key.device)[:, None]
        for stored, new in zip(self.layers[layer], (key, value), strict=True):
            stored[at, :, self._columns] = new.transpose(1, 2).to(stored.dtype)
        return self.layers[layer]

    def seen(self, ancestors: torch.Tensor, window: int | None = None) -> torch.Tensor:
        """Which keys each beam's token sees, itself and those before it, shape (slots, 1, beams, keys); `window`: no
        farther than that."""
        prompt = torch.arange(self.width, device=ancestors.device) < self.lengths[:, None]
        number = torch.arange(self.capacity, device=ancestors.device)
        own = number <= self._number[:, None]
        if window is not None:
            ago = self.ago()
            prompt &= ago[:, : self.width] < window
            own &= self._number[:, None] - number < window
        beams = torch.arange(self.beams, device=ancestors.device)
        mine = (ancestors[:, :, : self.capacity, None] == beams) & own[:, None, :, None]
        return torch.cat([prompt[:, None].expand(-1, self.beams, -1), mine.flatten(2)], -1)[:, None]

    def ago(self) -> torch.Tensor:
        """How many tokens ago each key's is, shape (slots, keys); without meaning where it is not seen."""
        prompt = (self.lengths + self._number)[:, None] - torch.arange(self.width, device=self.lengths.device)
        own = self._number[:, None] - torch.arange(self.capacity, device=self.lengths.device)
        return torch.cat([prompt, own.repeat_interleave(self.beams, 1)], -1)
