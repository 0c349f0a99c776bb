"""Errors that a user can mend, in one line."""

import functools
import signal
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class UserError(Exception):
    """A fault of input, parameters or machine, in one line: where it is, what it is, what to do."""


def exits_with_one_line(main: Callable[P, None]) -> Callable[P, None]:
    """Turn a `UserError` of a program's `main` into one line on stderr and exit code 1, Ctrl-C into one and 130; bugs
    keep their traceback."""

    @functools.wraps(main)
    def program(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            # It quotes files: even a name with a line break in it must not make it two lines.
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

    return program
