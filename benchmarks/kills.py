"""`dvc repro` as a process, the moments of its stages, and signals to it. Linux alone: it reads /proc."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from project import Project

TARGETS = ("group", "dvc", "stage")
"""Who gets SIGKILL: DVC with its stage, DVC alone, the stage alone."""
PATIENCE = 300.0
"""Seconds after which a process is taken to hang."""
POLLED = 0.01
"""Seconds between two looks."""


@dataclass(frozen=True)
class Duration:
    """What one stage took, in seconds: its process, and then DVC until `dvc.lock` was written."""

    working: float
    saving: float


class Reproduction:
    """A `dvc repro` that runs; its output goes into a file."""

    def __init__(self, project: Project, *command: str) -> None:
        self.root = project.root
        self.log = project.root.parent / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command or ("dvc", "repro"),
                cwd=project.root,
                env=project.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        """The exit code, once no process is left."""
        code = self.process.wait(PATIENCE)
        self.wait_until(lambda: not self.stages())
        return code

    def wait_until(self, happened: Callable[[], bool]) -> None:
        started = time.monotonic()
        while not happened():
            if time.monotonic() - started > PATIENCE:
                raise TimeoutError(f"{self.root}: nothing for {PATIENCE} s\n{self.printed}")
            time.sleep(POLLED)

    def wait_for_stage(self, stage: str, saving: bool) -> bool:
        """Until the stage runs, or until DVC saves what it made; whether that came before the end of all."""
        line = f"Running stage '{stage}':"
        self.wait_until(lambda: self.ended or (line in self.printed and bool(self.stages())))
        if saving:
            self.wait_until(lambda: self.ended or not self.stages())
        return not self.ended

    def stages(self) -> list[int]:
        """Processes at work in the project other than DVC: the stage's, also where DVC is dead."""
        inside = [process for process in _processes() if _folder(process) == self.root]
        return [process for process in inside if process != self.process.pid]

    def kill(self, target: str) -> bool:
        """Whether there was somebody to kill."""
        stages = self.stages()
        if self.ended or (target == "stage" and not stages):
            return False
        if target == "group":
            # A stage that was warm already is in a group of its own.
            os.killpg(self.process.pid, signal.SIGKILL)
        if target == "dvc":
            self.process.kill()
        for process in stages if target != "dvc" else ():
            _send(process, signal.SIGKILL)
        return True

    def interrupt(self) -> float:
        """Ctrl-C, as a terminal sends it; seconds until no process is left."""
        started = time.monotonic()
        os.killpg(self.process.pid, signal.SIGINT)
        self.wait()
        return time.monotonic() - started


def durations(project: Project) -> dict[str, Duration]:
    """What each stage takes in a run from the beginning that nobody disturbs."""
    run, found = Reproduction(project), {}
    for stage in _stages_of(run):
        started = time.monotonic()
        run.wait_until(lambda: not run.stages())
        ended, saved = time.monotonic(), run.printed.count("Updating lock file")
        run.wait_until(lambda: run.ended or run.printed.count("Updating lock file") > saved)  # noqa: B023, waited for here
        found[stage] = Duration(ended - started, time.monotonic() - ended)
    if run.wait():
        raise RuntimeError(f"the undisturbed run failed\n{run.printed}")
    return found


def _stages_of(run: Reproduction) -> Iterator[str]:
    """Each stage's name, as soon as it runs."""
    seen = 0
    while True:
        run.wait_until(lambda: run.ended or (len(_named(run.printed)) > seen and bool(run.stages())))  # noqa: B023
        if len(_named(run.printed)) == seen:
            return
        yield _named(run.printed)[seen]
        seen += 1


def _named(printed: str) -> list[str]:
    return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")]


def _processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _folder(process: int) -> Path | None:
    """None of a process that has ended or is another user's."""
    try:
        return Path(f"/proc/{process}/cwd").readlink()
    except OSError:
        return None


def _send(process: int, number: int) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        # It has ended meanwhile.
        return
