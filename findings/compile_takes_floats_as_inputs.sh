#!/usr/bin/env bash
# torch.compile(dynamic=True) is about sizes by its documentation. It also takes every float that a module has, such as the
# scale of its attention or of a LoRA adapter, for an input of the graph, a tensor without dimensions that is handed over at
# each call; and where an operation cannot take such a tensor, as scaled_dot_product_attention cannot for `scale`, it traces
# the module a second time with the float as a constant, and asks the backend again. One graph is kept of the two. With
# torch._dynamo.config.specialize_float = True floats are constants from the beginning: asked once, one input fewer.
# Seen: torch 2.13.0 (CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/compile.py" <<'PYTHON'
import sys

import torch
from torch.nn.functional import scaled_dot_product_attention

backend_of_autograd = torch._dynamo.lookup_backend("aot_eager")


class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.value = torch.nn.Linear(8, 8)
        self.scaling = 0.25

    def forward(self, states):
        return scaled_dot_product_attention(states, states, self.value(states), scale=self.scaling)


def inputs_of_graphs(constant):
    """Of each time that the backend was asked: how many tensors without dimensions it was given."""
    torch._dynamo.reset()
    torch._dynamo.config.specialize_float = constant
    asked = []

    def backend(graph, inputs):
        asked.append(sum(isinstance(each, torch.Tensor) and each.dim() == 0 for each in inputs))
        return backend_of_autograd(graph, inputs)

    module = Attention()
    module.compile(dynamic=True, backend=backend)
    for length in (3, 5):
        module(torch.randn(1, 2, length, 8))
    return asked


inputs, constants = inputs_of_graphs(False), inputs_of_graphs(True)
print(f"torch {torch.__version__}: floats of each graph that the backend was asked for: {inputs}; as constants: {constants}")
sys.exit(0 if (inputs, constants) == ([1, 0], [0]) else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/compile.py"
