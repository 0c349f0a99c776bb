"""A file is the old one or the new one, whatever happens; and what cannot be read is told in a line."""

from pathlib import Path

import pytest

from yoyak.core.errors import UserError
from yoyak.core.files import decode, read_text, write_whole


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    for text in ("old", "요약\r\n"):
        write_whole(path, text)
    assert path.read_bytes() == "요약\r\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_name_that_no_file_can_have_is_told_in_a_line_of_some_length() -> None:
    """As a table has it that names a model by the text of a dialogue."""
    with pytest.raises(UserError, match=r"^predictions/가{188}…: cannot be read: File name too long$"):
        read_text(Path("predictions") / ("가" * 5000) / "dev.jsonl", missing="no such file", mend="")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "file.half").symlink_to("/dev/full")
    with pytest.raises(
        UserError,
        match=r"file: cannot be written: No space left on device; .* are free there, 3 bytes were wanted; ",
    ):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("가\n나".encode("cp949"), "rows.csv, line 1: not UTF-8 (byte 0); mend it"),
        ("가\n".encode() + b"\xff", "rows.csv, line 2: not UTF-8 (byte 4); mend it"),
        ("가".encode("utf-16"), "rows.csv: UTF-16, not UTF-8; convert it: `iconv -f utf-16 -t utf-8`"),
        (b"a\0", "rows.csv: not a text file (byte 1 is NUL); save it in UTF-8, a table as CSV"),
    ],
)
def test_what_is_no_text_in_utf_8(content: bytes, told: str) -> None:
    with pytest.raises(UserError) as error:
        decode(content, "rows.csv", "mend it")
    assert str(error.value) == told


def test_a_byte_order_mark_is_left_out_and_line_ends_stay(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes("\ufeff요약\r\n".encode())
    assert read_text(tmp_path / "file", "no such file", "mend it") == "요약\r\n"


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, told in (
        (tmp_path / "absent", "no such file; make it"),
        (tmp_path, "a folder, not a file; name the file inside it"),
        (tmp_path / "file/x", "cannot be read: Not a directory"),
    ):
        with pytest.raises(UserError) as error:
            read_text(path, "no such file; make it", "mend it")
        assert str(error.value) == f"{path}: {told}"
