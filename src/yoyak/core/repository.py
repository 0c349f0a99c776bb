"""The repository that a stage works in: its cache, and the commit that is checked out."""

import os
import shutil
import subprocess
from pathlib import Path


def repository_root() -> Path:
    """The repository that holds scratch and cache, also from within a DVC experiment's temporary copy.

    DVC sets `DVC_ROOT` to the original repository in `repro`, `exp run`, `--temp` and the queue alike.
    """
    return Path(os.environ.get("DVC_ROOT", Path.cwd()))


def cache_folder() -> Path:
    """The git-ignored folder of packages, converted weights and unfinished work."""
    return repository_root() / ".cache"


def commit() -> str:
    """The commit that is checked out; what was changed since is in `dvc.lock`'s hashes."""
    if shutil.which("git") is None:
        return "no commit"
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"
