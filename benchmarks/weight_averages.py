"""Averages of the weights of a training's last steps, to be measured.

    python benchmarks/weight_averages.py train MODEL [--last 0.33]
    python benchmarks/weight_averages.py tune MODEL [--last 0.33]

In a project whose prompts and parameters are there. `train` and `tune` do what the stages do, and save beside it
`models/MODEL_average` and `models/MODEL_tuned_average`: the mean of each weight of the adapters after each step of the
last part. A run that goes on after a kill averages what is left.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from yoyak.core.limits import LimitsParams
from yoyak.core.params import read_section
from yoyak.core.run import tuned
from yoyak.training import params as training_params
from yoyak.training import qlora
from yoyak.training import run as training_run
from yoyak.training.params import TrackingParams
from yoyak.training.saving import save_model
from yoyak.tuning import params as tuning_params
from yoyak.tuning import run as tuning_run


class AverageOfSteps(TrainerCallback):
    """The mean of each trained weight after each step of the last part of a training."""

    def __init__(self, last: float, save: Callable[[Any], None]) -> None:
        """`last`: which part, in (0, 1]. At the end `save` is given the model with these means in it."""
        self.last, self.save = last, save
        self.count = 0
        self.means: list[torch.Tensor] = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step <= math.floor((1 - self.last) * state.max_steps):
            return
        weights = trained_weights(model)
        self.count += 1
        if not self.means:
            self.means = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        for mean, weight in zip(self.means, weights, strict=True):
            mean += (weight.float() - mean) / self.count

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if not self.means:
            raise SystemExit(
                "error: no step was left to average: the run went on from its end; delete .cache/checkpoints"
            )
        with self.put_into(model):
            self.save(model)

    @contextmanager
    def put_into(self, model: Any) -> Iterator[None]:
        """For a while."""
        weights = trained_weights(model)
        own = [weight.clone() for weight in weights]
        _set(weights, self.means)
        try:
            yield
        finally:
            _set(weights, own)


def trained_weights(model: Any) -> list[torch.Tensor]:
    return [weight.data for weight in model.parameters() if weight.requires_grad]


def _set(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def with_average(make: Callable[..., Any], last: float, folder: Path) -> Callable[..., Any]:
    """`qlora.trainer` or the tuning's, whose trainer saves the average, too."""

    def made(config: Any, model: Any, *rest: Any) -> Any:
        loaded = getattr(model, "loaded", model)
        learner = make(config, model, *rest)
        learner.add_callback(AverageOfSteps(last, lambda averaged: save_model(config.model, loaded, averaged, folder)))
        return learner

    return made


def train(name: str, last: float) -> None:
    qlora.trainer = with_average(qlora.trainer, last, Path(f"models/{name}_average"))
    config = training_params.read_config(Path(f"data/resolved/{name}/training.yaml"))
    limits, tracking = read_section(LimitsParams, "limits"), read_section(TrackingParams, "tracking")
    training_run.train(training_run.Training(name, config, limits, tracking))


def tune(name: str, last: float) -> None:
    tuning_run.trainer = with_average(tuning_run.trainer, last, Path(f"models/{tuned(name)}_average"))
    config = tuning_params.read_config(Path(f"data/resolved/{tuned(name)}/tuning.yaml"))
    tuning_run.tune(tuning_run.Tuning(name, config, read_section(LimitsParams, "limits")))


STAGES = {"train": train, "tune": tune}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("model")
    parser.add_argument("--last", type=float, default=1 / 3)
    asked = parser.parse_args()
    STAGES[asked.stage](asked.model, asked.last)


if __name__ == "__main__":
    main()
