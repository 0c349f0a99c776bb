"""Reading the competition's files, and cleaning dialogues."""

import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import field_validator

from yoyak.core.errors import UserError, quoted
from yoyak.core.params import Section
from yoyak.core.records import Dialogue
from yoyak.core.speakers import begin_turns, read
from yoyak.data.line_breaks import repaired
from yoyak.data.tables import open_table, what_it_has

REFERENCE_COLUMN = re.compile(r"(?:summary|summaries|references?)[ _-]?\d*", re.IGNORECASE)
"""`summary`, `summary2`, `summaries_1`, `reference 3`."""
ALIKE = re.compile(
    r"summar|referen|gold|target|answer|predict|generat|hypothes|output|\A(?:pred|hyp|ref|gt)s?(?![a-z])|요약|정답|예측|생성",
    re.IGNORECASE,
)
"""In names of columns that may be meant as references, or as the summaries to be scored."""


class DataParams(Section):
    """Where the CSV files are."""

    dir: Path
    """Folder of the files below; put your own CSVs in one, `dvc add` it and name it here."""
    train: str = "train.csv"
    """Columns `fname,dialogue,summary,topic`; `topic` may be missing."""
    dev: str = "dev.csv"
    """The same columns as `train`."""
    test: str = "test.csv"
    """Columns `fname,dialogue`."""
    sample_submission: str = "sample_submission.csv"
    """Gives `submission.csv` its rows, order and columns."""
    test_references: str | None = None
    """CSV of `fname` and any number of columns `summary_…`, where the test rows' references are known: then test is
    scored, too."""

    @field_validator("dir")
    @classmethod
    def _is_no_home(cls, folder: Path) -> Path:
        """The shell opens `~`, and DVC does not."""
        if folder.parts[:1] and folder.parts[0].startswith("~"):
            raise ValueError("`~` stands for no folder here; write the path in full")
        return folder

    @field_validator("train", "dev", "test", "sample_submission", "test_references")
    @classmethod
    def _lies_in_the_folder(cls, name: str | None) -> str | None:
        """DVC watches `dir` alone: of what lies elsewhere it would not see that it has changed."""
        if name is not None and (Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).parts):
            raise ValueError("a file inside data.dir is expected; put it there")
        return name


class CleanedDialogue(NamedTuple):
    """A row with what cleaning makes of it."""

    row: Dialogue
    turns: list[str]


def read_dialogues(path: Path, with_summary: bool) -> list[Dialogue]:
    """The rows of a file in its order, not cleaned; train and dev files have summaries, test files none."""
    return [each.row for each in clean_dialogues(path, with_summary)]


def clean_dialogues(path: Path, with_summary: bool) -> Iterator[CleanedDialogue]:
    """The same, cleaned, one at a time: a CSV may be larger than memory."""
    header, rows = open_table(path, ["fname", "dialogue"])
    columns = _reference_columns(header) if with_summary else []
    if with_summary:
        if not columns:
            raise UserError(f"{path}: column 'summary' is missing; {what_it_has(header)}")
        tell_passed_over(path, header, columns)
    for number, fields in enumerate(rows, start=1):
        row = dict(zip(header, fields, strict=True))
        summaries = _references(path, number, row, columns) if with_summary else ()
        topic = row.get("topic") or None
        cleaned = clean(Dialogue(fname=row["fname"], dialogue=row["dialogue"], summaries=summaries, topic=topic))
        if not cleaned.turns:
            fname = quoted(row["fname"])
            raise UserError(f"{path}, row {number} ({fname}), column 'dialogue': empty; fill it in or drop the row")
        yield cleaned


def clean(row: Dialogue) -> CleanedDialogue:
    return CleanedDialogue(row, turns(row.dialogue))


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """The references of each row, by `fname`, from all columns `summary`, `summary2`, `reference_1`, …."""
    header, rows = open_table(path, ["fname"])
    return _references_of(path, header, (dict(zip(header, row, strict=True)) for row in rows))


def references_in(path: Path, table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The references of each row of a table that was read from `path`, by `fname`."""
    return _references_of(path, list(table.columns), table.to_dict("records"))


def _references_of(path: Path, header: list[str], rows: Iterable[Mapping[Any, str]]) -> dict[str, tuple[str, ...]]:
    columns = _reference_columns(header)
    if not columns:
        raise UserError(f"{path}: no column 'summary' or 'summary_1'; {what_it_has(header)}")
    tell_passed_over(path, header, columns)
    return {row["fname"]: _references(path, number, row, columns) for number, row in enumerate(rows, start=1)}


def _references(path: Path, number: int, row: Mapping[Any, str], columns: Sequence[str]) -> tuple[str, ...]:
    summaries = tuple(row[column] for column in columns if row[column].strip())
    if not summaries:
        raise UserError(
            f"{path}, row {number} ({quoted(row['fname'])}), column '{columns[0]}': empty; fill it in or drop the row"
        )
    return summaries


def _reference_columns(header: Sequence[str]) -> list[str]:
    return [column for column in header if REFERENCE_COLUMN.fullmatch(column)]


def tell_passed_over(path: Path, header: Sequence[str], read: Sequence[str]) -> None:
    """A line on stderr, if there are columns beside those `read` whose names are like a summary's."""
    over = [repr(quoted(column)) for column in header if ALIKE.search(column) and column not in read]
    if over:
        print(f"note: {path}: passed over {', '.join(over)}; read {', '.join(map(repr, read))}", file=sys.stderr)


def turns(dialogue: str) -> list[str]:
    """The cleaned turns of a dialogue, each beginning with its speaker's label.

    Repairs what the competition's rows carry: line ends written out as `\\n` or `<br>`, a speaker's tag in the middle
    of a line, parted from its colon or in bold, blanks at line ends, decomposed Hangul. Words, masks, `…` and `ㅋㅋ`
    stay. Where no line has a label that we know, each line is a turn. Where nobody says anything there is no turn: a
    model would summarise the labels alone.
    """
    text = begin_turns(repaired(unicodedata.normalize("NFC", dialogue)))
    lines = [re.sub(r"[^\S\n]+", " ", line).strip() for line in re.split(r"[\r\n]+", text)]
    return _joined([line for line in lines if line])


def _joined(lines: list[str]) -> list[str]:
    """A line without a label goes on the turn before it, if any line has one."""
    labels = read(lines)
    if not any(_is_said(label.said if label else line) for label, line in zip(labels, lines, strict=True)):
        return []
    labelled = any(labels)
    result: list[list[str]] = []
    for label, line in zip(labels, lines, strict=True):
        if result and label is None and labelled:
            result[-1].append(line)
        else:
            result.append([label.line if label else line])
    return [" ".join(parts) for parts in result]


def _is_said(text: str) -> bool:
    """Whether there is more in it than blanks and characters of no width."""
    return any(not (each.isspace() or unicodedata.category(each) in ("Cc", "Cf")) for each in text)
