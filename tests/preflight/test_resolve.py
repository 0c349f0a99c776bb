"""What a model's summaries are drawn by, as `params.yaml` has it."""

from typing import Any

import pytest
from project import ROOT

from yoyak.core.params import changes
from yoyak.preflight import status
from yoyak.preflight.check import read_params
from yoyak.preflight.resolve import resolve


@pytest.mark.parametrize(
    ("name", "drawn"),
    [
        ("qwen25_coder_15b", {"temperature": 1.0, "top_k": 0, "top_p": 1.0}),
        # Nothing is drawn.
        ("gemma3_270m", {}),
        # Its weights are all trained, and it is never tuned.
        ("kobart", {}),
    ],
)
def test_a_tuned_model_draws_as_it_did_when_it_learned(name: str, drawn: dict[str, Any]) -> None:
    resolved = resolve(read_params(ROOT / "params.yaml"), name, None)
    own = resolved.generation
    expected = own.generation.model_copy(update=drawn)
    assert resolved.tuned_generation == own.model_copy(update={"generation": expected})
    assert (resolved.tuned_generation == own) == (not drawn)


def test_status_tells_what_a_tuned_model_draws_by() -> None:
    params = read_params(ROOT / "params.yaml")
    hotter = params.model_copy(update={"tuning": params.tuning.model_copy(update={"temperature": 1.5})})
    name = "qwen25_coder_15b"
    for model, told in ((f"{name}_tuned", ["generation.temperature: 1.0 → 1.5"]), (name, [])):
        before, after = (status._of(each, model, "generation") for each in (params, hotter))
        assert changes(before, after) == told
