"""A training, from its last checkpoint or from its beginning, to its end."""

import time
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from yoyak.core.records import read_json
from yoyak.training.saving import BUDGET


def go_on(trainer: Any, checkpoint: Path | None) -> dict[str, Any]:
    """Train from the checkpoint, or from the beginning, to the end; tells what of it this run did."""
    done = 0
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        done = state.global_step
        kept = checkpoint / BUDGET
        if kept.exists():
            trainer.budget.take_up(read_json(kept))
        if _ended_early(state):
            # The trainer forgets that it was to stop.
            trainer.args.max_steps = done
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    return {"resumed_at_step": done, "seconds": round(seconds, 1)}


def _ended_early(state: TrainerState) -> bool:
    stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if stopping is None:
        return False
    worse_epochs = stopping["attributes"]["early_stopping_patience_counter"]
    return bool(worse_epochs >= stopping["args"]["early_stopping_patience"])
