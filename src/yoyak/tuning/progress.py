"""How far a tuning is, to look at."""

from typing import Any

from transformers import TrainerCallback

from yoyak.core import progress
from yoyak.core.progress import Reporter, span

MOSTLY = 0.5
"""Share of dev's summaries that are cut off from which on it decides what the reward is."""


class TuningProgress(TrainerCallback):
    """Shown while its `reporter`, a context, is open."""

    def __init__(self, name: str, max_new_tokens: int) -> None:
        self.reporter = Reporter(name, "steps")
        self._began, self._first_step = 0.0, 0
        self._note, self._max_new_tokens = "", max_new_tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began, self._first_step = progress.clock(), state.global_step
        self.reporter.begin(state.global_step, state.max_steps)

    def on_prediction_step(self, args: Any, state: Any, control: Any, looked_at: str = "", **kwargs: Any) -> None:
        """After some of the summaries that a step learns from, or of dev's."""
        self._show(state, f"step {state.global_step + 1} of {state.max_steps}: {looked_at} done")

    def on_substep_end(self, args: Any, state: Any, control: Any, share: float = 0.0, **kwargs: Any) -> None:
        self._show(state, f"step {state.global_step + 1} of {state.max_steps}: {share:.0%} of it learnt from")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        figures = logs or {}
        if "drawn_rouge" in figures:
            self._note = (
                f"ROUGE of what was drawn {figures['drawn_rouge']:.2f}, of its best {figures['best_drawn_rouge']:.2f}"
            )
            self._show(state, f"step {state.global_step} of {state.max_steps}, {self._note}")
        if "eval_reward" in figures:
            # Of few rows the last step ends behind what was asked for.
            epoch = min(state.epoch or 0, args.num_train_epochs)
            self.reporter.say(
                f"epoch {round(epoch, 2):g} of {args.num_train_epochs:g}, on dev ROUGE "
                f"{figures['eval_rouge_mean']:.2f}, reward {figures['eval_reward']:.2f}, length "
                f"{figures['eval_length_ratio']:.2f} of the reference's, loss {figures['eval_loss']:.3f}"
                f"{self._told_of_cut_off(figures['eval_cut_off'])}"
            )

    def _told_of_cut_off(self, share: float) -> str:
        if share < MOSTLY:
            return ""
        return (
            f"; {share:.0%} of these summaries are cut off, and so worth nothing: raise generation.max_new_tokens, "
            f"which is {self._max_new_tokens}, or train longer before"
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        took = span(progress.clock() - self._began)
        self.reporter.say(
            f"tuned to step {state.global_step} of {state.max_steps} in {took}, the best is that of step "
            f"{state.best_global_step}"
        )

    def _show(self, state: Any, line: str) -> None:
        left = self._seconds_left(state)
        note = self._note if left is None else f"{self._note}, {span(left)} left"
        self.reporter.show(state.global_step, note, line if left is None else f"{line}, {span(left)} left", left)

    def _seconds_left(self, state: Any) -> float | None:
        """Looks at dev counted in; None before the first step has ended."""
        done = state.global_step - self._first_step
        if not done:
            return None
        return float((progress.clock() - self._began) / done * (state.max_steps - state.global_step))
