"""The fused forward pass decodes what transformers' modules do: its kernels run in Triton's interpreter, without a GPU.

`make test` runs this folder by itself, with TRITON_INTERPRET=1, which must be there before Triton is imported.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from twins import Family, gemma3, llama32, qwen3, qwen25, save_twin

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs Triton and its interpreter", allow_module_level=True)

from yoyak.core import gpu
from yoyak.inference import decoding, forward, kernels
from yoyak.inference.decoding import Candidates, Request
from yoyak.inference.fused import side_by_side
from yoyak.inference.paged_cache import PAGE
from yoyak.inference.sampling import GeneratedTokens

PROMPTS = [list(range(5, 5 + length)) for length in (PAGE + 3, 1, 7)]


@pytest.fixture(params=[llama32, qwen25, qwen3, gemma3])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return twin_of(request.param, tmp_path)


def twin_of(family: Family, folder: Path) -> Any:
    """Attention matters, and not the last token alone; Gemma's window is shorter than a prompt."""
    config, tokenizer = family()
    if hasattr(config, "sliding_window"):
        config.sliding_window = 6
    loaded = AutoModelForCausalLM.from_pretrained(save_twin(lambda: (config, tokenizer), folder), dtype=torch.float32)
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            weight.mul_(6 if "proj" in name else 1)
    return loaded.eval()


def fan_out(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
    """Candidates that begin with the best and the second best token, and then go on greedily."""
    ranked = logits.topk(2).indices
    return torch.where(generated.counts[:, None] == 0, ranked[:, 0], ranked[..., 0])


def decoded(model: Any, max_new_tokens: int) -> list[Candidates]:
    request = Request(2, max_new_tokens, [1999], fan_out)
    return [row for _, row in sorted(decoding.decode([model], [PROMPTS], 2, request), key=lambda pair: pair[0])]


def use_fused(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(forward, "supports_fused", lambda model: True)
    monkeypatch.setattr(gpu, "free_memory", lambda: free_bytes)


def same(found: list[Candidates], expected: list[Candidates]) -> None:
    assert [row.ids for row in found] == [row.ids for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-5)


def test_candidates_are_those_of_the_plain_modules(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights are the same afterwards, too."""
    expected = decoded(model, 5)
    assert len({tuple(ids) for row in expected for ids in row.ids}) > 4
    use_fused(monkeypatch, 10**9)
    same(decoded(model, 5), expected)
    monkeypatch.undo()
    assert decoded(model, 5) == expected


def test_candidates_grow_beyond_a_page_and_give_pages_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, most, given_up = twin_of(llama32, tmp_path), PAGE + 2, []
    expected = decoded(model, most)
    give_up = decoding.Slots.give_up_newest

    def noticed(slots: decoding.Slots) -> int:
        given_up.append(give_up(slots))
        return given_up[-1]

    monkeypatch.setattr(decoding.Slots, "give_up_newest", noticed)
    use_fused(monkeypatch, 0)
    same(decoded(model, most), expected)
    assert given_up


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_activation_and_a_norm_round_as_the_modules_do(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    both = torch.randn(3, 200, generator=draw).to(dtype)
    gate, up = both.split(100, -1)
    for name, activation in (
        ("silu", torch.nn.functional.silu),
        ("gelu_pytorch_tanh", torch.nn.GELU(approximate="tanh")),
    ):
        assert torch.allclose(
            kernels.gated(gate, up, name), activation(gate) * up, atol=1e-3 if dtype.itemsize == 2 else 1e-6
        )
    sums = kernels.log_sum_exp(both.masked_fill(both > 1, -torch.inf))
    assert torch.allclose(sums, both.masked_fill(both > 1, -torch.inf).float().logsumexp(-1), atol=1e-6)


def test_weights_of_one_input_are_joined_once() -> None:
    layers = [torch.nn.Linear(8, size) for size in (6, 2, 4)]
    hidden = torch.randn(3, 8)
    expected = [layer(hidden) for layer in layers]
    for _ in range(2):
        found = side_by_side(layers)(hidden)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(found, expected, strict=True))
        places = [layer.weight.data_ptr() for layer in layers]
    side_by_side(layers)
    assert [layer.weight.data_ptr() for layer in layers] == places
    with torch.no_grad():
        layers[1].weight.add_(1)
    assert torch.allclose(side_by_side(layers)(hidden)[1], layers[1](hidden), atol=1e-6)


def test_a_model_learns_after_it_was_drawn_from(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As tuning does by turns."""
    use_fused(monkeypatch, 10**9)
    decoded(model, 3)
    model(input_ids=torch.tensor([PROMPTS[0]])).logits.sum().backward()
    assert all(weight.grad is not None and bool(weight.grad.isfinite().all()) for weight in model.parameters())


def test_kernels_fit_onto_cards_of_24_gb() -> None:
    """They are compiled for compute capability 8.6, whose blocks have the least memory, in a process without the
    interpreter."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    script = Path(__file__).parents[1] / "support/compiled_kernels.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    sizes = [int(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(sizes) > 10
    assert max(sizes) <= 99 * 1024
