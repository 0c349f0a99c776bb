"""Keys and values in pages, as virtual memory has them (Kwon et al. 2023, arXiv:2309.06180).

Prompts and candidates take as many pages as they are long, so that those of many dialogues fit, none at the width of
the longest.
"""

from collections.abc import Sequence

import torch

from yoyak.core.gpu import sent

PAGE = 16
"""Tokens of a page."""


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE)


def _growing(tokens: Sequence[int]) -> list[int]:
    """Slots whose candidates' newest token begins a page."""
    return [slot for slot, count in enumerate(tokens) if count % PAGE == 1]


class PagedCache:
    """Of one model at all slots. A prompt's pages are there once for all of its candidates."""

    def __init__(
        self,
        pool: torch.Tensor,
        slots: int,
        candidates: int,
        longest_prompt: int,
        max_new_tokens: int,
    ) -> None:
        """`pool`: shape (layers, 2, pages, heads, `PAGE`, head size), keys first."""
        self.pool, device = pool, pool.device
        # Free slots write to this page, whose numbers must not be infinite.
        self.pool[:, :, 0] = 0
        self.free = list(range(1, pool.shape[2]))
        """Numbers of pages."""
        self.taken: list[list[int]] = [[] for _ in range(slots)]
        """By the slot that has them."""
        self.lengths = torch.zeros(slots, dtype=torch.int32, device=device)
        """Of prompts; 0 at a free slot."""
        self.newest = torch.zeros(slots, dtype=torch.int32, device=device)
        """Number of the candidates' token that is looked at, at each slot."""
        shape = slots, pages_for(longest_prompt)
        self.prompt_tables = torch.zeros(shape, dtype=torch.int32, device=device)
        """Pages of each prompt, in order."""
        self._own = torch.zeros((slots, candidates, pages_for(max_new_tokens)), dtype=torch.int32)
        self.own_tables = self._own.to(device)
        """Pages of each candidate, in order: as those of the host are when a step begins."""

    @property
    def candidates(self) -> int:
        return self.own_tables.shape[1]

    def room(self, prompts: Sequence[int]) -> int:
        """How many of the next prompts, of so many tokens each, there are pages for, with a first one for each of their
        candidates, and another for each of those that are in work."""
        left = len(self.free) - sum(map(bool, self.taken)) * self.candidates
        for number, length in enumerate(prompts):
            left -= pages_for(length) + self.candidates
            if left < 0:
                return number
        return len(prompts)

    def admit(self, slots: Sequence[int], prompts: Sequence[int]) -> torch.Tensor:
        """Give pages to prompts of so many tokens; the place of each of their tokens, one prompt after another, shape
        (tokens,)."""
        tables = torch.zeros((len(slots), self.prompt_tables.shape[1]), dtype=torch.int32)
        for line, (slot, length) in enumerate(zip(slots, prompts, strict=True)):
            tables[line, : pages_for(length)] = torch.tensor(self._take(slot, pages_for(length)))
        device = self.pool.device
        at, lengths = sent(slots, device), torch.tensor(prompts, dtype=torch.int32)
        self.prompt_tables[at], self.lengths[at] = sent(tables, device), sent(lengths, device)
        position = torch.cat([torch.arange(length) for length in prompts])
        page = tables[torch.arange(len(slots)).repeat_interleave(lengths), position // PAGE]
        return sent(page * PAGE + position % PAGE, device)

    def fits(self, tokens: Sequence[int]) -> bool:
        """Whether there are pages for `reserve`."""
        return len(_growing(tokens)) * self.candidates <= len(self.free)

    def reserve(self, tokens: Sequence[int]) -> None:
        """Pages for so many tokens of each candidate, at each slot: one more than at the last call."""
        growing = _growing(tokens)
        for slot in growing:
            pages = self._take(slot, self.candidates)
            self._own[slot, :, tokens[slot] // PAGE] = torch.tensor(pages, dtype=torch.int32)
        if growing:
            self.own_tables.copy_(sent(self._own, self.pool.device))

    def _take(self, slot: int, count: int) -> list[int]:
        pages = [self.free.pop() for _ in range(count)]
        self.taken[slot] += pages
        return pages

    def places_of_newest(self) -> torch.Tensor:
        """Where the newest token of each candidate is kept, shape (slots x candidates,)."""
        column = (self.newest // PAGE)[:, None, None].expand(-1, self.candidates, 1).long()
        page = self.own_tables.gather(2, column)[..., 0]
        return (page * PAGE + (self.newest % PAGE)[:, None]).flatten()

    def release(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self.free += self.taken[slot]
            self.taken[slot] = []
            self._own[slot] = 0
        at = sent(slots, self.pool.device)
        self.lengths[at], self.prompt_tables[at], self.own_tables[at] = 0, 0, 0

    def select(self, slots: Sequence[int]) -> None:
        """Forget all slots but these."""
        at = sent(slots, self.pool.device)
        self.taken = [self.taken[slot] for slot in slots]
        self.lengths, self.newest = self.lengths[at], self.newest[at]
        self.prompt_tables, self.own_tables = self.prompt_tables[at], self.own_tables[at]
        self._own = self._own[list(slots)]
