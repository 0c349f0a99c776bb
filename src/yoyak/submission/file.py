"""`submission.csv`, with the rows, order and columns of the sample submission."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field

from yoyak.core.errors import UserError, quoted
from yoyak.core.params import Section
from yoyak.core.records import Prediction
from yoyak.data.tables import read_table


class SubmissionParams(Section):
    """Bounds of a submission."""

    max_characters: int = Field(ge=1)
    """Longer summaries are flagged; the longest of the competition's references has 376 characters."""


def read_sample(path: Path) -> pd.DataFrame:
    """The sample submission, an unnamed index column and all."""
    return read_table(path, ["fname", "summary"])


def fill(sample: pd.DataFrame, predictions: Sequence[Prediction]) -> pd.DataFrame:
    """The sample's rows, order and columns, with the predicted summaries."""
    summaries = {prediction.fname: prediction.text for prediction in predictions}
    missing = [fname for fname in sample["fname"] if fname not in summaries]
    if missing:
        raise UserError(
            f"the sample submission asks for {quoted(missing[0])} (and {len(missing) - 1} more), which the test file "
            "has not; give data.test and data.sample_submission of the same competition"
        )
    return sample.assign(summary=[_one_line(summaries[fname]) for fname in sample["fname"]])


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV in UTF-8, one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")
