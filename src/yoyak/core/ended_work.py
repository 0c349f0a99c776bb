"""Work that has ended waits in its folder until DVC has saved its outputs.

Where DVC is killed between the two, or its cache's disk is full, the next run has next to nothing to compute.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from yoyak.core.errors import UserError
from yoyak.core.files import read_text, write_whole
from yoyak.core.repository import cache_folder

ENDED = "ended"
"""A file in the folder of work that has ended: the path of its record, and the record's md5, a line each."""

MD5 = re.compile("[0-9a-f]{32}")


def mark(folder: Path, record: Path) -> None:
    """Mark the work in `folder` as ended. `record` is a metrics file of the stage: `dvc.lock` will have its hash."""
    write_whole(folder / ENDED, f"{record.absolute()}\n{_md5(record)}\n")


def delete_saved() -> None:
    """Delete the folders of work that has ended and is saved, of all workspaces that share this cache."""
    for folder in saved():
        delete(folder)


def saved() -> Iterator[Path]:
    """Those folders."""
    for marker in cache_folder().glob(f"*/*/{ENDED}"):
        record, md5 = _marked(marker)
        lock = record.parents[2] / "dvc.lock"
        # An experiment's temporary workspace is gone once DVC has saved it.
        if not lock.parent.exists() or (
            lock.exists() and md5 in read_text(lock, "no such file", mend="`git checkout dvc.lock`")
        ):
            yield marker.parent


def _marked(marker: Path) -> tuple[Path, str]:
    """What `mark` wrote: the record of the work, and its md5."""
    forget = f"delete the folder {marker.parent}, whose work is done anew"
    lines = read_text(marker, "no such file", mend=forget).splitlines()
    if len(lines) != 2 or not MD5.fullmatch(lines[1]) or len(Path(lines[0]).parts) < 4:
        raise UserError(f"{marker}: not as it was written; {forget}")
    return Path(lines[0]), lines[1]


def delete(folder: Path) -> None:
    """Under another name first: what is left of it after a kill must not pass for a whole one."""
    doomed = folder.with_suffix(".deleted")
    if doomed.exists():
        shutil.rmtree(doomed)
    if folder != doomed:
        shutil.rmtree(folder.rename(doomed))


def _md5(path: Path) -> str:
    """As DVC hashes a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
