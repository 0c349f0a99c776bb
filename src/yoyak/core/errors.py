"""Errors that a user can mend, in one line."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")

LONGEST_QUOTE = 200
"""Most letters of a value that an error line repeats: a cell of a CSV may be a book."""


class UserError(Exception):
    """A fault of input, parameters or machine, in one line: where it is, what it is, what to do."""


def quoted(value: object) -> str:
    """A name, key or value of a user's as an error line has it: cut where it is long."""
    text = str(value)
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"


def exits_with_one_line(main: Callable[P, None]) -> Callable[P, None]:
    """Turn a `UserError` of a program's `main` into one line on stderr and exit code 1; bugs keep their traceback."""

    @functools.wraps(main)
    def program(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            # It quotes files: even a name with a line break in it must not make it two lines.
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(1)

    return program
