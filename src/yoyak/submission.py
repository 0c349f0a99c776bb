"""`submission.csv`, exactly as the sample submission wants it, and the checklist that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import Field

from yoyak.diagnostics import ends_as_a_sentence
from yoyak.errors import UserError
from yoyak.parameters import Section
from yoyak.records import Prediction
from yoyak.tables import read_table


class SubmissionParams(Section):
    """What a submission must not be."""

    max_characters: int = Field(ge=1)
    """Longer summaries are flagged; the longest of the competition's references has 376 characters."""


@dataclass(frozen=True)
class Check:
    """A line of the checklist."""

    name: str
    faults: list[str]
    """The rows that fail it."""
    hard: bool
    """Whether a fault stops the stage."""

    def line(self) -> str:
        mark = "x" if not self.faults else " "
        reason = "" if not self.faults else f": {len(self.faults)} rows, the first: {self.faults[0]}"
        return f"- [{mark}] {self.name}{reason}"


def read_sample(path: Path) -> pd.DataFrame:
    """The sample submission, an unnamed index column and all."""
    return read_table(path, ["fname", "summary"])


def fill(sample: pd.DataFrame, predictions: Sequence[Prediction]) -> pd.DataFrame:
    """The sample's rows, order and columns, with the predicted summaries."""
    summaries = {prediction.fname: prediction.text for prediction in predictions}
    missing = [fname for fname in sample["fname"] if fname not in summaries]
    if missing:
        raise UserError(
            f"the sample submission asks for {missing[0]} (and {len(missing) - 1} more), which the test file has not; "
            "give data.test and data.sample_submission of the same competition"
        )
    return sample.assign(summary=[_one_line(summaries[fname]) for fname in sample["fname"]])


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def write(table: pd.DataFrame, path: Path) -> None:
    """UTF-8, one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def checklist(written: Path, sample: pd.DataFrame, params: SubmissionParams) -> list[Check]:
    """What holds of the file as it lies on the disk."""
    table = read_sample(written)
    texts = dict(zip(table["fname"], table["summary"], strict=True))
    return [
        Check("the sample submission's columns", _differing_columns(table, sample), hard=True),
        Check("the sample submission's rows in its order", _differing_rows(table, sample), hard=True),
        Check("no empty summary", [fname for fname, text in texts.items() if not text.strip()], hard=True),
        Check("one line each", [fname for fname, text in texts.items() if "\n" in text], hard=True),
        Check(
            f"at most {params.max_characters} characters",
            [fname for fname, text in texts.items() if len(text) > params.max_characters],
            hard=False,
        ),
        Check(
            "each ends as a sentence does",
            [fname for fname, text in texts.items() if not ends_as_a_sentence(text)],
            hard=False,
        ),
    ]


def _differing_columns(table: pd.DataFrame, sample: pd.DataFrame) -> list[str]:
    return [] if list(table.columns) == list(sample.columns) else [", ".join(table.columns)]


def _differing_rows(table: pd.DataFrame, sample: pd.DataFrame) -> list[str]:
    keys = [column for column in sample.columns if column != "summary" and column in table.columns]
    if len(table) != len(sample):
        return [f"{len(table)} rows instead of {len(sample)}"]
    same = (table[keys] == sample[keys]).all(axis=1)
    return list(table["fname"][~same])


def to_markdown(checks: Sequence[Check]) -> str:
    return "\n".join(["# Submission", "", *(check.line() for check in checks), ""])


def require(checks: Sequence[Check]) -> None:
    """Stop at the first hard check that fails."""
    for check in checks:
        if check.hard and check.faults:
            raise UserError(
                f"the submission fails the check '{check.name}': {check.faults[0]} (and {len(check.faults) - 1} more); "
                "see submission/checklist.md, mend what wrote ensemble/test.jsonl and run again"
            )
