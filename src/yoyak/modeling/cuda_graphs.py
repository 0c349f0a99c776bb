"""What the host has a GPU do again and again, recorded once as a CUDA graph."""

from collections.abc import Callable

import torch


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
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = step()
            self._graph = graph, result
        graph, result = self._graph
        graph.replay()
        return result

    def forget(self) -> None:
        self._graph, self.changed = None, True
