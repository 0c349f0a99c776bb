"""Numbers and tables as docs/results.md has them. (A module `markdown` would hide the package that MkDocs imports.)"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from yoyak.core.records import Floats


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table; each line has a cell for each column of the header."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def mean(values: ArrayLike) -> str:
    """The mean of all values, with two decimals."""
    return f"{np.mean(np.asarray(values)):.2f}"


def signed(value: float) -> str:
    """A difference, with its sign and two decimals."""
    return f"{value:+.2f}".replace("-", "−")


def interval(bounds: Sequence[float] | Floats) -> str:
    """`[low, high]`, with two decimals."""
    return "[" + ", ".join(f"{bound:.2f}" for bound in bounds).replace("-", "−") + "]"


def paragraph(text: str) -> str:
    """One line of a text that is wrapped in the source."""
    return " ".join(text.split())
