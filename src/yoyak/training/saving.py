"""When a checkpoint is written, and what is kept with it."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from yoyak.core import progress
from yoyak.core.limits import LimitsParams, check_disk
from yoyak.core.records import write_json
from yoyak.training.memory import TokenBudget


class SaveWithinEpochs(TrainerCallback):
    """A checkpoint each so many minutes, beside those of the epochs' ends.

    Only at a step that is logged: what is summed up since the last one would be lost, and the curve would differ.
    """

    def __init__(self, limits: LimitsParams) -> None:
        self.seconds = 60 * limits.checkpoint_minutes
        self.saved = progress.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logged = state.global_step % args.logging_steps == 0
        if logged and progress.clock() - self.saved >= self.seconds:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = progress.clock()


class RoomToSave(TrainerCallback):
    """The disk is looked at before each checkpoint, too: others write to it while a model trains.

    It comes behind `SaveWithinEpochs`, whose decision it looks at.
    """

    def __init__(self, limits: LimitsParams, checkpoint_gb: float) -> None:
        self.limits, self.checkpoint_gb = limits, checkpoint_gb

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save:
            check_disk(self.limits, self.checkpoint_gb, "the next checkpoint")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint follows at the end of an epoch."""
        check_disk(self.limits, self.checkpoint_gb, "the next checkpoint")


class KeepBudget(TrainerCallback):
    """How a step was divided is kept with each checkpoint."""

    FILE = "budget.json"

    def __init__(self, budget: TokenBudget) -> None:
        self.budget = budget

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_json(Path(args.output_dir, f"checkpoint-{state.global_step}", self.FILE), self.budget.kept())
