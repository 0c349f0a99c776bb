"""Candidates written as they are found, a dialogue a line, for the run after a kill."""

import os
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from yoyak.core.errors import UserError
from yoyak.core.records import Candidate


class PartialRow(BaseModel):
    """A line of the file that a killed run leaves."""

    row: int = Field(ge=0)
    """Of the prompt, by its place."""
    candidates: list[Candidate] = Field(min_length=1)


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
    lines = whole.split(b"\n") if whole else []
    rows = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    return {row.row: row.candidates for row in rows}


def _parse(path: Path, number: int, line: bytes) -> PartialRow:
    try:
        return PartialRow.model_validate_json(line)
    except ValidationError:
        raise UserError(f"{path}, line {number}: damaged; delete the file, and its rows are summarised anew") from None
