"""A training whose loss explodes, or is no number, ends at once, and says where."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from yoyak.core.errors import UserError
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.rows import Rows
from yoyak.training.steps import MicroBatching

TIMES_FIRST, SHARE_OF_A_GUESS = 3, 0.5
"""A loss has exploded that is this many times the first one, and above this share of a guess's (ln of the vocabulary):
of a tuned model's batches none comes near, and the losses of diverged trainings lie about the guess's."""
MOST_NAMES = 8
MEND = "lower training.learning_rate, or train in bf16 or fp32 instead of fp16"


class StopOnDivergence(TrainerCallback):
    """Looks at each figure of the log, and so before a checkpoint or a model is saved."""

    def __init__(self, trainer: MicroBatching, train: Rows, vocabulary: int) -> None:
        self.trainer, self.train = trainer, train
        self.guess = math.log(vocabulary)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        first = next((entry["loss"] for entry in state.log_history if "loss" in entry), math.inf)
        most = max(TIMES_FIRST * first, SHARE_OF_A_GUESS * self.guess)
        for figure in ("loss", "eval_loss", "train_loss"):
            value = float((logs or {}).get(figure, 0.0))
            if not math.isfinite(value):
                raise UserError(f"{figure} is no number at step {self._place(math.inf, args, state)}; {MEND}")
            if figure == "loss" and value > most:
                place = self._place(most, args, state)
                raise UserError(f"loss has exploded, from {first:.2f} to {value:.2f}, at step {place}; {MEND}")

    def _place(self, most: float, args: Any, state: Any) -> str:
        """The step whose loss is no number or above `most`, its rows, and what was saved before it."""
        step, inputs = self._first_above(most, state.global_step)
        rows = f" (rows {_listed(self._names(inputs))})" if inputs is not None else ""
        checkpoint = last_checkpoint(Path(args.output_dir))
        if checkpoint is None:
            return f"{step}{rows}; no checkpoint was saved before it"
        return f"{step}{rows}; the last good checkpoint is that of step {checkpoint.name.removeprefix('checkpoint-')}"

    def _first_above(self, most: float, step: int) -> tuple[int, Any]:
        """The first step since the last log whose loss is at fault, with its batch; the last where none is."""
        since = self.trainer.since_log
        for number, (loss, inputs) in enumerate(since, start=step - len(since) + 1):
            if not loss.item() <= most or not math.isfinite(loss.item()):
                return number, inputs
        return step, None

    def _names(self, inputs: dict[str, Any]) -> Iterable[str]:
        known = {tuple(row["input_ids"]): name for row, name in zip(self.train.rows, self.train.names, strict=True)}
        return (known[tuple(row)] for row in self.trainer.rows_of(inputs))


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - MOST_NAMES} others" if len(listed) > MOST_NAMES else ""
    return ", ".join(listed[:MOST_NAMES]) + more
