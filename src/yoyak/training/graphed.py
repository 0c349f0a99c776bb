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

    def __init__(self, model: Any, largest_pass_bytes: Callable[[], int]) -> None:
        """`largest_pass_bytes`: memory that the largest pass to be recorded takes, about; 0 where it is not known."""
        self.model, self.largest_pass_bytes = model, largest_pass_bytes
        self.on = True
        self._gradients: dict[torch.nn.Parameter, torch.Tensor] = {}
        """Where they always are: a graph is of tensors at their addresses."""
        self._bytes: dict[Shapes, int] = {}
        """Of memory that a pass takes."""
        self._recorded: dict[Shapes, Recorded] = {}
        self._memory: SharedMemory | None = None
        """Of all graphs, once there is one."""
        self._took_memory = False
        """Or tried to."""

    @property
    def may_begin(self) -> bool:
        """Whether a pass may be recorded: a plain step has shown where gradients are."""
        return self.on and bool(self._gradients)

    def __call__(self, run: Run, inputs: Inputs) -> torch.Tensor:
        """The loss; gradients are added to those that are there."""
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        if shapes in self._recorded:
            return self._recorded[shapes](inputs)
        if self._memory is None:
            self._took_memory = True
            self._memory = SharedMemory(min(self.largest_pass_bytes(), int(SHARE * gpu.free_memory())))
        if shapes not in self._bytes:
            return self._first(self._memory, run, inputs, shapes)
        if self._bytes[shapes] > SHARE * gpu.free_memory():
            return self._memory.run(lambda: run(inputs))
        self._recorded[shapes] = Recorded(run, inputs, self._memory)
        return self._recorded[shapes](inputs)

    def _first(self, memory: SharedMemory, run: Run, inputs: Inputs, shapes: Shapes) -> torch.Tensor:
        """A pass that loads kernels, and shows how much memory it takes."""
        gpu.reset_peak_memory()
        before = torch.cuda.memory_allocated()
        loss = memory.run(lambda: run(inputs))
        self._bytes[shapes] = torch.cuda.max_memory_allocated() - before
        return loss

    def give_up(self) -> bool:
        """No more graphs, for their memory is wanted; nothing happens, and False is returned, where they have none."""
        if not self.forget():
            return False
        self.on = False
        self._gradients.clear()
        return True

    def forget(self) -> bool:
        """Let go of all graphs, and of their memory; whether they had any."""
        had_any, self._took_memory, self._memory = self._took_memory, False, None
        self._recorded.clear()
        self._bytes.clear()
        if had_any and torch.cuda.is_available():
            # cuBLAS has its own memory for each stream within that of the graphs, for good.
            torch._C._cuda_clearCublasWorkspaces()
        return had_any

    def learn_places_of_gradients(self) -> None:
        """At a step's end, as its passes have left them."""
        if self.on and not self._gradients:
            found = {weight: weight.grad for weight in self.model.parameters()}
            self._gradients = {weight: gradient for weight, gradient in found.items() if gradient is not None}

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
