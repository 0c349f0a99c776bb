"""An experiment that is ready to be run, and the place where it is."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yoyak.sweeps.execution import Outcome
from yoyak.sweeps.experiments import Run


@dataclass(frozen=True)
class Job:
    """A run without a result, checked."""

    run: Run
    needs: frozenset[str]
    """What it trains and writes: see `schedule.work`."""
    made_of: tuple[Path, Path, dict[str, Any], list[str], str]
    """Of its copy, as `copies.make` takes it: DVC's cache, data, changed parameters, overrides, remote."""
    about: dict[str, Any]
    """Where its JSON begins."""
    copy: Path
    """Where its copy of the project is, on each machine."""
    log: Path
    result: Path
    kept_as: str | None = None
    """The name of its experiment of DVC; None: it is none."""

    @property
    def remote(self) -> bool:
        """Whether machines share what they compute through a remote of DVC."""
        return bool(self.made_of[-1])


@dataclass(frozen=True)
class Place:
    """Where jobs are at work."""

    room: Callable[[], int]
    """For how many at once there is room now."""
    ready: Callable[[Job], Callable[[], Future[Outcome]]]
    """Brings the project as it is now into the job's copy; what it returns lets the job begin once there is room."""
