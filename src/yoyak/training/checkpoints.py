"""Where an unfinished training waits for its next run: outside DVC's outputs, which DVC deletes before a stage runs."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from yoyak.errors import UserError
from yoyak.machine import cache_folder, describe
from yoyak.training.settings import TrainingJob


@contextmanager
def scratch_folder(name: str, job: TrainingJob, data: list[Path]) -> Iterator[Path]:
    """A folder for this very training, found again after a kill, deleted when the block ends well.

    Its name hashes parameters, data, base weights (through their pin), the imported code of this library and versions:
    a change of any of them never resumes from the wrong checkpoint. Locked against a second run of the same training.
    """
    folder = cache_folder() / "checkpoints" / f"{name}-{_key(job, data)}"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_suffix(".lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{name} is being trained by another process already (lock: {lock.lock_file})") from None
    try:
        _forget_others(name, folder)
        yield folder
        _delete(folder)
    finally:
        lock.release()


def _forget_others(name: str, folder: Path) -> None:
    """Delete what trainings of this model with other parameters, data or code left: disks are small."""
    for other in folder.parent.glob(f"{name}-*/"):
        lock = FileLock(other.with_suffix(".lock"), timeout=0)
        if other == folder:
            continue
        try:
            with lock:
                _delete(other)
        except Timeout:
            # Somebody trains there, in an experiment of another workspace.
            continue
        print(f"deleted the unfinished training {other.name}: parameters, data or code have changed since", flush=True)


def _delete(folder: Path) -> None:
    """Under another name first: what is left of it after a kill must not pass for a checkpoint."""
    doomed = folder.with_suffix(".deleted")
    if doomed.exists():
        shutil.rmtree(doomed)
    if folder != doomed:
        shutil.rmtree(folder.rename(doomed))


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: the trainer writes its state last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_whole(path)]
    return max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _is_whole(state: Path) -> bool:
    """Not so where the training was killed while it wrote this file."""
    try:
        json.loads(state.read_text())
    except ValueError:
        return False
    return True


def _key(job: TrainingJob, data: list[Path]) -> str:
    digest = hashlib.sha256(job.model_dump_json().encode())
    digest.update(repr(sorted(describe().items())).encode())
    for path in [*data, *_imported_code()]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _imported_code() -> list[Path]:
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "yoyak"]
    return sorted(Path(module.__file__) for module in modules if module.__file__)
