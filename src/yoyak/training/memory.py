"""How many rows go through the model at once: found on the machine, never a hyper-parameter."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from yoyak.errors import UserError
from yoyak.machine import GIB, device

Result = TypeVar("Result")

# Attention over the rows of a micro-batch, joined to one sequence, grows with the square of its length: on two cores
# sixteen rows trained at six tenths of the rate of four (gemma3_270m, NF4; one probe).
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

    def smaller(self) -> "Plan":
        """The next thing to try when memory runs out: recompute activations, then half the rows."""
        if not self.gradient_checkpointing:
            return Plan(self.micro_batch_size, True, "activations recomputed after running out of memory")
        if self.micro_batch_size % 2:
            raise UserError(
                f"out of GPU memory with {self.micro_batch_size} rows at once; lower the model's max_prompt_tokens, or "
                "use a GPU with more memory"
            )
        return Plan(self.micro_batch_size // 2, True, "halved after running out of memory")


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


def shrinking_on_oom(plan: Plan, attempt: Callable[[Plan], Result]) -> tuple[Result, Plan]:
    """Run `attempt` with smaller plans until one fits into the GPU's memory; that plan comes back too."""
    import torch

    while True:
        try:
            return attempt(plan), plan
        except torch.cuda.OutOfMemoryError:
            plan = plan.smaller()
            print(f"out of GPU memory: {plan.micro_batch_size} rows at once, {plan.why}", flush=True)
        # Outside `except`, where the error no longer holds the frames, and so the tensors, of the failed attempt.
        gc.collect()
        torch.cuda.empty_cache()
