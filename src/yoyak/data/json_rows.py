"""Rows in JSON: an object a line, an array of objects, or a corpus in the form of its publisher."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from yoyak.core.errors import UserError, quoted

EXPECTED = 'a JSON object is expected, such as {"fname": "dev_0", "dialogue": "…"}'
ABOUT_A_ROW = (("header", "dialogueInfo"), ("metadata",), ("input",), ("body",))
"""Where corpora keep what belongs to a row: AIHub's `header.dialogueInfo` and `body`, and the `metadata` and `input` of
the National Institute of Korean Language."""
UTTERANCES = ("dialogue", "conversation", "utterance", "utterances")
SPEAKER = ("speaker", "participantID", "speaker_id", "speakerID")
SAID = ("utterance", "form", "text", "original_form")
OTHER_NAMES = {"fname": ("dialogueID", "id"), "summary": ("output",), "topic": ("subject_keyword",)}
"""What corpora call our keys."""


class Item(NamedTuple):
    """An object of a file, and its place there."""

    place: str
    """`line 3`, or `item 3` of an array."""
    content: dict[str, Any]
    """By our keys, as far as it has them; the values are as they were."""


def items(name: object, text: str) -> list[Item]:
    """The objects in `text`, a file's that errors call `name`."""
    # Not `splitlines`: that would also cut at U+2028 and other characters a dialogue may hold.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if _is_one_document([line for _, line in lines]):
        rows = _rows_in(_parsed(f"{name}", text))
        return [_item(name, f"item {number}", row) for number, row in enumerate(rows, start=1)]
    return [_item(name, f"line {number}", _parsed(f"{name}, line {number}", line)) for number, line in lines]


def _is_one_document(lines: list[str]) -> bool:
    """Whether the lines are an array or a corpus, and not an object each."""
    if not lines or lines[0].lstrip().startswith("["):
        return bool(lines)
    if len(lines) > 1:
        return not lines[1].lstrip().startswith("{")
    try:
        row = _loads(lines[0])
    except (ValueError, RecursionError):
        return False
    return _rows_in(row) != [row]


def _rows_in(document: Any) -> list[Any]:
    """The objects of an array; of the only array of objects in an object; or the object itself, a row."""
    if isinstance(document, list):
        return document
    if not isinstance(document, dict) or isinstance(_with_our_keys(document).get("dialogue"), str):
        return [document]
    arrays = [value for value in document.values() if isinstance(value, list) and value]
    arrays = [array for array in arrays if all(isinstance(each, dict) for each in array)]
    return arrays[0] if len(arrays) == 1 else [document]


def _item(name: object, place: str, content: Any) -> Item:
    if not isinstance(content, dict):
        raise UserError(f"{name}, {place}: {EXPECTED}")
    return Item(place, _with_our_keys(content))


def _parsed(where: str, text: str) -> Any:
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        raise UserError(f"{where}{line}: not valid JSON: {error.msg}, column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {error}") from None


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_repeated_keys)


def _without_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {quoted(key)!r} stands {count} times")
    return dict(pairs)


def _with_our_keys(content: dict[str, Any]) -> dict[str, Any]:
    """A row of a corpus by our keys, its utterances as a dialogue; other rows as they are."""
    row = dict(content)
    for path in ABOUT_A_ROW:
        row |= {key: value for key, value in _inside(content, path).items() if key not in row}
    for key in UTTERANCES:
        if dialogue := _dialogue(row.get(key)):
            row = {**{other: value for other, value in row.items() if other != key}, "dialogue": dialogue}
            break
    else:
        row = dict(content)
    for ours, others in OTHER_NAMES.items():
        theirs = next((name for name in others if name in row), None)
        if theirs and ours not in row and ("output" in row or "dialogue" in row):
            row[ours] = row.pop(theirs)
    if isinstance(topics := row.get("topic"), list):
        row["topic"] = ", ".join(map(str, topics))
    return row


def _inside(content: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    inner: Any = content
    for key in path:
        inner = inner.get(key) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}


def _dialogue(utterances: Any) -> str | None:
    """Utterances as turns, `P01: …`; None where these are none."""
    if not isinstance(utterances, list) or not all(isinstance(each, dict) for each in utterances):
        return None
    turns = []
    for each in utterances:
        speaker = next((each[key] for key in SPEAKER if isinstance(each.get(key), str | int)), None)
        said = next((each[key] for key in SAID if isinstance(each.get(key), str)), None)
        if speaker is None or said is None:
            return None
        turns.append(f"{speaker}: {' '.join(said.split())}")
    return "\n".join(turns)
