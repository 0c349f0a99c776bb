"""Forward and backward passes as CUDA graphs, where they are so short that a GPU would wait for its host."""

from collections.abc import Callable
from typing import Any

import torch

from yoyak.core import gpu
from yoyak.modeling.cuda_graphs import SharedMemory

Inputs = dict[str, torch.Tensor]
Run = Callable[[Inputs], torch.Tensor]
"""A forward and a backward pass, whose loss it returns. Nothing in it may wait for the GPU."""
Shapes = tuple[tuple[str, torch.Size], ...]
MOST_GRAPHED_TOKENS = 8192
"""Of a pass: more keep a GPU busy for longer than the host takes to launch its kernels, and their graph much memory."""
SHARE = 0.85
"""Of what seems free: less may be left in one piece."""


class GraphedPasses:
    """A pass over inputs of a shape that comes a second time is recorded, and from then on launched as a whole.

    A pass is thousands of small kernels, and PyTorch launches them one by one in more time than a GPU takes for eight
    dialogues. Dropout draws as it would without graphs.
    """

    def __init__(self, model: Any, most: Callable[[], int]) -> None:
        """`most`: bytes that the largest pass takes, about, once that is known."""
        self.model, self.most = model, most
        self.on = True
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        """Where they always are: a graph is of tensors at their addresses."""
        self._bytes: dict[Shapes, int] = {}
        """Of memory that a pass takes."""
        self._recorded: dict[Shapes, Recorded] = {}
        self._memory: SharedMemory | None = None
        """Of all graphs, once there is one."""

    def __call__(self, run: Run, inputs: Inputs) -> torch.Tensor:
        """The loss; gradients are added to those that are there."""
        if not self.on:
            return run(inputs)
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        if shapes in self._recorded:
            return self._recorded[shapes](inputs)
        if shapes not in self._bytes:
            return self._first(run, inputs, shapes)
        if self._bytes[shapes] > SHARE * gpu.free_memory():
            return run(inputs)
        assert self._memory is not None, "the first pass of these shapes has made it"
        self._recorded[shapes] = Recorded(run, inputs, self._memory)
        return self._recorded[shapes](inputs)

    def _first(self, run: Run, inputs: Inputs, shapes: Shapes) -> torch.Tensor:
        """A pass that loads kernels, or compiles them, and shows how much memory it takes."""
        if self._memory is None:
            self._memory = SharedMemory(min(self.most(), int(SHARE * gpu.free_memory())))
        gpu.reset_peak_memory()
        before = torch.cuda.memory_allocated()
        loss = self._memory.run(lambda: run(inputs))
        self._bytes[shapes] = torch.cuda.max_memory_allocated() - before
        if not self._gradients:
            grown = {weight: weight.grad for weight in self.model.parameters()}
            self._gradients = {weight: gradient for weight, gradient in grown.items() if gradient is not None}
        return loss

    def give_up(self) -> bool:
        """No more graphs, for their memory is wanted; whether they had any."""
        self.on = False
        return self.forget()

    def forget(self) -> bool:
        """Let go of all graphs, and of their memory; whether they had any."""
        had_any = self._memory is not None
        for each in (self._recorded, self._gradients, self._bytes):
            each.clear()
        self._memory = None
        return had_any

    def put_gradients_in_place(self) -> None:
        """Before each pass, recorded or not: where a step begins they are not there, for the trainer has dropped them,
        and a pass that is not recorded would make others, which graphs know nothing of."""
        if self._gradients and all(weight.grad is None for weight in self._gradients):
            torch._foreach_zero_(list(self._gradients.values()))
            for weight, gradient in self._gradients.items():
                weight.grad = gradient


class Recorded:
    """A pass over inputs of one shape."""

    def __init__(self, run: Run, inputs: Inputs, memory: SharedMemory) -> None:
        self.inputs = {name: tensor.clone() for name, tensor in inputs.items()}
        self.graph, self.loss = memory.record(lambda: run(dict(self.inputs)))

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor)
        self.graph.replay()
        # The next graph writes over it.
        return self.loss.clone()
