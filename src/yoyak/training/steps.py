"""Optimiser steps over a whole effective batch, which goes through the model in micro-batches as memory allows."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from yoyak.core import gpu
from yoyak.core.errors import UserError
from yoyak.training import memory
from yoyak.training.graphed import MOST_GRAPHED_TOKENS, GraphedPasses
from yoyak.training.memory import Batch, Result, TokenBudget
from yoyak.training.ranks import Ranks, dealt
from yoyak.training.recomputing import Trial
from yoyak.training.rows import IGNORED


class MicroBatching(Trainer):
    """For a `Trainer` whose batches are effective batches.

    Running out of memory costs no step and no row: the step begins anew in smaller micro-batches. The loss of one must
    be a sum over its tokens divided by the step's, so that they add up to the same gradient however the step is divided
    (dropout aside, whose draws differ).
    """

    def __init__(self, *args: Any, budget: TokenBudget, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A batch is looked into and cut on the CPU; its parts are sent to the GPU.
        self.accelerator.device_placement = False
        self.budget = budget
        self._recomputes = False
        self.passes: GraphedPasses | None = None
        """What records them, see `record_passes`."""
        self.trial: Trial | None = None
        """Of activations kept and recomputed, where there may be a choice."""
        self.ran_with: dict[str, str] = {}
        """What was decided for this machine, for the record."""
        self.tokens, self.seconds = 0, 0.0
        """That this process trained on, padding not counted, and how long it took, evaluations and checkpoints not
        counted."""
        self.since_log: list[tuple[torch.Tensor, dict[str, Any]]] = []
        """Loss and batch of each step since the last one that was logged."""
        self._tokens_since_log = 0
        self._time_of_log: float | None = None
        self.ranks = Ranks()
        """Which each have a share of each batch."""

    def micro_batches(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """The batch, divided within the budget, each with its number of tokens, padding counted."""
        raise NotImplementedError

    def real_tokens(self, inputs: dict[str, Any]) -> int:
        """Of the batch, padding not counted."""
        raise NotImplementedError

    def rows_of(self, inputs: dict[str, Any]) -> list[list[int]]:
        """Token ids of each row of the batch, without padding; of an encoder-decoder, the encoder's."""
        raise NotImplementedError

    def lengths(self, inputs: dict[str, Any]) -> list[int]:
        """Of each row, in tokens, as it is computed."""
        raise NotImplementedError

    def select(self, inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        """The batch of these of its rows, which are some."""
        raise NotImplementedError

    def longest_row(self, inputs: dict[str, Any]) -> int:
        """In tokens."""
        raise NotImplementedError

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._time_of_log = self._time_of_log or time.perf_counter()
        self._keep_or_recompute(model)
        # Before the first micro-batch, for the progress within the step.
        tokens = self.real_tokens(inputs)
        # Counted here: for some models the trainer counts nothing, and each micro-batch would be divided by its own.
        labels = (inputs["labels"] != IGNORED).sum()
        share = self._share_of(inputs)
        self.ranks.begin_step(self.args.seed, self.state.global_step)
        if self.ranks.sharded:
            loss = self._in_lockstep(model, inputs, share, labels, tokens)
            return self._step_done(model, inputs, loss, tokens)
        if self.trial is not None and share is not None:
            self.trial.begin_step(self.real_tokens(share), self.passes is not None and self.passes.on)
        while True:
            try:
                loss = self._accumulated(model, share, labels, tokens)
            except gpu.MAY_BE_OOM as error:
                if not gpu.is_oom(error):
                    raise
                of = gpu.memory_of(error)
            else:
                self.budget.step_done()
                if self.trial is not None and share is not None:
                    self.trial.end_step(self.real_tokens(share))
                return self._step_done(model, inputs, loss, tokens)
            # Outside `except`, where the error no longer holds the frames, and so the tensors, of the failed attempt.
            model.zero_grad(set_to_none=True)
            gave_up = self.gave_up_memory()
            gpu.release_memory()
            assert share is not None, "nothing ran that could run out"
            if not gave_up:
                self.budget.shrink(self.longest_row(share), of)
            self._keep_or_recompute(model)

    def _step_done(self, model: Any, inputs: dict[str, Any], loss: torch.Tensor, tokens: int) -> torch.Tensor:
        trained = [weights for weights in model.parameters() if weights.requires_grad]
        loss = self.ranks.add_up_gradients(trained, loss)
        if self.passes is not None:
            self.passes.learn_places_of_gradients()
        self._tokens_since_log += tokens
        self.since_log.append((loss.detach(), inputs))
        return loss

    def _share_of(self, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Of this rank; None where there are fewer rows than ranks."""
        if self.ranks.count == 1:
            return inputs
        rows = dealt(self.lengths(inputs), self.ranks.count)[self.ranks.number]
        return self.select(inputs, rows) if rows else None

    def _keep_or_recompute(self, model: Any) -> None:
        """Activations, as the budget says."""
        if self.budget.checkpointing == self._recomputes:
            return
        self._recomputes = self.budget.checkpointing
        if self._recomputes:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_disable()

    def _accumulated(self, model: Any, inputs: dict[str, Any] | None, labels: Any, real_tokens: int) -> torch.Tensor:
        if inputs is None:
            return torch.zeros((), device=self.args.device)
        losses, done, whole = [], 0, inputs["input_ids"].numel()
        for micro_batch, tokens in self.micro_batches(inputs):
            with self.budget.measuring(model, tokens):
                losses.append(self.run_pass(model, micro_batch, tokens, labels))
            done += micro_batch["input_ids"].numel()
            self._tell("on_substep_end", tokens=real_tokens, share=done / whole)
        return torch.stack(losses).sum()

    def run_pass(self, model: Any, micro_batch: dict[str, Any], tokens: int, labels: torch.Tensor) -> torch.Tensor:
        """Forward and backward, of so many tokens; the loss, divided by the step's `labels`."""

        def run(inputs: dict[str, Any]) -> torch.Tensor:
            loss: torch.Tensor = super(MicroBatching, self).training_step(model, inputs, inputs.pop("labels_of_step"))
            return loss

        short = self.passes is not None and tokens <= MOST_GRAPHED_TOKENS and not self.budget.checkpointing
        # Also where it is not recorded: dropout is drawn for the shape.
        inputs = {**(self.of_few_shapes(micro_batch) if short else micro_batch), "labels_of_step": labels}
        on_device = {name: gpu.sent(each, self.args.device) for name, each in inputs.items()}
        if self.passes is None:
            return run(on_device)
        self.passes.put_gradients_in_place()
        timed = self.trial is not None and self.trial.is_timing
        # The first step loads kernels, or compiles them, and leaves room for what the optimiser takes at its end.
        recorded = short and not timed and self.passes.may_begin and bool(self.optimizer.state)
        return self.passes(run, on_device) if recorded else run(on_device)

    def record_passes(self, why_not: str | None) -> str:
        """As CUDA graphs, unless there is a reason against it; what comes of it, for the record."""
        if why_not is not None:
            return f"no: {why_not}"
        self.passes = GraphedPasses(self.model, self._largest_pass_bytes)
        return "yes"

    def _largest_pass_bytes(self) -> int:
        return self.budget.bytes_per_token * min(self.budget.tokens, MOST_GRAPHED_TOKENS)

    def of_few_shapes(self, micro_batch: dict[str, Any]) -> dict[str, Any]:
        """The same, so that shapes come again: a graph is of one shape."""
        return micro_batch

    def gave_up_memory(self) -> bool:
        """Whether, memory having run out, graphs could be given up that take some."""
        if self.passes is None or not self.passes.give_up():
            return False
        self.ran_with["cuda_graphs"] = "given up: memory ran out beside them"
        print("out of GPU memory: passes are no CUDA graphs from here", flush=True)
        return True

    def _in_lockstep(
        self, model: Any, inputs: dict[str, Any], share: dict[str, Any] | None, labels: Any, real_tokens: int
    ) -> torch.Tensor:
        """As `_accumulated`, on ranks that hold parts of the weights: each runs as many passes as the one that has most
        micro-batches, for in each layer they wait for one another."""
        self.budget.agree(self.ranks.least)
        micro_batches = list(self.micro_batches(share)) if share else []
        passes = -self.ranks.least(-len(micro_batches))
        lengths = self.lengths(inputs)
        shortest, _ = next(self.micro_batches(self.select(inputs, [lengths.index(min(lengths))])))
        losses = [torch.zeros((), device=self.args.device)]
        with self._ending_all_where_memory_runs_out(max(lengths)):
            for done in range(passes):
                if done < len(micro_batches):
                    micro_batch, tokens = micro_batches[done]
                    with self.budget.measuring(model, tokens):
                        losses.append(super().training_step(model, micro_batch, labels))
                else:
                    # Divided by infinity, its loss and its gradients are zero.
                    super().training_step(model, shortest, math.inf)
                self._tell("on_substep_end", tokens=real_tokens, share=(done + 1) / passes)
        return torch.stack(losses).sum()

    @contextmanager
    def _ending_all_where_memory_runs_out(self, longest_row: int) -> Iterator[None]:
        """The other ranks wait in the midst of a pass then, for good. This one ends, and with it they do, to go on from
        the last checkpoint in smaller passes where those are to be had; see `memory.until_it_fits`."""
        try:
            yield
        except gpu.MAY_BE_OOM as error:
            if not gpu.is_oom(error):
                raise
            memory.ran_out(Path(self.args.output_dir), self.budget.tokens, longest_row)
            raise UserError(
                f"out of {gpu.memory_of(error)} with {self.budget.tokens} tokens at once, or a row of {longest_row}, "
                "over sharded weights; raise limits.gpus or limits.gpu_gib, set quantization.load_in_4bit: true, or "
                "lower the model's max_prompt_tokens"
            ) from None

    def in_dev_batches(
        self, what: str, rows: Sequence[Batch], size: int, run: Callable[[Sequence[Batch]], Result]
    ) -> list[Result]:
        """As `memory.in_batches`; callbacks are told of how many of dev's rows there is `what`. Ranks share the
        batches, which are those of one process, and all of them have all results."""
        if self.ranks.sharded:
            own_results = self._dev_in_lockstep(what, rows, size, run)
        else:
            own = [rows[row] for row in self.own_of_dev(len(rows), size)]
            own_results = list(self._in_batches(what, own, size, run))
        results = self.ranks.gather(own_results)
        return [result for of_each in zip_longest(*results) for result in of_each if result is not None]

    def _dev_in_lockstep(
        self, what: str, rows: Sequence[Batch], size: int, run: Callable[[Sequence[Batch]], Result]
    ) -> list[Result]:
        """Of this rank's batches, which have no more tokens than a step's micro-batches, padding counted. All ranks run
        equally many: one that has none left runs the first again, for nothing."""
        batches = memory.within(rows, size, self.budget.tokens, _tokens_of)
        own = batches[self.ranks.number :: self.ranks.count]
        passes = -(-len(batches) // self.ranks.count)
        results = []
        with self._ending_all_where_memory_runs_out(max(map(_tokens_of, rows))):
            for done in range(passes):
                results.append(run(own[done] if done < len(own) else batches[0]))
                self._tell("on_prediction_step", looked_at=f"{what} of {done + 1} of {passes} batches")
        return results[: len(own)]

    def own_of_dev(self, rows: int, size: int) -> list[int]:
        """Of so many rows in batches of so many, by their places: those of this rank's batches."""
        first = range(self.ranks.number * size, rows, self.ranks.count * size)
        return [row for start in first for row in range(start, min(start + size, rows))]

    def _in_batches(
        self, what: str, rows: Sequence[Batch], size: int, run: Callable[[Sequence[Batch]], Result]
    ) -> Iterator[Result]:
        done = 0

        def told(batch: Sequence[Batch]) -> Result:
            nonlocal done
            result = self._run_on_dev(run, batch)
            done += len(batch)
            self._tell("on_prediction_step", looked_at=f"{what} of {done} of {len(rows)} rows")
            return result

        return memory.in_batches(rows, size, told)

    def _run_on_dev(self, run: Callable[[Sequence[Batch]], Result], batch: Sequence[Batch]) -> Result:
        """Once more where memory ran out and graphs had some, which are recorded anew after dev."""
        try:
            return run(batch)
        except gpu.MAY_BE_OOM as error:
            if not gpu.is_oom(error) or self.passes is None or not self.passes.forget():
                raise
        # Outside `except`, where the error no longer holds the frames, and so the tensors, of the failed attempt.
        gpu.release_memory()
        print("out of GPU memory at a look at dev: CUDA graphs of passes are recorded anew after it", flush=True)
        return run(batch)

    def _tell(self, event: str, **facts: Any) -> None:
        """An event of transformers' callbacks, with more than it has."""
        self.callback_handler.call_event(event, self.args, self.state, self.control, **facts)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """By the first alone; the others go on from it, too."""
        if self.ranks.is_first:
            super()._save_checkpoint(model, trial)

    def _load_best_model(self) -> None:
        """What the first will save; it alone knows that it is whole."""
        if self.ranks.is_first:
            super()._load_best_model()

    def _get_num_items_in_batch(self, *args: Any) -> None:
        """Labels are counted in `training_step`; the trainer would wait for the GPU to send it their number."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody asks for them, and to count them is to walk through all parameters at each step."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With real tokens a second since the last one, and the peak of memory so far in GiB."""
        if "loss" in logs and self._time_of_log is not None:
            now = time.perf_counter()
            seconds = now - self._time_of_log
            logs["tokens_per_second"] = round(self._tokens_since_log / seconds, 1)
            logs["peak_memory_gib"] = round(gpu.peak_memory_gib(), 2)
            self.tokens, self.seconds = self.tokens + self._tokens_since_log, self.seconds + seconds
            self._tokens_since_log, self._time_of_log = 0, now
        else:
            # An evaluation: the clock starts again with the next step.
            self._time_of_log = None
        super().log(logs, start_time)
        self.since_log.clear()


def _tokens_of(row: Any) -> int:
    return len(row["input_ids"])
