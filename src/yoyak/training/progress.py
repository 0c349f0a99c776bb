"""A bar of optimiser steps with the last loss behind it, and a line for each look at dev."""

from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

ESTIMATED_OVER = 600
"""Seconds of which the rate is the mean."""


class StepsBar(TrainerCallback):
    """Drawn while its `progress`, a context, is open; where nobody looks at a terminal, each log is a line instead."""

    def __init__(self, name: str) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps {task.fields[told]}"),
            TimeRemainingColumn(),
            # Steps may be longer than rich's half a minute.
            speed_estimate_period=ESTIMATED_OVER,
        )
        self._task = self.progress.add_task(name, total=None, visible=False, told="")
        self._told = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self._task, total=state.max_steps, completed=state.global_step, visible=True)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self._task, completed=state.global_step)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self._task, told="looking at dev")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        figures = logs or {}
        if "loss" in figures:
            self._told = f"loss {figures['loss']:.3f}, {figures['tokens_per_second']:,.0f} tokens/s"
            if not self.progress.console.is_terminal:
                self._say(f"step {state.global_step} of {state.max_steps}: {self._told}")
        if "eval_loss" in figures:
            rouge = f", ROUGE {figures['eval_rouge_mean']:.2f}" if "eval_rouge_mean" in figures else ""
            self._say(f"epoch {state.epoch:g}: loss on dev {figures['eval_loss']:.3f}{rouge}")
        self.progress.update(self._task, told=self._told)

    def _say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)
