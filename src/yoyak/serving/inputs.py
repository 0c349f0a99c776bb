"""Dialogues that somebody hands over to be summarised: text, JSONL or the competition's CSV, or standard input."""

import sys
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from yoyak.core.errors import UserError
from yoyak.core.files import FROM_EXCEL, decode, read_text
from yoyak.core.records import Dialogue
from yoyak.data.dialogues import note_on_labels, read_dialogues, turns

STANDARD_INPUT = "-"


class Input(NamedTuple):
    """Dialogues that were handed over, in their order."""

    dialogues: list[Dialogue]
    is_text: bool
    """A single dialogue as plain text, whose row has no name of its own."""


class Row(BaseModel):
    """A line of JSONL; other keys are nobody's concern here."""

    dialogue: str
    fname: str | None = None


def read(source: str) -> Input:
    """The dialogues of a file, by its suffix what kind it is, or of standard input for `-`."""
    if source == STANDARD_INPUT:
        text = decode(sys.stdin.buffer.read(), "standard input", FROM_EXCEL)
        return _json_lines(text, "standard input") if text.lstrip().startswith("{") else _text(text, "standard input")
    path = Path(source)
    if path.suffix.lower() == ".csv":
        return Input(read_dialogues(path, with_summary=False), is_text=False)
    text = read_text(path, "no such file; is the path right? `-` is standard input", FROM_EXCEL)
    return _json_lines(text, source) if path.suffix.lower() in (".jsonl", ".json") else _text(text, source)


def of_text(text: str, name: str) -> Dialogue:
    """A dialogue of turns, one a line; `name` is what errors and notes call it."""
    if not turns(text):
        raise UserError(f"{name}: there is no turn in it; a dialogue is turns, one a line, such as `#Person1#: …`")
    return Dialogue(fname=name, dialogue=text)


def notes(dialogues: list[Dialogue]) -> list[str]:
    """Notes for the user on these dialogues, a line each."""
    return note_on_labels(dialogues)


def _text(text: str, name: str) -> Input:
    return Input([of_text(text, name)], is_text=True)


def _json_lines(text: str, name: str) -> Input:
    # Not `splitlines`: that would also cut at U+2028 and other characters a dialogue may hold.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f'{name}: empty; a JSON object a line is expected, such as {{"dialogue": "…"}}')
    rows: dict[str, Dialogue] = {}
    for number, line in lines:
        row = _row(line, f"{name}, line {number}")
        fname = row.fname or f"line_{number}"
        if fname in rows:
            raise UserError(f"{name}, line {number}: a row above is named {fname}, too; give it another fname")
        if not turns(row.dialogue):
            raise UserError(f"{name}, line {number} ({fname}): there is no turn in its dialogue; fill it in or drop it")
        rows[fname] = Dialogue(fname=fname, dialogue=row.dialogue)
    return Input(list(rows.values()), is_text=False)


def _row(line: str, where: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as error:
        raise UserError(f"{where}: {_described(error.errors()[0])}") from None


def _described(fault: ErrorDetails) -> str:
    if fault["type"] == "json_invalid":
        return f"not valid JSON: {fault['ctx']['error']}".replace(" at line 1 column ", ", column ")
    if not fault["loc"]:
        return 'a JSON object is expected, such as {"dialogue": "…"}'
    what = "missing; add it" if fault["type"] == "missing" else f"text is expected, not {str(fault['input'])[:40]}"
    return f"key {str(fault['loc'][0])!r}: {what}"
