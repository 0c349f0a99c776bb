"""benchmarks/weight_averages.py: means of weights over steps."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainers import trainer_of
from transformers import TrainerCallback
from twins import llama32, save_twin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def averages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import weight_averages

    return weight_averages


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return save_twin(llama32, tmp_path / "twin")


def test_the_mean_is_of_the_last_steps(averages: Any, twin: Path, tmp_path: Path) -> None:
    seen: list[list[torch.Tensor]] = []

    class Watching(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append([weight.clone() for weight in averages.trained_weights(model)])

    saved: list[list[torch.Tensor]] = []
    save: Callable[[Any], None] = lambda model: saved.append(  # noqa: E731
        [weight.clone() for weight in averages.trained_weights(model)]
    )
    learner, _ = trainer_of(
        twin, tmp_path / "scratch", epochs=2, callbacks=[Watching(), averages.AverageOfSteps(0.5, save)]
    )
    learner.train()
    steps = learner.state.max_steps
    assert len(seen) == steps > 2
    (means,) = saved
    for number, mean in enumerate(means):
        expected = torch.stack([step[number] for step in seen[steps // 2 :]]).mean(0)
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-5)
    own = averages.trained_weights(learner.model)
    assert any(not torch.equal(weight, mean) for weight, mean in zip(own, means, strict=True))
