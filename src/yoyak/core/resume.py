"""Where a stage's work waits for its next run: outside DVC's outputs, which DVC deletes before a stage runs."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from yoyak.core.ended_work import ENDED, delete, delete_saved, mark
from yoyak.core.environment import describe
from yoyak.core.errors import UserError
from yoyak.core.files import sha256
from yoyak.core.params import Section
from yoyak.core.repository import cache_folder

Kind = Literal["checkpoints", "predictions"]


@contextmanager
def scratch_folder(kind: Kind, name: str, config: Section, files: Sequence[Path], record: Path) -> Iterator[Path]:
    """A folder for this very config, found again after a kill, deleted once DVC has saved what the block made.

    `record` is the metrics file that the block writes, an output of the stage: once `dvc.lock` has its hash, DVC has
    saved them all.

    Its name hashes parameters, input files, base weights (through their pin), the imported code of this library and
    versions: after a change of any of them nothing goes on from what was made before. Locked against a second run of
    the same config.
    """
    folder = cache_folder() / kind / f"{name}-{_key(config, files)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process works on {name} already (lock: {lock.lock_file})") from None
    try:
        delete_saved()
        _forget_others(name, folder)
        folder.mkdir(exist_ok=True)
        (folder / ENDED).unlink(missing_ok=True)
        yield folder
        mark(folder, record)
    finally:
        lock.release()


def _forget_others(name: str, folder: Path) -> None:
    """Delete what was left of this name with other parameters, data or code: disks are small."""
    for other in folder.parent.glob(f"{name}-*/"):
        lock = FileLock(other.with_suffix(".lock"), timeout=0)
        if other == folder:
            continue
        try:
            with lock:
                delete(other)
        except Timeout:
            # Somebody works there, in an experiment of another workspace.
            continue
        print(f"deleted {other.name}, never saved by DVC: parameters, data or code have changed since", flush=True)


def _key(config: Section, files: Sequence[Path]) -> str:
    digest = hashlib.sha256(config.model_dump_json().encode())
    digest.update(repr(sorted(describe().items())).encode())
    for path in [*files, *_imported_code()]:
        digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def _imported_code() -> list[Path]:
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "yoyak"]
    return sorted(Path(module.__file__) for module in modules if module.__file__)
