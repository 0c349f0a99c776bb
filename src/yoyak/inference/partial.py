"""Candidates written as they are found, a dialogue a line, for the run after a kill."""

import os
from pathlib import Path

from pydantic import BaseModel

from yoyak.core.records import Candidate


class PartialRow(BaseModel):
    """A line of the file that a killed run leaves."""

    row: int
    """Of the prompt, by its place."""
    candidates: list[Candidate]


def append(path: Path, row: int, candidates: list[Candidate]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(PartialRow(row=row, candidates=candidates).model_dump_json() + "\n")


def read_partial(path: Path) -> dict[int, list[Candidate]]:
    """Whole lines: the last one may have been cut, and what is added next must not stand behind its beginning."""
    if not path.exists():
        return {}
    whole, end, _cut = path.read_bytes().rpartition(b"\n")
    os.truncate(path, len(whole + end))
    rows = [PartialRow.model_validate_json(line) for line in whole.split(b"\n") if line]
    return {row.row: row.candidates for row in rows}
