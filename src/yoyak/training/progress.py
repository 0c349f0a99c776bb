"""How far a training is, to look at: its steps, the tokens of a long step, its looks at dev, and the time left."""

import math
from typing import Any

import torch
from transformers import TrainerCallback

from yoyak.core import progress
from yoyak.core.progress import Reporter, span

FORWARD_SHARE = 0.5
"""Time of a dev token, as a share of a training token's: about, and only until a look at dev has been timed."""


class Pace:
    """Tokens a second of this run's training."""

    def __init__(self) -> None:
        self.tokens = 0
        """That are done, padding not counted."""
        self._measured_tokens, self._measured_seconds = 0, 0.0
        self._lapped = progress.clock()

    def lap(self) -> float:
        """Seconds since the last call."""
        now = progress.clock()
        seconds, self._lapped = now - self._lapped, now
        return seconds

    def add(self, tokens: int, seconds: float) -> None:
        self._measured_tokens += tokens
        self._measured_seconds += seconds

    @property
    def rate(self) -> float | None:
        """None where nothing is measured yet."""
        return self._measured_tokens / self._measured_seconds if self._measured_tokens else None


class TrainingProgress(TrainerCallback):
    """Shown while its `reporter`, a context, is open."""

    def __init__(self, name: str, train_tokens: int, dev_tokens: int) -> None:
        """`train_tokens` are those of one pass, `dev_tokens` those of one look at dev."""
        self.reporter = Reporter(name, "steps")
        self.train_tokens, self.dev_tokens = train_tokens, dev_tokens
        self.pace = Pace()
        self._began = 0.0
        self._first_step = 0
        """The step that a killed run had reached."""
        self._done_in_step = 0
        """Tokens of the step at work."""
        self._looks_left, self._dev_batches = 0, 0
        self._dev_seconds: float | None = None
        """Of the last look at dev, with the checkpoint after it."""
        self._loss = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._first_step = state.global_step
        self._looks_left = math.ceil(args.num_train_epochs) - round(state.epoch or 0)
        self.reporter.begin(state.global_step, state.max_steps)
        self.pace.lap()
        self._began = progress.clock()

    def on_substep_end(
        self, args: Any, state: Any, control: Any, tokens: int = 0, share: float = 0.0, **kwargs: Any
    ) -> None:
        """After each micro-batch: `share` is done of the step's `tokens`."""
        on_gpu, first = kwargs["model"].device.type == "cuda", self.pace.rate is None
        if on_gpu and first:
            # Else it would be timed before it is done; what is timed later is not far behind.
            torch.cuda.synchronize()
        done, seconds = round(share * tokens), self.pace.lap()
        # Where memory ran out, a step begins anew: none of its tokens counts twice.
        added, self._done_in_step = max(0, done - self._done_in_step), max(done, self._done_in_step)
        warming_up = on_gpu and not self.pace.tokens
        self.pace.tokens += added
        if warming_up or not added:
            # A GPU's first loads or compiles kernels, which takes as long as hundreds of those that come after it.
            return
        self.pace.add(added, seconds)
        if first:
            whole = "what is left of the training" if self._first_step else "the training"
            took = f"a micro-batch of {added:,} tokens took {span(seconds)}, {self._rate()}"
            self._show(args, state, f"{took}; {whole} takes about {span(self._seconds_left(args, state))}", share)
        elif share < 1:
            # The end of a step is told with its loss.
            at = f"step {state.global_step + 1} of {state.max_steps}: {done:,} of {tokens:,} tokens done"
            self._show(args, state, f"{at}, {self._note(args, state)}", share)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._done_in_step = 0
        seconds = self.pace.lap()
        if self.pace.rate is not None:
            self.pace.add(0, seconds)
        if not control.should_log:
            self._show_step(args, state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        figures = logs or {}
        if "loss" in figures:
            self._loss = f"loss {figures['loss']:.3f}, "
            self._show_step(args, state)
        if "eval_loss" in figures:
            self._dev_seconds, self._dev_batches = self.pace.lap(), 0
            self._looks_left -= 1
            self.reporter.move(state.global_step, self._note(args, state))
            rouge = f", ROUGE {figures['eval_rouge_mean']:.2f}" if "eval_rouge_mean" in figures else ""
            # Of few rows the last step ends behind what was asked for.
            done = round(min(state.epoch, args.num_train_epochs), 2)
            epoch = f"epoch {done:g} of {args.num_train_epochs:g}"
            self.reporter.say(f"{epoch}, loss on dev {figures['eval_loss']:.3f}{rouge}")

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, looked_at: str = "", eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """After each batch of dev: `looked_at` tells how much is done, else batches are counted."""
        self._dev_batches += 1
        done = looked_at or f"{self._dev_batches} of {len(eval_dataloader)} batches"
        self.reporter.show(state.global_step, "looking at dev", f"dev after step {state.global_step}, {done} done")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._dev_seconds = (self._dev_seconds or 0.0) + self.pace.lap()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        took = span(progress.clock() - self._began)
        rate = f", {self._rate()}" if self.pace.rate else ""
        best = f", the best is that of step {state.best_global_step}" if state.best_global_step else ""
        self.reporter.say(f"trained to step {state.global_step} of {state.max_steps} in {took}{rate}{best}")

    def _show_step(self, args: Any, state: Any) -> None:
        self._show(args, state, f"step {state.global_step} of {state.max_steps}, {self._note(args, state)}")

    def _show(self, args: Any, state: Any, line: str, share_of_step: float = 0.0) -> None:
        left = self._seconds_left(args, state) if self.pace.rate else None
        self.reporter.show(state.global_step + share_of_step, self._note(args, state), line, left)

    def _note(self, args: Any, state: Any) -> str:
        if self.pace.rate is None:
            return self._loss.removesuffix(", ")
        return f"{self._loss}{self._rate()}, {span(self._seconds_left(args, state))} left"

    def _rate(self) -> str:
        return f"{self.pace.rate:,.0f} tokens/s"

    def _seconds_left(self, args: Any, state: Any) -> float:
        """Once the pace is known: of steps, looks at dev and checkpoints, should it not stop early."""
        rate = self.pace.rate
        assert rate is not None
        share = 1 - self._first_step / state.max_steps
        tokens = self.train_tokens * args.num_train_epochs * share - self.pace.tokens
        dev = self.dev_tokens * FORWARD_SHARE / rate if self._dev_seconds is None else self._dev_seconds
        return float(max(0.0, tokens / rate) + max(0, self._looks_left) * dev)
