"""JSON of any form is read, or refused in one line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoyak.core.errors import UserError
from yoyak.data.json_rows import items

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=5)
ROWS = st.lists(
    st.fixed_dictionaries({"fname": TEXTS, "summary": TEXTS, "note": st.integers()}), min_size=1, max_size=4
)
KEYS = st.sampled_from(
    ["fname", "id", "dialogue", "input", "header", "body", "metadata", "utterance", "output", "topic"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(ROWS, st.booleans(), st.sampled_from(["lines", "array", "indented", "named"]))
def test_rows_come_back(rows: list[dict[str, Any]], ascii_only: bool, form: str) -> None:
    match form:
        case "lines":
            text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n\n" for row in rows)
        case "named":
            text = json.dumps({"count": len(rows), "rows": rows}, ensure_ascii=ascii_only)
        case _:
            text = json.dumps(rows, ensure_ascii=ascii_only, indent=2 if form == "indented" else None)
    assert [item.content for item in items("a.json", text)] == rows


@given(VALUES, st.sampled_from([None, 2]))
def test_any_json_is_read_or_refused(value: Any, indent: int | None) -> None:
    refused_in_one_line_or_read(json.dumps(value, indent=indent))


@given(st.text(st.sampled_from('{}[]":,\n a1')) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    refused_in_one_line_or_read(text)


def refused_in_one_line_or_read(text: str) -> None:
    told, found = "a.json", []
    try:
        found = items("a.json", text)
    except UserError as error:
        told = str(error)
    assert told.startswith("a.json")
    assert len(told.splitlines()) == 1
    assert all(isinstance(item.content, dict) for item in found)


@pytest.mark.parametrize("text", ["", " \n\n", "[]"])
def test_nothing(text: str) -> None:
    assert items("a.json", text) == []


def test_speakers_may_be_numbers() -> None:
    utterances = [{"speaker": 1, "text": "안녕"}, {"speaker": 2, "text": "네"}]
    (item,) = items("a.json", json.dumps([{"id": "a", "utterances": utterances}]))
    assert item.content == {"fname": "a", "dialogue": "1: 안녕\n2: 네"}
