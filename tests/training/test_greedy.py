"""Greedy summaries of dev are those of transformers' `generate`."""

from typing import Any

import pytest
import torch
from beam_searches import ENCODER_DECODERS, encoded, greedy_ends, greedy_of_generate, load
from inferences import WithoutTheHost
from twins import Family

from yoyak.modeling.cuda_graphs import GraphedStep
from yoyak.modeling.loading import Loaded
from yoyak.training import greedy


@pytest.fixture(params=ENCODER_DECODERS, scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Each dialogue has another summary."""
    family: Family = request.param
    return load(family, tmp_path_factory.mktemp(family.__name__) / "twin", 0)


@pytest.mark.parametrize("max_new_tokens", [1, 7, 80])
@pytest.mark.parametrize("look_every", [1, 8])
def test_summaries_are_those_of_generate(
    loaded: Loaded, max_new_tokens: int, look_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greedy, "LOOK_EVERY", look_every)
    prompts = encoded(loaded)
    ends = greedy_ends(loaded, prompts)
    expected = greedy_of_generate(loaded, prompts, max_new_tokens, ends)
    assert max_new_tokens < 80 or len(set(map(len, expected))) > 3
    assert greedy.summaries(loaded.model, prompts, max_new_tokens, ends) == expected


def test_a_batch_whose_summaries_have_all_ended_is_over(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = encoded(loaded)
    ends = [row[4] for row in greedy_of_generate(loaded, prompts, 10, [-1])]
    step, steps = GraphedStep.__call__, []

    def counted(recorded: GraphedStep, next_tokens: Any) -> torch.Tensor:
        steps.append(None)
        with WithoutTheHost():
            return step(recorded, next_tokens)

    monkeypatch.setattr(GraphedStep, "__call__", counted)
    assert all(len(row) <= 5 for row in greedy.summaries(loaded.model, prompts, 70, ends))
    assert len(steps) == greedy.LOOK_EVERY - 1
