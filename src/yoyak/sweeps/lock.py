"""One run at a time in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import psutil

from yoyak.core.errors import UserError


@contextlib.contextmanager
def only_one(folder: Path, waits: bool = True) -> Iterator[None]:
    """Let no other run work in `folder` meanwhile, nor what a killed one has left behind.

    A `dvc repro` that outlives the command that started it holds the lock, too: its work is waited for, not lost. Where
    nobody `waits`, a `UserError` says who is at work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not emptied: it has the number of the process that holds it.
    with (folder / "lock").open("a+") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            busy = f"{folder}: {_holder(lock)} is at work"
            if not waits:
                raise UserError(f"{busy}, and its own first lines have its plan; ask again when it has ended") from None
            print(f"{busy}; waiting", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        print(os.getpid(), file=lock, flush=True)
        yield


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    number = lock.read().strip()
    if number.isdigit() and psutil.pid_exists(int(number)):
        return f"another run (process {number})"
    return "what was left of a run that was killed"
