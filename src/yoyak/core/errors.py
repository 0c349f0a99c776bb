"""Errors that a user can mend, in one line."""

import functools
import sys
from collections.abc import Callable
from typing import NoReturn, ParamSpec

from yoyak.core import disk

P = ParamSpec("P")


class UserError(Exception):
    """A fault of input, parameters or machine, in one line: where it is, what it is, what to do."""


def exits_with_one_line(main: Callable[P, None]) -> Callable[P, None]:
    """Turn a `UserError` of a program's `main` into one line on stderr and exit code 1; bugs keep their traceback.

    A full disk is such a fault, whichever library has met it.
    """

    @functools.wraps(main)
    def program(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            _exit(str(error))
        except Exception as error:
            fault = disk.fault_of(error)
            if fault is None:
                raise
            _exit(fault)

    return program


def _exit(fault: str) -> NoReturn:
    # It quotes files: even a name with a line break in it must not make it two lines.
    print(f"error: {' '.join(fault.split())}", file=sys.stderr)
    sys.exit(1)
