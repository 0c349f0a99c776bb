"""CSV files that stages write, read again: a column or field that is not as it was written is named."""

import io
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import pandas as pd

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import read_text
from yoyak.core.records import MEND, absent

LARGEST = 1e9
"""Beyond any score, step or count of a run."""


def read_stage_table(
    path: Path, texts: Sequence[str], figures: Sequence[str], perhaps: Sequence[str] = ()
) -> pd.DataFrame:
    """The table in a stage's file, as `parsed` has it."""
    missing = "no such file; run `dvc repro`, or `dvc pull` if it was pushed"
    return parsed(read_text(path, missing, MEND), str(path), texts, figures, perhaps)


def parsed(
    text: str, where: str, texts: Sequence[str], figures: Sequence[str], perhaps: Sequence[str] = (), mend: str = MEND
) -> pd.DataFrame:
    """The table in `text`: the columns `texts`, and numbers in `figures`; in `perhaps` a field may be empty (NaN).

    `where` names the file in errors, and `mend` says what to do.
    """
    try:
        table = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    # An empty file, or one cut inside a quoted field.
    except ValueError as error:
        raise UserError(f"{where}: cannot be read as CSV: {quoted(error)}; {mend}") from None
    for name in (*texts, *figures, *perhaps):
        if name not in table.columns:
            raise UserError(f"{where}: column {absent(name, table.columns)}; {mend}")
    # In a row of too few fields the last ones are NaN, and too many make the first an index.
    short = table[list(texts)].isna().any(axis=1)
    if short.any() or not isinstance(table.index, pd.RangeIndex):
        row = int(short.to_numpy().argmax()) + 1
        raise UserError(f"{where}, row {row}: not as many fields as the header has; {mend}")
    for name in (*figures, *perhaps):
        table[name] = _numbers(table[name], where, mend, name in perhaps)
    return table


def _numbers(column: "pd.Series[str]", where: str, mend: str, may_be_empty: bool) -> "pd.Series[float]":
    numbers = pd.to_numeric(column, "coerce").astype(float)
    for row, (field, number) in enumerate(zip(column, numbers, strict=True), start=1):
        if not (isfinite(number) and abs(number) <= LARGEST) and not (may_be_empty and field == ""):
            raise UserError(f"{where}, row {row}, column '{column.name}': a number is expected; {mend}")
    return numbers
