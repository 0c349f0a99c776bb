"""The machine's own memory that runs out, by whichever library it is met. The GPU's: `core.gpu`."""

import errno
import re

from yoyak.core.disk import in_words, with_causes

OF_LIBRARIES = re.compile(r"can't allocate memory|Cannot allocate memory|\(os error 12\)|std::bad_alloc")
"""PyTorch's allocator, its and safetensors' reading of weights, and code in C++ raise errors of any type."""
OF_PYTORCH = re.compile(r"tried to allocate (\d+) bytes")
ADVICE = "see with `free -h` how much there is and with `top` who else uses it"


def is_cpu_oom(error: BaseException) -> bool:
    """Whether it is the memory of the machine, not that of a GPU, that ran out."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, Exception) and bool(OF_LIBRARIES.search(str(error)))


def wanted_by(error: BaseException) -> str | None:
    """How much was wanted, for a line on an error that memory has caused, empty where that is not known; None where
    another fault has."""
    found = next((each for each in with_causes(error) if is_cpu_oom(each)), None)
    if found is None:
        return None
    wanted = OF_PYTORCH.search(str(found))
    return f", {in_words(int(wanted[1]))} more were wanted" if wanted else ""


def fault_of(error: BaseException) -> str | None:
    """One line on an error that memory has caused; None where another fault has."""
    wanted = wanted_by(error)
    return None if wanted is None else f"out of memory{wanted}; {ADVICE}"
