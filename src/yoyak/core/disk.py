"""A full disk, or one that is not to be written, in one line, though libraries wrap its error; amounts of disk in
words."""

import errno
import os
import re
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No room on the disk, none in the user's quota, or none up to `ulimit -f`."""
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)
"""The file or its disk is not for this user to write, or to read."""
OF_RUST = re.compile(r"\(os error (\d+)\)")
"""In what safetensors and tokenizers raise."""
OF_TORCH = re.compile(r"iostream error|unexpected pos \d+ vs \d+|PytorchStreamWriter failed writing")
"""In what `torch.save` raises, which tells no reason."""
HOW_TO_FREE = "`yoyak clean` tells what could go"


def in_words(size: float) -> str:
    """So many bytes in GB (10^9 bytes), or where that would be next to 0 in MB, KB or bytes."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "KB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def refusal_of(error: BaseException) -> str | None:
    """One line on an error of a file that the system keeps from this user; None where another fault is the cause."""
    for each in with_causes(error):
        if isinstance(each, OSError) and each.errno in REFUSED and each.filename:
            told = os.strerror(each.errno)
            return f"{os.fsdecode(each.filename)}: {told}; get the right to it, or work in a clone of your own"
    return None


def fault_of(error: BaseException, path: Path | None = None, wanted: float | None = None) -> str | None:
    """One line on an error that a full disk has caused; None where another fault has.

    `path` is what could not be written, where it is known: else it is found. `wanted` is its size in bytes.
    """
    full = [(each, why) for each in with_causes(error) if (why := _why(each))]
    if not full:
        return None
    # The first that was raised: others may have followed from it.
    _, why = full[-1]
    path = path or next((found for each, _ in reversed(full) if (found := _path_of(each))), Path.cwd())
    amount = f"{in_words(wanted)} were wanted" if wanted else "a stage wants limits.free_gb"
    return f"{path}: cannot be written: {why}; {in_words(_free(path))} are free there, {amount}; {HOW_TO_FREE}"


def with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    now: BaseException | None = error
    while now is not None:
        yield now
        now = now.__cause__ or now.__context__


def _why(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        return os.strerror(error.errno) if error.errno in FULL else None
    if found := OF_RUST.search(str(error)):
        return os.strerror(int(found[1])) if int(found[1]) in FULL else None
    return "PyTorch could not write all of it" if OF_TORCH.search(str(error)) else None


def _path_of(error: BaseException) -> Path | None:
    """What was being written: as the error says, else what the innermost function on its way was given as a path.

    The system names no path once a file is open, and few libraries do. Past our own innermost function, paths are of
    other files.
    """
    if isinstance(error, OSError) and (named := error.filename2 or error.filename):
        return Path(named)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        count = frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
        given = (frame.f_locals.get(name) for name in frame.f_code.co_varnames[:count])
        for value in given:
            if isinstance(value, Path) or (isinstance(value, str) and _has_a_folder(value)):
                return Path(value)
        if frame.f_globals.get("__name__", "").startswith("yoyak."):
            return None
    return None


def _has_a_folder(text: str) -> bool:
    """Whether it can be the path of a file: its folder is there."""
    folder, slash, name = text.rpartition("/")
    try:
        return bool(slash and name) and Path(folder or slash).is_dir()
    except (OSError, ValueError):
        # Longer than a path may be, or with a NUL.
        return False


def _free(path: Path) -> int:
    """Bytes that are free where `path` would be."""
    there = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free
