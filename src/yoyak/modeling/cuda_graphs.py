"""What the host has a GPU do again and again, recorded once as a CUDA graph."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from yoyak.core import gpu


class GraphedStep:
    """A step as a CUDA graph.

    It is a thousand small kernels, and launching them takes the host several times as long as a GPU computes. So the
    second step after a change of shape is recorded, and those after it launch the record. Nothing in a step may wait
    for the GPU or come from elsewhere than tensors that stay where they are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.changed = True
        """Whether tensors were moved: a graph is of tensors at their addresses."""
        self._graph: tuple[torch.cuda.CUDAGraph, torch.Tensor] | None = None

    def __call__(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What the step returns; overwritten by the next call."""
        if self.changed or self.device.type == "cpu":
            self.forget()
            self.changed = False
            return step()
        if self._graph is None:
            self._graph = recorded(step)
        graph, result = self._graph
        graph.replay()
        return result

    def forget(self) -> None:
        self._graph, self.changed = None, True


def recorded(step: Callable[[], torch.Tensor], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """The step, and what it returns. PyTorch's own way would give all memory that is held in reserve back each time.

    `pool`: of memory, for graphs of which none runs while another does.
    """
    gpu.make_room_to_record()
    graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(now)
    with torch.cuda.stream(stream):
        graph.capture_begin(pool=pool)
        try:
            result = step()
        except BaseException:
            # What broke the recording is to be told, not that it is broken.
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    now.wait_stream(stream)
    return graph, result
