"""Files of rows by `fname`, CSV or JSON, read strictly: a fault is named with file, row and column."""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import FROM_EXCEL, read_text, text_lines
from yoyak.data import json_rows

JSON_SUFFIXES = (".jsonl", ".json")
OF_REFERENCES = ("summar", "reference")
"""How the keys begin that may hold a list of texts."""


class Rows(NamedTuple):
    """A table that is read as it is gone through."""

    header: list[str]
    rows: Iterator[list[str]]


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """The table in a CSV or JSON file, all cells text, with at least `columns`; each row has an `fname` of its own."""
    header, rows = open_table(path, columns)
    return pd.DataFrame(list(rows), columns=header, dtype=object)


def open_table(path: Path, columns: Sequence[str]) -> Rows:
    """The same, of a CSV a row at a time: the file may be larger than memory."""
    missing = "no such file; is the path right? The pipeline's own are in data.dir of params.yaml"
    if path.suffix.lower() in JSON_SUFFIXES:
        rows = iter(_json_rows(path, read_text(path, missing, mend=FROM_EXCEL)))
    else:
        rows = csv_rows(path, text_lines(path, missing, mend=FROM_EXCEL))
    header = next(rows)
    for column in columns:
        if column not in header:
            raise UserError(f"{path}: column '{column}' is missing; {what_it_has(header)}")
    check_header(path, header)
    return Rows(header, _named(path, header, check_shape(path, header, rows)))


def check_header(path: Path, header: Sequence[str]) -> None:
    """Stop where a column is named twice."""
    for column, count in Counter(header).items():
        if count > 1:
            raise UserError(f"{path}: column '{quoted(column)}' stands {count} times in the header; keep one")


def check_shape(path: Path, header: Sequence[str], rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """The rows; stop at one that has more or fewer fields than the header."""
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise UserError(
                f"{path}, row {number}: {len(row)} fields, but the header has {len(header)}; put double quotes round a "
                "field that holds commas or line breaks"
            )
        yield row


def csv_rows(path: Path, lines: Iterable[str]) -> Iterator[list[str]]:
    """Header, empty in an empty file, and rows of the CSV in `lines`; `path` names it in errors.

    Not by pandas: it fills a short row up, cuts a long one, and lets a lone quote swallow rows.
    """
    # A cell may be as long as its file.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, strict=True)
    count = 0
    try:
        for row in reader:
            if row:
                yield row
                count += 1
    except csv.Error as error:
        raise UserError(
            f"{path}, row {count}, up to line {reader.line_num}: {error}; close each double quote, and double "
            "those inside a field"
        ) from None
    if not count:
        yield []


def _json_rows(path: Path, text: str) -> list[list[str]]:
    """Header and rows of objects in JSON; a list of texts, `summaries`, makes `summaries_1`, ….

    A key that an object has not, or whose value is null, is an empty field, as in CSV; other keys than the project's
    own may hold anything, and are left out.
    """
    objects = [_fields(f"{path}, {item.place}", item.content) for item in json_rows.items(path, text)]
    header = list(dict.fromkeys(key for row in objects for key in row))
    return [header, *([row.get(key, "") for key in header] for row in objects)]


def _fields(where: str, content: dict[str, Any]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for key, value in content.items():
        if isinstance(value, str) or value is None:
            fields[key] = value or ""
        elif key.startswith(OF_REFERENCES) and isinstance(value, list) and all(isinstance(item, str) for item in value):
            fields |= {f"{key}_{place}": item for place, item in enumerate(value, start=1)}
        elif key in ("fname", "dialogue", "text", "topic") or key.startswith(OF_REFERENCES):
            raise UserError(f"{where}, column {quoted(key)!r}: text is expected, not {str(value)[:40]}")
    for key, text in fields.items():
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"{where}, column {quoted(key)!r}: an escape is half of a letter; write it anew")
    return fields


def what_it_has(header: Sequence[str]) -> str:
    """The columns of a file that lacks one, for an error line."""
    if not header:
        return "the file is empty"
    for mark, name in (("\t", "tabs"), (";", "semicolons"), ("|", "bars")):
        if len(header) == 1 and mark in header[0]:
            return f"its fields are parted by {name}; save it with commas"
    names = [repr(name if len(name) <= 40 else f"{name[:40]}…") for name in header[:8]]
    return f"it has {', '.join(names)}" + (", …" if len(header) > 8 else "")


def _named(path: Path, header: Sequence[str], rows: Iterable[list[str]]) -> Iterator[list[str]]:
    """The rows; stop where one has no `fname`, or that of another, or where there are none."""
    known: dict[str, int] = {}
    place = header.index("fname")
    for number, row in enumerate(rows, start=1):
        fname = row[place]
        if not fname.strip():
            raise UserError(f"{path}, row {number}, column 'fname': empty; name the row")
        if fname in known:
            raise UserError(
                f"{path}, row {number}, column 'fname': {quoted(fname)} stands in row {known[fname]} too; drop one"
            )
        known[fname] = number
        yield row
    if not known:
        raise UserError(f"{path}: no rows under the header; fill them in")
