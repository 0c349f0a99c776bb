"""One experiment in its copy of the project: the stages, and then its small JSON."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yoyak.sweeps import copies


@dataclass(frozen=True)
class Outcome:
    """What came of an experiment."""

    well: bool | None
    """Whether it ended well; None where it did not begin."""
    minutes: float = 0
    files: dict[str, str] = field(default_factory=dict)
    """Content of files that are not in `--out` yet, by their endings: of an experiment that ran on another machine."""
    kept: bytes = b""
    """What `trials.bundle` made of it there."""


LATE = Outcome(None)


def environment(gpu: str, at_once: int) -> dict[str, str]:
    """Of one of so many experiments at once on this machine; `gpu` is its `CUDA_VISIBLE_DEVICES`."""
    cores = str(max(1, (os.cpu_count() or 1) // at_once))
    return {
        "CUDA_VISIBLE_DEVICES": gpu,
        "OMP_NUM_THREADS": cores,
        "LOKY_MAX_CPU_COUNT": cores,
        "TORCHINDUCTOR_COMPILE_THREADS": cores,
    }


def execute(
    copy: Path,
    log: Path,
    result: Path,
    about: dict[str, Any],
    environment: dict[str, str],
    seconds: float = math.inf,
    shared: bool = False,
    watched: bool = False,
    keep: Callable[[], None] | None = None,
) -> Outcome:
    """Run the stages of a copy, and write `result`, in which `about` comes before the figures.

    What is printed goes to `log`. `keep` comes between the two, so that what has a result is kept. The rest is as
    `copies.repro` has it.
    """
    started = time.monotonic()
    well = copies.repro(copy, log, environment, seconds=seconds, shared=shared, watched=watched)
    minutes = (time.monotonic() - started) / 60
    if well and keep:
        keep()
    if well:
        told = json.dumps({**about, "minutes": round(minutes, 2)})
        # In a process of its own: several may end at once, and each scores on its own share of the cores.
        collect = ["-m", "yoyak.sweeps.collect", str(copy), str(result), told]
        well = copies.python(collect, log, copies.with_its_code(copy, environment), watched=watched)
    return Outcome(well, minutes)
