"""Reading a file into text or one line on why not; writing it whole or not at all; its sha256."""

import codecs
import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from yoyak.core import disk
from yoyak.core.errors import UserError, quoted

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FROM_EXCEL = "a CSV saved by Excel is cp949: `iconv -f cp949 -t utf-8`"
"""How to mend a user's own file that is not UTF-8."""


def read_text(path: Path, missing: str, mend: str) -> str:
    """The text of a UTF-8 file. `missing` is the error where there is no such file; `mend` is as for `decode`."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a file; name the file inside it") from None
    except OSError as error:
        raise UserError(f"{quoted(path)}: cannot be read: {error.strerror}") from None
    return decode(content, path, mend)


def decode(content: bytes, where: object, mend: str) -> str:
    """The text of UTF-8 bytes without a byte order mark. `where` names them in errors, and `mend` says what to do."""
    if content.startswith(UTF_16):
        raise UserError(f"{where}: UTF-16, not UTF-8; convert it: `iconv -f utf-16 -t utf-8`")
    if b"\0" in content:
        raise UserError(f"{where}: not a text file (byte {content.index(0)} is NUL); save it in UTF-8, a table as CSV")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: not UTF-8 (byte {error.start}); {mend}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 file such that a kill or a full disk leaves the old file or the new one, nothing between."""
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: cannot be written: {text[error.start]!r} is no character of UTF-8; drop it") from None
    with whole(path, len(content)) as half:
        half.write_bytes(content)


@contextlib.contextmanager
def whole(path: Path, wanted: int | None = None) -> Iterator[Path]:
    """A file beside `path` for the block to write; once it has, it becomes `path`, as for `write_whole`.

    `wanted` is its size in bytes, where it is known, for the line that a full disk gives.
    """
    half = path.with_name(f"{path.name}.half")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield half
        half.replace(path)
    except OSError as error:
        fault = disk.fault_of(error, path, wanted)
        raise UserError(fault or f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            half.unlink()


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`, or `dvc checkout` if it was made before") from None
    except OSError as error:
        raise UserError(f"{quoted(path)}: cannot be read: {error.strerror}") from None


def files_in(folder: Path) -> list[Path]:
    """What lies in a folder that a stage wrote, in the order of names."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run `dvc repro`, or `dvc checkout` if it was made before")
    return sorted(folder.iterdir())
