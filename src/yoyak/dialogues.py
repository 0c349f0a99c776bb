"""Reading the competition's CSV files, cleaning dialogues, and reporting what was found."""

import csv
import io
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from yoyak.errors import UserError
from yoyak.parameters import Section
from yoyak.records import Dialogue

SPEAKER = re.compile(r"(#Person\d+#)\s*:")
BREAK = re.compile(r"(?:<br\s*)+/?>", re.IGNORECASE)


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
    """CSV of `fname` and any number of columns `summary_…`, where the test rows' references are known. The
    preflight checks it; scores are of dev."""


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text, with at least `columns`; `fname` unique and filled in each row."""
    header, *rows = _rows(path, _text(path)) or [[]]
    for column in columns:
        if column not in header:
            raise UserError(f"{path}: column '{column}' is missing; {_what_it_has(header)}")
    for column, count in Counter(header).items():
        if count > 1:
            raise UserError(f"{path}: column '{column}' stands {count} times in the header; keep one")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UserError(
                f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}; put double quotes round a "
                "field that holds commas or line breaks"
            )
    table = pd.DataFrame(rows, columns=header, dtype=object)
    _check_names(path, table)
    return table


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; set data.dir to the folder of your CSV files") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a CSV file; name the file inside it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: UTF-16, not UTF-8; convert it: `iconv -f utf-16 -t utf-8`")
    if b"\0" in content:
        raise UserError(f"{path}: not a CSV file (byte {content.index(0)} is NUL); export the table as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not UTF-8 (byte {error.start}); a CSV saved by Excel is cp949: "
            "`iconv -f cp949 -t utf-8`"
        ) from None


def _rows(path: Path, text: str) -> list[list[str]]:
    """Header and rows. Not by pandas: it fills a short row up, cuts a long one, and lets a lone quote swallow rows."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in reader if row)
    except csv.Error as error:
        raise UserError(
            f"{path}, row {len(rows)}, up to line {reader.line_num}: {error}; close each double quote, and double "
            "those inside a field"
        ) from None
    return rows


def _what_it_has(header: Sequence[str]) -> str:
    if not header:
        return "the file is empty"
    names = [repr(name if len(name) <= 40 else f"{name[:40]}…") for name in header[:8]]
    return f"it has {', '.join(names)}" + (", …" if len(header) > 8 else "")


def _check_names(path: Path, table: pd.DataFrame) -> None:
    if table.empty:
        raise UserError(f"{path}: no rows under the header; fill them in")
    rows: dict[str, int] = {}
    for row, fname in enumerate(table["fname"], start=1):
        if not fname.strip():
            raise UserError(f"{path}, row {row}, column 'fname': empty; name the row")
        if fname in rows:
            raise UserError(f"{path}, row {row}, column 'fname': {fname} stands in row {rows[fname]} too; drop one")
        rows[fname] = row


def read_dialogues(path: Path, with_summary: bool) -> list[Dialogue]:
    """The rows of a CSV file in its order, as they stand; train and dev files have summaries, test files none."""
    columns = ["fname", "dialogue", "summary"] if with_summary else ["fname", "dialogue"]
    table = read_table(path, columns)
    for column in columns[1:]:
        for row, text in enumerate(table[column], start=1):
            if not (turns(text) if column == "dialogue" else text.strip()):
                fname = table["fname"].iloc[row - 1]
                raise UserError(f"{path}, row {row} ({fname}), column '{column}': empty; fill it in or drop the row")
    return [
        Dialogue(
            fname=row["fname"],
            dialogue=row["dialogue"],
            summaries=(row["summary"],) if with_summary else (),
            topic=row.get("topic") or None,
        )
        for row in table.to_dict("records")
    ]


def read_references(path: Path, fnames: Sequence[str]) -> list[tuple[str, ...]]:
    """The references of each of `fnames` from a CSV with one or more columns whose names begin with `summary`."""
    table = read_table(path, ["fname"])
    columns = [column for column in table.columns if column.startswith("summary")]
    if not columns:
        raise UserError(f"{path}: no column begins with 'summary'; it has {', '.join(map(repr, table.columns))}")
    by_name = {
        row["fname"]: tuple(row[column] for column in columns if row[column].strip())
        for row in table.to_dict("records")
    }
    for fname in fnames:
        if not by_name.get(fname):
            raise UserError(
                f"{path}: no reference summary for {fname}; add its row, or leave data.test_references empty"
            )
    return [by_name[fname] for fname in fnames]


def turns(dialogue: str) -> list[str]:
    """The cleaned turns of a dialogue, each beginning with its speaker's tag.

    Repairs what the competition's rows carry: line ends written out as `\\n` or `<br>`, a speaker's tag in the middle
    of a line or parted from its colon, blanks at line ends, decomposed Hangul. Words, masks, `…` and `ㅋㅋ` stay.
    """
    text = unicodedata.normalize("NFC", dialogue).replace("\\n", "\n")
    text = SPEAKER.sub(r"\n\1:", BREAK.sub("\n", text))
    lines = [re.sub(r"[^\S\n]+", " ", line).strip() for line in re.split(r"[\r\n]+", text)]
    return _joined([line for line in lines if line])


def _joined(lines: list[str]) -> list[str]:
    """A line without a speaker's tag goes on the turn before it."""
    result: list[str] = []
    for line in lines:
        if result and not SPEAKER.match(line):
            result[-1] += f" {line}"
        else:
            result.append(line)
    return result


def speakers(dialogue: str) -> set[str]:
    """The tags of those who speak: `{"#Person1#", "#Person2#"}`."""
    return set(SPEAKER.findall(dialogue))


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
