"""Reading a file into text or one line on why not; writing it whole or not at all; its sha256."""

import codecs
import contextlib
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from yoyak.core import disk
from yoyak.core.errors import UserError, quoted

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
FROM_EXCEL = "a CSV saved by Excel is cp949: `iconv -f cp949 -t utf-8`"
"""How to mend a user's own file that is not UTF-8."""
BLOCK = 2**20
"""Bytes of a file that are looked at together."""


def read_text(path: Path, missing: str, mend: str) -> str:
    """The text of a UTF-8 file. `missing` is the error where there is no such file; `mend` is as for `decode`."""
    with _told(path, missing):
        content = path.read_bytes()
    return decode(content, path, mend)


def text_lines(path: Path, missing: str, mend: str) -> Iterator[str]:
    """The lines of a UTF-8 file, their ends with them, one at a time: the file may be larger than memory.

    They end at `\\n`, `\\r\\n` and `\\r`, as `csv` has it. The first comes once the whole file is known to be text; the
    errors are those of `read_text`.
    """
    with _told(path, missing):
        with path.open("rb") as content:
            _check_text(content, path, mend)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from file


@contextlib.contextmanager
def _told(path: Path, missing: str) -> Iterator[None]:
    """The line on a file that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, not a file; name the file inside it") from None
    except OSError as error:
        raise UserError(f"{quoted(path)}: cannot be read: {error.strerror}") from None


def _check_text(file: BinaryIO, where: object, mend: str) -> None:
    """Stop where the file is not what `decode` takes."""
    decoder, place, lines, fault = codecs.getincrementaldecoder("utf-8")(), 0, 1, None
    for block in iter(partial(file.read, BLOCK), b""):
        if place == 0 and block.startswith(UTF_16):
            raise _utf_16(where)
        if b"\0" in block:
            raise _nul(where, place + block.index(0))
        if fault is None:
            # Of a letter that two blocks share.
            kept = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                end = max(0, error.start - kept)
                fault = _not_utf_8(where, lines + block.count(b"\n", 0, end), place - kept + error.start, mend)
            lines += block.count(b"\n")
        place += len(block)
    if fault is None and (left := len(decoder.getstate()[0])):
        fault = _not_utf_8(where, lines, place - left, mend)
    if fault:
        raise fault


def _utf_16(where: object) -> UserError:
    return UserError(f"{where}: UTF-16, not UTF-8; convert it: `iconv -f utf-16 -t utf-8`")


def _nul(where: object, place: int) -> UserError:
    return UserError(f"{where}: not a text file (byte {place} is NUL); save it in UTF-8, a table as CSV")


def _not_utf_8(where: object, line: int, place: int, mend: str) -> UserError:
    return UserError(f"{where}, line {line}: not UTF-8 (byte {place}); {mend}")


def decode(content: bytes, where: object, mend: str) -> str:
    """The text of UTF-8 bytes without a byte order mark. `where` names them in errors, and `mend` says what to do."""
    if content.startswith(UTF_16):
        raise _utf_16(where)
    if b"\0" in content:
        raise _nul(where, content.index(0))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf_8(where, line, error.start, mend) from None


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
