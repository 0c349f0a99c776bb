"""Numbers and tables, as Markdown has them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def mean(values: Any) -> str:
    return f"{np.mean(values):.2f}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def interval(bounds: Sequence[float]) -> str:
    return "[" + ", ".join(f"{bound:.2f}" for bound in bounds).replace("-", "−") + "]"


def paragraph(text: str) -> str:
    """One line of a text that is wrapped in the source."""
    return " ".join(text.split())
