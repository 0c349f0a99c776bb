"""How much goes through the model at once: found on the machine, never a hyper-parameter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.gpu import GIB
from yoyak.core.records import read_json, write_json

# Attention over packed rows without a kernel for them grows with the square of their joint length: on two cores
# sixteen rows trained at six tenths of the rate of four (gemma3_270m, NF4; one probe).
CPU_TOKENS = 1024
# On a GPU the first micro-batch is of this size, and its memory is measured.
FIRST_TOKENS = 2048
# Beyond it nothing more was gained: 3 B, H200, 39 k tokens/s at 20 k tokens, 37 k at 5 k.
MAX_TOKENS = 24_576
MAX_MASKED_TOKENS = 4096
"""Where a mask keeps packed rows apart: it grows with the square of their joint length."""
ONE_ROW = 1
"""Most tokens where rows must not share a pass: a row is never cut."""
SHARE = 0.85
"""Of what seems free: allocations leave holes, and rows have more or fewer summary tokens, whose logits take most."""
SHARE_OF_SHARDED = 0.6
"""The same where ranks hold parts of the weights: a pass that does not fit costs all that came after the last
checkpoint."""
GROWS_AFTER = 20
"""Steps without running out of memory after which twice as many tokens are tried, up to what fitted once: what took the
memory may be gone. Twice as many steps after each attempt that failed."""
RAN_OUT = "ran_out.json"
"""Beside the checkpoints of a training whose passes were too large for ranks that wait for one another."""
OPTIMISER_BYTES = 8
"""Of AdamW's two moments in fp32, for each trained parameter."""

AFTER_OOM = "after running out of memory"

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class TokenBudget:
    """Most tokens that go forward and backward through the model at once; a row is never cut."""

    def __init__(self, max_tokens: int = MAX_TOKENS, shards: int = 1) -> None:
        """`shards`: ranks that hold a part of the weights each. They have one budget, see `agree`, and recompute
        activations from the beginning."""
        on_cpu = device() == "cpu"
        self.max_tokens = max_tokens
        self.tokens = min(max_tokens, CPU_TOKENS if on_cpu else FIRST_TOKENS)
        self.why = "the CPU's" if on_cpu else "not measured yet"
        self.shards = shards
        self.checkpointing = self.sharded
        """Whether activations are recomputed instead of kept."""
        self.bytes_per_token = 0
        """Of memory, once a pass has been measured."""
        self._measured = on_cpu
        self._kept: tuple[int, str, int, int] | None = None
        """While it is tried to recompute activations: tokens, why, how many fitted, and how much memory each took, when
        they were kept."""
        self._fitting = self.tokens
        """Tokens that memory had room for when it was measured."""
        self._grows_after, self._steps, self._grown = GROWS_AFTER, 0, False

    @property
    def sharded(self) -> bool:
        return self.shards > 1

    @contextmanager
    def measuring(self, model: Any, tokens: int) -> Iterator[None]:
        """Learn from the first pass, forward and backward, of `tokens` how many fit into the GPU's memory."""
        if self._measured:
            yield
            return
        gpu.reset_peak_memory()
        yield
        # What the pass leaves, gradients above all, stays for all passes of a step.
        of_pass = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        self.bytes_per_token = max(1, of_pass // tokens)
        trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        left = gpu.free_memory() - OPTIMISER_BYTES * trained
        share = SHARE_OF_SHARDED if self.sharded else SHARE
        self._fitting = max(1, min(self.max_tokens, int(share * left / self.bytes_per_token)))
        self.why = f"{left / GIB:.1f} GiB free, {self.bytes_per_token / 2**20:.2f} MiB a token"
        if self.checkpointing and self._kept is None:
            self.why += f", activations recomputed {'as weights are sharded' if self.sharded else AFTER_OOM}"
        self._measured = True
        if not self.sharded:
            self.tokens = self._fitting

    def agree(self, least: Callable[[int], int]) -> None:
        """All ranks take what fits on all of them: `least` makes it of what fits on each."""
        self.tokens = least(self._fitting)

    @property
    def is_measured(self) -> bool:
        """Whether the tokens are as many as fit."""
        return self._measured

    def recompute(self) -> None:
        """Recompute activations, though they fit. A token takes much less memory so, which is measured anew."""
        self._kept = self.tokens, self.why, self._fitting, self.bytes_per_token
        self.checkpointing, self._measured, self.tokens = True, device() == "cpu", min(self.max_tokens, FIRST_TOKENS)

    def keep(self) -> None:
        """Keep activations again."""
        assert self._kept is not None, "they were not kept before"
        self.tokens, self.why, self._fitting, self.bytes_per_token = self._kept
        self.checkpointing, self._measured, self._kept = False, True, None

    def settle(self, why: str) -> None:
        """Go on recomputing activations."""
        self.why, self._kept = f"{self.why}, {why}", None

    def shrink(self, longest_row: int, of: str) -> None:
        """After running out of memory, `of` which kind: half the tokens; activations recomputed where even single rows
        did not fit."""
        self._grows_after *= 2 if self._grown else 1
        self._steps, self._grown = 0, False
        if self.tokens > longest_row:
            self.tokens, self.why = self.tokens // 2, f"halved {AFTER_OOM}"
        elif not self.checkpointing:
            self.checkpointing, self.why = True, f"activations recomputed {AFTER_OOM}"
            # A token takes much less now.
            self._measured = device() == "cpu"
        else:
            raise _nothing_smaller(of, f"a single row of {longest_row} tokens")
        print(f"out of {of}: {self.tokens} tokens at once from here, {self.why}", flush=True)

    def step_done(self) -> None:
        """An optimiser step has not run out of memory: after some of them it may bear more."""
        self._steps += 1
        if self.tokens >= self._fitting or self._steps < self._grows_after:
            return
        self.tokens, self.why = min(2 * self.tokens, self._fitting), f"grown again {AFTER_OOM}"
        print(f"memory sufficed for {self._steps} steps: {self.tokens} tokens at once from here", flush=True)
        self._steps, self._grown = 0, True

    def describe(self) -> dict[str, Any]:
        return {
            "micro_batch_tokens": self.tokens,
            "micro_batch_why": self.why,
            "gradient_checkpointing": self.checkpointing,
        }

    def kept(self) -> dict[str, Any]:
        """For a checkpoint: what `take_up` takes."""
        # Of shards what fits on all.
        fitting = self.tokens if self.sharded else self._fitting
        now = self.tokens, self.why, fitting, self.bytes_per_token
        tokens, why, fitting, bytes_per_token = self._kept or now
        return {
            "micro_batch_tokens": tokens,
            "micro_batch_why": why,
            "gradient_checkpointing": self.checkpointing and self._kept is None,
            "fitting_tokens": fitting,
            "bytes_per_token": bytes_per_token,
            "shards": self.shards,
        }

    def take_up(self, kept: dict[str, Any]) -> None:
        """What an earlier run of the same training found: dropout is drawn as it would have been. Nothing, where that
        run had other parts of the weights on a GPU."""
        if kept.get("shards", 1) != self.shards:
            return
        self.tokens, self.why = min(kept["micro_batch_tokens"], self.max_tokens), kept["micro_batch_why"]
        self.checkpointing, self.bytes_per_token = kept["gradient_checkpointing"], kept.get("bytes_per_token", 0)
        self._measured, self._fitting = True, min(kept["fitting_tokens"], self.max_tokens)


def ran_out(scratch: Path, tokens: int, longest_row: int) -> None:
    """Remember that `tokens` at once were too many, where fewer can be tried: a row is never cut."""
    if tokens > longest_row:
        write_json(scratch / RAN_OUT, {"most_tokens": tokens // 2})


def most_tokens(scratch: Path) -> int:
    """That may go through at once after what `ran_out` remembers."""
    path = scratch / RAN_OUT
    return int(read_json(path)["most_tokens"]) if path.exists() else MAX_TOKENS


def until_it_fits(scratch: Path, attempt: Callable[[], Result]) -> Result:
    """What a training over sharded weights makes, begun again as long as memory runs out and smaller passes are left:
    within a pass no rank can begin anew, for the others wait."""
    while True:
        before = most_tokens(scratch)
        try:
            return attempt()
        except UserError as error:
            if most_tokens(scratch) == before:
                raise
            print(f"{error}: begun again with at most {most_tokens(scratch)} tokens at once", flush=True)


def next_rows(lengths: list[int], max_tokens: int) -> int:
    """How many of the rows that are left go through next: `max_tokens` tokens of them, unless a single row is longer.

    Fewer, where as many micro-batches of about the same size hold all that is left.
    """
    total = sum(lengths)
    target = min(max_tokens, -(-total // -(-total // max_tokens)) + max(lengths) // 2)
    rows = sum(tokens <= target for tokens in accumulate(lengths))
    return max(1, rows)


def within(rows: Sequence[Batch], size: int, max_tokens: int, length: Callable[[Any], int]) -> list[list[Batch]]:
    """The rows in batches of `size`, or fewer where a batch, padded to its longest, had more than `max_tokens`; a row
    is never cut."""
    batches: list[list[Batch]] = [[]]
    for row in rows:
        batch = [*batches[-1], row]
        if len(batch) > 1 and (len(batch) > size or len(batch) * max(map(length, batch)) > max_tokens):
            batches.append([row])
        else:
            batches[-1] = batch
    return batches


def in_batches(rows: Sequence[Batch], size: int, run: Callable[[Sequence[Batch]], Result]) -> Iterator[Result]:
    """What `run` makes of each `size` rows; of half as many from where memory ran out."""
    start = 0
    while start < len(rows):
        try:
            result = run(rows[start : start + size])
        except gpu.MAY_BE_OOM as error:
            if not gpu.is_oom(error):
                raise
            of = gpu.memory_of(error)
        else:
            yield result
            start += size
            continue
        # Outside `except`, where the error no longer holds the frames, and so the tensors, of the failed attempt.
        gpu.release_memory()
        if size == 1:
            raise _nothing_smaller(of, "a single row of dev")
        size //= 2


def _nothing_smaller(of: str, what: str) -> UserError:
    larger = "a GPU" if of == "GPU memory" else "a machine"
    return UserError(f"out of {of} with {what}; lower the model's max_prompt_tokens, or use {larger} with more memory")
