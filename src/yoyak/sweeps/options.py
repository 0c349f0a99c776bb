"""What a list of experiments is run with."""

import math
from dataclasses import dataclass
from pathlib import Path

from yoyak.sweeps.experiments import Run


@dataclass(frozen=True)
class Options:
    """Which experiments run, where, and how many at once."""

    experiments: Path
    """The YAML file with the list."""
    data: Path
    """The folder that the list's data folders are in."""
    out: Path
    """Where a JSON and a log of each run go."""
    work: Path
    """Copies of the project, and DVC's cache for them."""
    gpus: int | None = None
    """0: on the CPU; None: one, where there is one."""
    per_gpu: int = 1
    """Runs at once on each."""
    minutes: float = math.inf
    """After so many no run starts."""
    only: tuple[str, ...] = ()
    """Names of the experiments that are run; empty: all."""
    commit: str | None = None
    """Of the project, where it is no git repository."""
    seconds: float = math.inf
    """After so many a run that is not done yet is killed; called again, it goes on."""
    address: str | None = None
    """Of a Ray cluster; None: this machine alone."""
    remote: str | None = None
    """The DVC remote through which machines share what they have computed."""

    def result(self, run: Run) -> Path:
        return self.out / f"{run.name}.json"

    def log(self, run: Run) -> Path:
        return self.out / f"{run.name}.log"

    def copy(self, run: Run) -> Path:
        """The run's copy of the project."""
        return self.work / run.name
