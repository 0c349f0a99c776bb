"""A training as it went: points for `dvc plots`, a line an epoch, and the mean loss."""

from typing import Any

import pandas as pd
from transformers.integrations import DVCLiveCallback


class Curves(DVCLiveCallback):
    """Loss, learning rate and dev figures for `dvc plots`, as they come.

    Not the trainer's arguments, which name local paths, its mean over the whole run, or how long evaluations took.
    """

    def setup(self, args: Any, state: Any, model: Any) -> None:
        self._initialized = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """DVC has deleted what a killed run drew: it is drawn again."""
        for entry in state.log_history:
            self._draw(entry["step"], entry, args, state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A point at each checkpoint: what a killed run summed up since its last point would be lost."""
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._draw(state.global_step, logs or {}, args, state, control)

    def _draw(self, step: int, figures: dict[str, Any], args: Any, state: Any, control: Any) -> None:
        drawn = {
            key: value
            for key, value in figures.items()
            if key not in ("step", "epoch", "train_loss")
            and not key.endswith(("runtime", "samples_per_second", "steps_per_second", "flos"))
        }
        self.live.step = step
        super().on_log(args, state, control, logs=drawn)


def epochs(log: list[dict[str, Any]]) -> pd.DataFrame:
    """A line an epoch: `epoch`, `step`, `loss` and what else was measured on dev; those before a restart, too."""
    kept = ("epoch", "step", "eval_loss", "eval_rouge_mean")
    lines = [{key: entry[key] for key in kept if key in entry} for entry in log if "eval_loss" in entry]
    return pd.DataFrame(lines).rename(columns=lambda key: key.removeprefix("eval_"))


def mean_loss(log: list[dict[str, Any]]) -> float:
    """Over all steps. The trainer's own forgets the steps before a restart."""
    total, before = 0.0, 0
    for entry in log:
        if "loss" in entry:
            # Each is the mean since the one before.
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before
