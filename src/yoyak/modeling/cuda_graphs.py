"""What the host has a GPU do again and again, recorded once as a CUDA graph."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from yoyak.core import gpu

Step = Callable[[], torch.Tensor]
Recording = tuple[torch.cuda.CUDAGraph, torch.Tensor]


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
        self._graph: Recording | None = None

    def __call__(self, step: Step) -> torch.Tensor:
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


def recorded(step: Step, pool: Any = None, stream: torch.cuda.Stream | None = None) -> Recording:
    """The step's graph, and what it returns. PyTorch's own way would give all memory that is held in reserve back.

    `pool`, `stream`: of graphs that share memory, for none of them runs while another does. PyTorch gives what one
    stream has freed to none but that stream.
    """
    gpu.make_room_to_record()
    graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    stream = stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
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


class SharedMemory:
    """Memory for graphs of which none runs while another does, and for the same steps before they are recorded.

    It is taken in one piece: PyTorch joins no pieces, and each larger step would take new ones beside those of the
    smaller steps.
    """

    def __init__(self, size: int) -> None:
        """`size`: bytes of the largest step, about; more are taken where it needs more."""
        self.id = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        # As long as there is a graph of the pool, there is the pool.
        self._keeper, _ = self.record(lambda: torch.zeros((), device="cuda"))
        torch.cuda.empty_cache()
        self.run(lambda: torch.empty(size, dtype=torch.uint8, device="cuda")[:0])

    def run(self, step: Step) -> torch.Tensor:
        """Without recording. Of what the step makes, only what it returns may stay."""
        # While a pool is in use, PyTorch gives nothing back that it holds elsewhere.
        gpu.make_room_to_record()
        now = torch.cuda.current_stream()
        self._stream.wait_stream(now)
        # Of a `MemPool` only its id is asked; one of PyTorch's own ends the process where graphs outlive it.
        pool: Any = self
        # A backward pass in another thread would take its memory elsewhere.
        backward_here = torch.autograd.set_multithreading_enabled(False)
        try:
            with torch.cuda.stream(self._stream), torch.cuda.use_mem_pool(pool), backward_here:
                result = step()
        finally:
            now.wait_stream(self._stream)
        # Any graph may write over it.
        return result.clone()

    def record(self, step: Step) -> Recording:
        return recorded(step, self.id, self._stream)
