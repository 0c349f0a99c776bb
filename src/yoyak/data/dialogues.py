"""Reading the competition's files, cleaning dialogues, and reporting what was found."""

import re
import statistics
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import field_validator

from yoyak.core.errors import UserError, quoted
from yoyak.core.params import Section
from yoyak.core.records import Dialogue
from yoyak.core.speakers import begin_turns, read, speakers
from yoyak.data.line_breaks import repaired
from yoyak.data.tables import read_table, what_it_has

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


def read_dialogues(path: Path, with_summary: bool) -> list[Dialogue]:
    """The rows of a file in its order, not cleaned; train and dev files have summaries, test files none."""
    table = read_table(path, ["fname", "dialogue"])
    if with_summary and not _reference_columns(table):
        raise UserError(f"{path}: column 'summary' is missing; {what_it_has(list(table.columns))}")
    for row, text in enumerate(table["dialogue"], start=1):
        if not turns(text):
            fname = quoted(table["fname"].iloc[row - 1])
            raise UserError(f"{path}, row {row} ({fname}), column 'dialogue': empty; fill it in or drop the row")
    summaries = references_in(path, table) if with_summary else {}
    return [
        Dialogue(
            fname=row["fname"],
            dialogue=row["dialogue"],
            summaries=summaries.get(row["fname"], ()),
            topic=row.get("topic") or None,
        )
        for row in table.to_dict("records")
    ]


def read_references(path: Path) -> dict[str, tuple[str, ...]]:
    """The references of each row, by `fname`, from all columns `summary`, `summary2`, `reference_1`, …."""
    return references_in(path, read_table(path, ["fname"]))


def references_in(path: Path, table: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The references of each row of a table that was read from `path`, by `fname`."""
    columns = _reference_columns(table)
    if not columns:
        raise UserError(f"{path}: no column 'summary' or 'summary_1'; {what_it_has(list(table.columns))}")
    tell_passed_over(path, table, columns)
    references = {
        row["fname"]: tuple(row[column] for column in columns if row[column].strip())
        for row in table.to_dict("records")
    }
    for row, (fname, summaries) in enumerate(references.items(), start=1):
        if not summaries:
            raise UserError(
                f"{path}, row {row} ({quoted(fname)}), column '{columns[0]}': empty; fill it in or drop the row"
            )
    return references


def _reference_columns(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if REFERENCE_COLUMN.fullmatch(column)]


def tell_passed_over(path: Path, table: pd.DataFrame, read: Sequence[str]) -> None:
    """A line on stderr, if there are columns beside those `read` whose names are like a summary's."""
    over = [repr(quoted(column)) for column in table.columns if ALIKE.search(column) and column not in read]
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


def note_on_labels(rows: Sequence[Dialogue]) -> list[str]:
    """A line on the rows in which nobody speaks under a label that we know: their number and the first; or none."""
    names = [quoted(row.fname) for row in rows if not speakers("\n".join(turns(row.dialogue)))]
    if not names:
        return []
    others = f" (and {len(names) - 1} more of {len(rows)} rows)" if len(names) > 1 else ""
    return [
        f"{names[0]}{others}: nobody speaks under a label such as `#Person1#:` or `A:`, so that each line is read as a "
        "turn"
    ]


def quality_report(splits: dict[str, list[Dialogue]]) -> dict[str, Any]:
    """Sizes, repairs and leakage of each split, for `metrics/data.json`."""
    texts = {name: ["\n".join(turns(row.dialogue)) for row in rows] for name, rows in splits.items()}
    seen = set(texts["train"])
    return {
        name: {
            "rows": len(rows),
            "dialogue_characters": _spread([len(text) for text in texts[name]]),
            "summary_characters": _spread([len(summary) for row in rows for summary in row.summaries]),
            "turns": _spread([text.count("\n") + 1 for text in texts[name]]),
            "speakers": dict(sorted(Counter(str(len(speakers(text))) for text in texts[name]).items())),
            "repaired_rows": sum(text != row.dialogue for text, row in zip(texts[name], rows, strict=True)),
            "rows_in_train_too": 0 if name == "train" else sum(text in seen for text in texts[name]),
            "duplicate_dialogues": len(rows) - len(set(texts[name])),
        }
        for name, rows in splits.items()
    }


def _spread(values: list[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }
