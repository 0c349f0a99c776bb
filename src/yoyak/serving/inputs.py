"""Dialogues that somebody hands over to be summarised: text, JSONL or the competition's CSV, or standard input."""

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import FROM_EXCEL, decode, read_text
from yoyak.core.records import Dialogue
from yoyak.data import json_rows
from yoyak.data.dialogues import clean, read_dialogues, turns
from yoyak.data.quality import Quality
from yoyak.data.tables import JSON_SUFFIXES

STANDARD_INPUT = "-"


class Input(NamedTuple):
    """Dialogues that were handed over, in their order."""

    dialogues: list[Dialogue]
    is_text: bool
    """A single dialogue as plain text, whose row has no name of its own."""


def read(source: str) -> Input:
    """The dialogues of a file, whose suffix tells its kind, or of standard input for `-`."""
    if source == STANDARD_INPUT:
        text = decode(sys.stdin.buffer.read(), "standard input", FROM_EXCEL)
        is_json = re.match(r"\s*(\[\s*)?\{", text)
        return _json(text, "standard input") if is_json else _text(text, "standard input")
    path = Path(source)
    if path.suffix.lower() == ".csv":
        return Input(read_dialogues(path, with_summary=False), is_text=False)
    text = read_text(path, "no such file; is the path right? `-` is standard input", FROM_EXCEL)
    return _json(text, source) if path.suffix.lower() in JSON_SUFFIXES else _text(text, source)


def of_text(text: str, name: str) -> Dialogue:
    """A dialogue of turns, one a line; `name` is what errors and notes call it."""
    if not turns(text):
        raise UserError(f"{name}: there is no turn in it; a dialogue is turns, one a line, such as `#Person1#: …`")
    return Dialogue(fname=name, dialogue=text)


def notes(dialogues: list[Dialogue]) -> list[str]:
    """Notes for the user on these dialogues, a line each."""
    quality = Quality()
    for row in dialogues:
        quality.add(*clean(row))
    return quality.note_on_labels()


def _text(text: str, name: str) -> Input:
    return Input([of_text(text, name)], is_text=True)


def _json(text: str, name: str) -> Input:
    rows: dict[str, Dialogue] = {}
    for item in json_rows.items(name, text):
        where, content = f"{name}, {item.place}", item.content
        fname = _text_at("fname", content, where) or item.place.replace(" ", "_")
        if "dialogue" not in content:
            raise UserError(f"{where}: key 'dialogue': missing; {json_rows.EXPECTED}")
        dialogue = _text_at("dialogue", content, where)
        if fname in rows:
            raise UserError(f"{where}: a row above is named {quoted(fname)}, too; give it another fname")
        if not turns(dialogue):
            raise UserError(f"{where} ({quoted(fname)}): there is no turn in its dialogue; fill it in or drop it")
        rows[fname] = Dialogue(fname=fname, dialogue=dialogue)
    if not rows:
        raise UserError(f"{name}: empty; {json_rows.EXPECTED}")
    return Input(list(rows.values()), is_text=False)


def _text_at(key: str, content: dict[str, Any], where: str) -> str:
    """The text under a key; empty where there is none."""
    value = content.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: key {key!r}: text is expected, not {str(value)[:40]}")
    if value and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{where}: key {key!r}: an escape is half of a letter; write it anew")
    return value or ""
