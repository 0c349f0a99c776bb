"""Compiled layers: one serves them all, on lengths of any kind, and learns what it learns uncompiled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import trainers
from torch.nn.functional import scaled_dot_product_attention
from trainers import losses, trainer_of
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from twins import gemma3, llama32, qwen3, save_twin

from yoyak.training import attention, qlora


def of_one_graph(
    module: Any, query: Any, key: Any, value: Any, mask: None, *, cu_seq_lens_q: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, None]:
    """For a kernel of a GPU: rows apart, in operations that can be compiled."""
    tokens = torch.arange(query.shape[2])
    row = (tokens[:, None] >= cu_seq_lens_q[1:]).sum(1)
    apart = (row[:, None] == row) & (tokens[:, None] >= tokens)
    scale = given.get("scaling")
    output = scaled_dot_product_attention(query, key, value, apart, scale=scale, enable_gqa=True)
    return output.transpose(1, 2), None


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Those that are compiled, each by autograd's own backend: no compiler of C is asked."""
    compiled: list[Any] = []
    compile_module = torch.nn.Module.compile

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **given: compile_module(self, backend=backend, **given)
    )
    monkeypatch.setattr(trainers, "PROMPTS", trainers.PROMPTS * 3)
    monkeypatch.setattr(attention, "row_by_row", of_one_graph)
    # The setting is of the process.
    with torch._dynamo.config.patch(specialize_float=False):
        yield compiled
    torch._dynamo.reset()


@pytest.mark.parametrize(("family", "kinds"), [(llama32, 1), (qwen3, 1), (gemma3, 2)])
def test_one_layer_of_a_kind_is_compiled(
    family: Any, kinds: int, tmp_path: Path, graphs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma's see a window of the row, or all of it."""
    twin = save_twin(family, tmp_path / "twin")
    curves = []
    for compiled in (False, True):
        trainer, _ = trainer_of(twin, tmp_path / str(compiled))
        # Several micro-batches a step, each of another length.
        trainer.budget.tokens, trainer.budget._measured = 200, True
        if compiled:
            qlora.compile_layers(trainer.model)
        curves.append(losses(trainer))
    assert ALL_ATTENTION_FUNCTIONS["row_by_row"] is of_one_graph
    assert len(graphs) == kinds
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[0][-1] < curves[0][0]
