"""What of a GPU's memory is free, by the figures that PyTorch would tell."""

import pytest
import torch

from yoyak.core import gpu


class Figures:
    """A card of 100 bytes, of which others have 10; the process may have half, and holds 30, 8 of them for nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reserved, self.allocated, self.holes, self.emptied = 30, 22, 3, 0
        figures = {
            "mem_get_info": lambda: (90 - self.reserved, 100),
            "memory_reserved": lambda: self.reserved,
            "memory_allocated": lambda: self.allocated,
            "get_per_process_memory_fraction": lambda: 0.5,
            "empty_cache": self.empty,
        }
        for name, figure in figures.items():
            monkeypatch.setattr(torch.cuda, name, figure)

    def empty(self) -> None:
        self.reserved, self.emptied = self.allocated + self.holes, self.emptied + 1


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Figures:
    return Figures(monkeypatch)


def test_what_is_held_in_reserve_is_free_and_holes_are_for_small_tensors(figures: Figures) -> None:
    assert gpu.free_memory() == 28
    assert gpu.memory_in_one_piece() == 25
    assert figures.emptied == 1


def test_a_graph_finds_as_much_memory_as_the_step_before_it_took(figures: Figures) -> None:
    gpu.make_room_to_record()
    assert figures.emptied == 0
    figures.reserved = 45
    gpu.make_room_to_record()
    assert (figures.emptied, figures.reserved) == (1, 25)
