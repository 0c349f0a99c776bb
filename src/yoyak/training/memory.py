"""How many rows go through the model at once: found on the machine, never a hyper-parameter."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from yoyak.machine import GIB, device

Result = TypeVar("Result")

# Attention over the rows of a micro-batch, joined to one sequence, grows with the square of its length: on two cores
# four rows trained 222 tokens/s, sixteen 135 (gemma3_270m, NF4).
CPU_ROWS = 4
# A first guess: 64 rows of a 3 B model under 4 bits, with checkpointing, took 19.4 GiB on an H100. Where that is
# too much, for a larger model or longer rows, it costs a halving.
GPU_ROWS_PER_GIB = 3
# Below this much free memory activations are recomputed instead of kept.
CHECKPOINTING_BELOW_GIB = 40


@dataclass(frozen=True)
class Plan:
    """What one forward and backward pass takes."""

    micro_batch_size: int
    gradient_checkpointing: bool
    why: str

    def accumulation(self, effective_batch_size: int) -> int:
        return max(1, effective_batch_size // self.micro_batch_size)

    def halved(self) -> "Plan":
        return Plan(self.micro_batch_size // 2, self.gradient_checkpointing, "halved after running out of memory")


def first_plan(effective_batch_size: int) -> Plan:
    """The largest micro-batch, a divisor of the effective batch by two's, that free memory promises to hold."""
    if device() == "cpu":
        return Plan(_halve_to(effective_batch_size, CPU_ROWS), False, f"CPU: at most {CPU_ROWS} rows")
    import torch

    free = torch.cuda.mem_get_info()[0] / GIB
    rows = _halve_to(effective_batch_size, max(1, int(free * GPU_ROWS_PER_GIB)))
    return Plan(rows, free < CHECKPOINTING_BELOW_GIB, f"{free:.1f} GiB free on the GPU")


def _halve_to(rows: int, most: int) -> int:
    """`rows` halved, while it divides evenly, until at most `most`; 1 where it does not."""
    while rows > most:
        if rows % 2:
            return 1
        rows //= 2
    return rows


def halving_on_oom(plan: Plan, attempt: Callable[[Plan], Result]) -> tuple[Result, Plan]:
    """Run `attempt`, with half the micro-batch after each out-of-memory error; the plan that worked comes back too."""
    import torch

    while True:
        try:
            return attempt(plan), plan
        except torch.cuda.OutOfMemoryError:
            if plan.micro_batch_size % 2:
                raise
            plan = plan.halved()
            print(f"out of GPU memory: going on with {plan.micro_batch_size} rows at once", flush=True)
        # Outside `except`, where the error no longer holds the frames, and so the tensors, of the failed attempt.
        gc.collect()
        torch.cuda.empty_cache()
