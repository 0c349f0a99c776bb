"""What passes from stage to stage is written whole or not at all, and a file that cannot be read is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from yoyak.core.errors import UserError
from yoyak.core.records import Reference, Written, read_json, read_object, read_records, write_json, write_records


def reference(text: str) -> Reference:
    return Reference(fname="dev_0", summaries=(text,))


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: write_records(path, [reference("가"), reference("a\ud800")]), "dev_0: its text holds what is no"),
        (lambda path: write_json(path, ["가", "a\ud800"]), r"cannot be written: '\ud800' is no character of UTF-8"),
    ],
)
def test_a_failure_half_way_leaves_the_old_file(tmp_path: Path, write: Callable[[Path], None], told: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("as it was")
    with pytest.raises(UserError) as error:
        write(path)
    assert str(error.value).startswith(f"{path}: {told}")
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"rows.jsonl: cannot be written: Is a directory$"):
        write_records(tmp_path / "rows.jsonl", [reference("가")])
    with pytest.raises(UserError, match=r"x: cannot be written: File exists$"):
        write_json(tmp_path / "file/x", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "rows.jsonl"]


@pytest.mark.parametrize("read", [read_json, lambda path: read_records(path, Reference)])
def test_what_cannot_be_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r": a folder, not a file; name the file inside it$"):
        read(tmp_path)
    (tmp_path / "spoilt").write_bytes(b"a\xff")
    with pytest.raises(UserError, match=r"spoilt, line 1: not UTF-8 \(byte 1\); run `dvc repro`"):
        read(tmp_path / "spoilt")


class Best(Written):
    delta: dict[str, float]


class Scores(Written):
    best: Best


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("null", "an object is expected"),
        ("{}", "the key 'best' is missing"),
        ('{"best": []}', "best: an object is expected"),
        ('{"best": {}}', "the key 'best.delta' is missing"),
        ('{"best": {"minus": {}}}', "the key 'best.minus' is named 'best.delta' now"),
        ('{"best": {"delta": {"a": "1"}}}', "best.delta.a: Input should be a valid number"),
        ('{"best": {"delta": {"a": NaN}}}', "best.delta.a: Input should be a finite number"),
    ],
)
def test_keys_that_are_missing_or_of_another_type(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_object(path, Scores)
    assert str(error.value) == f"{path}: {told}; run `dvc repro`"
    path.write_text('{"best": {"delta": {}}, "more": 1}')
    assert read_object(path, Scores) == {"best": {"delta": {}}, "more": 1}


@pytest.mark.parametrize("content", ['{"a": "\\ud800"}', "1" * 5000, "[" * 100_000, '{"a": 1,}', ""])
def test_what_is_no_json(tmp_path: Path, content: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"scores.json(, line 1)?: not valid JSON: .{1,300}; run `dvc repro`$"):
        read_json(path)
