"""What a search draws parameters from, as the key `search` of a list has it."""

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StrictFloat, StrictInt, model_validator

from yoyak.core.params import Section

Value = bool | int | float | str | None
"""Of a parameter, as both Optuna's journal and `-S` can have it."""
Numbers = tuple[StrictFloat, StrictFloat]
Integers = tuple[StrictInt, StrictInt]
Choices = Annotated[list[Any], Field(min_length=2)]
KINDS = ("uniform", "log", "int", "choice")


class Range(Section):
    """Of one parameter: exactly one of these keys."""

    uniform: Numbers | None = None
    """From the first to the second, each number as likely."""
    log: Numbers | None = None
    """The same, each order of magnitude as likely."""
    int: Integers | None = None
    """Integers from the first to the second, both included."""
    choice: Choices | None = None
    """One of these."""

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"one of {', '.join(KINDS)} is expected; this has {' and '.join(given) or 'none'}")
        if self.choice is not None:
            _check_choices(self.choice)
            return self
        low, high = self.uniform or self.log or self.int or (0, 0)
        if low >= high:
            raise ValueError(f"{given[0]}: the first, {low}, must be below the second, {high}")
        if self.log is not None and low <= 0:
            raise ValueError(f"log: {low} has no logarithm; both must be above 0")
        return self

    @property
    def ends(self) -> list[Value]:
        """Both bounds, or all choices."""
        return list(self.uniform or self.log or self.int or self.choice or [])


def _check_choices(values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, Value):
            raise ValueError(f"choice: {value!r}: a number, a text, true, false or null is expected")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"choice: {value} is no value of a parameter")
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"choice: {value!r}: `-S` takes ${{ for a reference")
    # As Optuna does, which tells choices apart by ==.
    if len({*values}) < len(values):
        raise ValueError("choice: a value stands twice; 1, 1.0 and true are the same here")


def overrides(values: Mapping[str, Value]) -> tuple[str, ...]:
    """As `dvc exp run -S` takes them."""
    return tuple(f"{key}={quoted(value)}" for key, value in values.items())


def quoted(value: Value) -> str:
    """The value in Hydra's grammar, which reads it as the same value of the same type."""
    if not isinstance(value, str):
        return json.dumps(value)
    # In its quotes a backslash is one, but before a quote.
    return '"' + re.sub(r'(\\*)("|\Z)', lambda found: 2 * found[1] + found[2].replace('"', r"\""), value) + '"'


def end_points(ranges: Mapping[str, Range]) -> list[dict[str, Value]]:
    """Parameters in which each bound and each choice stands at least once."""
    first = {key: each.ends[0] for key, each in ranges.items()}
    return [first] + [{**first, key: end} for key, each in ranges.items() for end in each.ends[1:]]
