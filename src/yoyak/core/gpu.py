"""The GPU: which one, how much of its memory, and what happens where that, or the machine's, runs out."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from yoyak.core.disk import with_causes
from yoyak.core.errors import UserError
from yoyak.core.limits import LimitsParams
from yoyak.core.out_of_memory import ADVICE, is_cpu_oom, wanted_by

GIB = 2**30
OF_THE_DRIVER_GIB = 0.75
"""Of a process's GPU memory, not PyTorch's: 0.62 GiB were seen on an H200, kernels loaded and graphs recorded."""


PROCESSES_WITHOUT_GPU = "YOYAK_PROCESSES_WITHOUT_GPU"
"""Of the environment, for tests: where it is set, as many processes share the work on a CPU as GPUs may."""


def use_one() -> None:
    """Hide all GPUs but the first: trainers would share a batch among them, and multiply it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0] if visible is not None else "0"


def allowed(limits: LimitsParams) -> list[str]:
    """The GPUs that may share a stage's work, as `CUDA_VISIBLE_DEVICES` names them; a process each. Not empty, and to
    be asked before `use_one`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # To count them where one is allowed might open CUDA, which then no longer looks at the environment.
    count = torch.cuda.device_count() if limits.gpus > 1 else 1
    if not count:
        return [""] * (limits.gpus if PROCESSES_WITHOUT_GPU in os.environ else 1)
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    return names[: min(count, limits.gpus)]


def limit(limits: LimitsParams) -> None:
    """Let this process take no more of the GPU's memory than the user allows."""
    if limits.gpu_gib is not None and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        ours = max(0.0, limits.gpu_gib - OF_THE_DRIVER_GIB) * GIB
        torch.cuda.set_per_process_memory_fraction(min(1.0, ours / total))


def free_memory() -> int:
    """Bytes that this process can still allocate, `limits.gpu_gib` and what PyTorch holds in reserve considered."""
    free, total = torch.cuda.mem_get_info()
    allowed = int(torch.cuda.get_per_process_memory_fraction() * total)
    return min(free, allowed - torch.cuda.memory_reserved()) + _held_in_reserve()


def memory_in_one_piece() -> int:
    """Bytes of `free_memory` that are in no hole between what PyTorch holds: a large tensor fits in none. What it holds
    in reserve and needs not is given back first."""
    torch.cuda.empty_cache()
    return free_memory() - _held_in_reserve()


def make_room_to_record() -> None:
    """Give back what PyTorch holds in reserve, where a CUDA graph might find no memory beside it.

    A graph takes other memory than the same step before it, and PyTorch gives nothing back while one is recorded.
    """
    if free_memory() < 2 * _held_in_reserve():
        torch.cuda.empty_cache()


def _held_in_reserve() -> int:
    """Bytes that PyTorch holds and no tensor has."""
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def sent(values: Sequence[int] | torch.Tensor, device: torch.device) -> torch.Tensor:
    """The values on the device, if they are not there, without waiting for what it is at."""
    tensor = torch.as_tensor(values)
    pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return pinned.to(device, non_blocking=True)


_peak_before_reset = 0
"""In bytes."""


def reset_peak_memory() -> None:
    """Let PyTorch count the GPU's peak anew; `peak_memory_gib` does not forget."""
    global _peak_before_reset
    _peak_before_reset = max(_peak_before_reset, torch.cuda.max_memory_allocated())
    torch.cuda.reset_peak_memory_stats()


def peak_memory_gib() -> float:
    """Most memory in use so far, in GiB: of the GPU where there is one, else of this process."""
    import resource

    if torch.cuda.is_available():
        return max(_peak_before_reset, torch.cuda.max_memory_allocated()) / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


MAY_BE_OOM = (RuntimeError, MemoryError)
"""What is raised where memory runs out, and in other cases, too: `is_oom` tells them apart."""


def is_oom(error: BaseException) -> bool:
    """Whether memory ran out, the GPU's or the machine's."""
    return _is_gpu_oom(error) or is_cpu_oom(error)


def memory_of(error: BaseException) -> str:
    """Which memory it is that ran out, for a line to the user."""
    return "GPU memory" if _is_gpu_oom(error) else "memory"


def _is_gpu_oom(error: BaseException) -> bool:
    """cuBLAS, which takes some memory of its own, says so in its own way."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


def release_memory() -> None:
    """Return to the GPU, or to the machine, what a failed attempt held."""
    gc.collect()
    torch.cuda.empty_cache()


@contextmanager
def oom_in_one_line(who: str, advice: str, cpu_advice: str) -> Iterator[None]:
    """In one line, where nothing smaller can be tried: what to do where it is the GPU's memory, and the machine's."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if any(_is_gpu_oom(each) for each in with_causes(error)):
            raise UserError(f"{who}: out of GPU memory; see with `nvidia-smi` who else uses it, or {advice}") from None
        if (wanted := wanted_by(error)) is not None:
            raise UserError(f"{who}: out of memory{wanted}; {ADVICE}, or {cpu_advice}") from None
        raise
