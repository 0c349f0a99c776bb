"""What tells a gain from gaming: a higher score bought with length, faults, or language that no reference has."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback

from yoyak.core.errors import UserError

LOSS_GROWTH = 1.5
"""Dev loss on references over what it was before, from which on a reader should look at the summaries."""


class StopAtNaN(TrainerCallback):
    """Before a checkpoint or a model is saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for figure in ("loss", "eval_loss"):
            if not math.isfinite((logs or {}).get(figure, 0.0)):
                raise UserError(f"{figure} is no number at step {state.global_step}; lower tuning.learning_rate")


def doubts(before: Mapping[str, float], after: Mapping[str, float], max_length_ratio: float) -> list[str]:
    """What speaks against the gain, a line each; figures are of dev, as the trainer logs them."""
    found = {
        f"summaries have {after['length_ratio']:.2f} of the reference's length, before {before['length_ratio']:.2f}; "
        f"tuning.max_length_ratio is {max_length_ratio:g}": after["length_ratio"]
        > max(max_length_ratio, before["length_ratio"]),
        f"{after['faulty']:g} summaries have faults, before {before['faulty']:g}": after["faulty"] > before["faulty"],
        f"the loss on references has grown from {before['loss']:.2f} to {after['loss']:.2f}; raise "
        "tuning.reference_weight, or lower tuning.learning_rate": after["loss"] > LOSS_GROWTH * before["loss"],
        f"ROUGE on dev was {before['rouge_mean']:.2f} before, and is {after['rouge_mean']:.2f} now": after["rouge_mean"]
        <= before["rouge_mean"],
    }
    return [line for line, there in found.items() if there]
