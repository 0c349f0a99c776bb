"""Errors that a user can mend, in one line; and the user's own Ctrl-C."""

import functools
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn, ParamSpec

from yoyak.core import disk, out_of_memory

P = ParamSpec("P")
INTERRUPTED = "interrupted; give the same command again, and it goes on where it was"

LONGEST_QUOTE = 200
"""Most letters of a value that an error line repeats: a cell of a CSV may be a book."""


class UserError(Exception):
    """A fault of input, parameters or machine, in one line: where it is, what it is, what to do."""


def quoted(value: object) -> str:
    """A name, key or value of a user's as an error line has it: cut where it is long."""
    text = str(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


def exits_with_one_line(main: Callable[P, None]) -> Callable[P, None]:
    """Turn a `UserError` of a program's `main` into one line on stderr and exit code 1, Ctrl-C into one and 130; bugs
    keep their traceback.

    A full disk, memory that ran out, or a file that is not this user's to write, is a `UserError`, too, whichever
    library has met it. What takes time to import, `main` imports itself: Ctrl-C may come then.
    """

    @functools.wraps(main)
    def program(*args: P.args, **kwargs: P.kwargs) -> None:
        interrupts = _counted_interrupts()
        try:
            main(*args, **kwargs)
        except BaseException as error:
            # An import written in C may make an ImportError of it.
            if interrupts or isinstance(error, KeyboardInterrupt):
                _exit(INTERRUPTED, 128 + signal.SIGINT)
            fault = line_of(error)
            if fault is None:
                raise
            # It quotes files: even a name with a line break in it must not make it two lines.
            _exit(f"error: {' '.join(fault.split())}", 1)

    return program


def line_of(error: BaseException) -> str | None:
    """What a user is told of an error that a user can mend; None of a bug."""
    if isinstance(error, UserError):
        return str(error)
    return disk.fault_of(error) or disk.refusal_of(error) or out_of_memory.fault_of(error)


def _counted_interrupts() -> list[int]:
    """A list that grows with each Ctrl-C, which raises `KeyboardInterrupt` as it does without."""
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    # Where a shell runs a program behind others (`&`), it ignores Ctrl-C, and goes on doing so.
    if (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, interrupt)
    return interrupts


def _exit(line: str, status: int) -> NoReturn:
    print(line, file=sys.stderr)
    sys.exit(status)
