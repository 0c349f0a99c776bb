"""A file is the old one or the new one, whatever happens."""

from pathlib import Path

import pytest

from yoyak.errors import UserError
from yoyak.files import write_whole


@pytest.mark.parametrize("content", ["요약\r\n", b"\xff"])
def test_what_was_there_is_replaced(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "new/file"
    for _ in range(2):
        write_whole(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    path = tmp_path / "file"
    path.write_text("old")
    (tmp_path / "file.half").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"file: cannot be written: No space left on device; is there room"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
