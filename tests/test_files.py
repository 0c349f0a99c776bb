"""A file is the old one or the new one, whatever happens."""

from pathlib import Path

import pytest

from yoyak.core.errors import UserError
from yoyak.core.files import write_whole


def test_what_was_there_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new/file"
    for text in ("old", "요약\r\n"):
        write_whole(path, text)
    assert path.read_bytes() == "요약\r\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "file.half").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"file: cannot be written: No space left on device$"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
