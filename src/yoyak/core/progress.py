"""Progress of long work: a bar on a terminal; in a log, a file or a pipe, a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

INTERVAL = 60.0
"""Seconds from one line to the next; work that takes less has a line at its end alone."""
clock = time.monotonic
"""Seconds from any point on."""


def on_terminal() -> bool:
    """Whether somebody looks at standard output as it is written."""
    return sys.stdout.isatty()


def span(seconds: float) -> str:
    """A duration for a reader: 0.4 s, 50 s, 12 min, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class Reporter:
    """Shows one piece of work while it is open, as a context: one bar, or lines that begin with its title.

    The first line comes with the first estimate, where that is more than a minute; then there is at most one a minute,
    beside those that are always printed.
    """

    def __init__(self, title: str, unit: str) -> None:
        self.title, self._unit = title, unit
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            disable=not on_terminal(),
        )
        self._task = self._bar.add_task(title, total=None, visible=False, note=unit)
        self._next_line = clock() + INTERVAL
        self._estimated = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, done: int, total: int) -> None:
        """Draw the bar; `done` of earlier runs, too."""
        self._bar.update(self._task, completed=done, total=total, visible=True)
        self._next_line = clock() + INTERVAL

    def show(self, done: float, note: str, line: str, left: float | None = None) -> None:
        """Move the bar, with `note` beside it, or print `line` if one is due.

        `done` is in the bar's unit; `left` are the seconds that the work will still take, where that is known.
        """
        self.move(done, note)
        if self._due(left) and not on_terminal():
            self.say(line)

    def move(self, done: float, note: str) -> None:
        """Move the bar, and print no line."""
        self._bar.update(self._task, completed=done, note=f"{self._unit}, {note}" if note else self._unit)

    def end(self, done: int, note: str) -> None:
        """Leave the bar with `note` in place of the time left, or print a line with it."""
        self.move(done, note)
        if not on_terminal():
            self.say(f"{done} of {done} {self._unit}, {note}")

    def _due(self, left: float | None) -> bool:
        first_estimate = left is not None and not self._estimated
        self._estimated = self._estimated or first_estimate
        return clock() >= self._next_line or (first_estimate and left is not None and left >= INTERVAL)

    def say(self, text: str) -> None:
        """Print a line in any case."""
        self._next_line = clock() + INTERVAL
        line = f"{self.title}: {text}"
        if on_terminal():
            self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
        else:
            say(line)


def say(line: str) -> None:
    """Print a line on standard output at once and in one piece: another thread may write there, too."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def timed(what: str, so_far: Callable[[], str] | None = None) -> Iterator[None]:
    """Print a line when `what` begins and one with its duration when it has ended; in between, those of `waiting`."""
    say(what)
    started = clock()
    with waiting(what, so_far):
        yield
    say(f"{what}: done in {span(clock() - started)}")


_silent = False


def leave_to_another_process() -> None:
    """From here on `waiting` prints nothing: the process that this one works for tells how far they all are."""
    global _silent
    _silent = True


_waits: list[Event] = []
"""Waits that are open, the innermost last: it alone prints lines."""


@contextmanager
def waiting(what: str, so_far: Callable[[], str] | None = None) -> Iterator[None]:
    """Print a line each minute while a library works on `what` in silence; none on a terminal.

    `so_far` returns how much is done; without it the line has the time.
    """
    started, over = clock(), Event()

    def report() -> None:
        while not over.wait(INTERVAL):
            if _waits[-1:] == [over]:
                say(f"{what}: {so_far() if so_far else span(clock() - started)} so far")

    thread = Thread(target=report, daemon=True)
    _waits.append(over)
    if not on_terminal() and not _silent:
        thread.start()
    try:
        yield
    finally:
        _waits.remove(over)
        over.set()
        if thread.ident is not None:
            thread.join()
