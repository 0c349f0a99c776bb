"""What `yoyak doctor` looks at in the repository: git, DVC's cache and remote, and what a kill has left."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from yoyak.core import repository
from yoyak.core.cut_off import cut_off
from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError
from yoyak.preflight.finding import Finding, within_patience

LINKS = ("reflink", "hardlink", "symlink", "copy")
BY_DEFAULT = ["reflink", "copy"]
"""DVC's `cache.type` where none is set."""


def _folder() -> Iterator[Finding]:
    """DVC notes what it does in files of its own, also where it has nothing to run."""
    root = Path(_repo().root_dir)
    kept = next((folder for folder in (root, root / ".dvc") if not os.access(folder, os.W_OK)), None)
    if kept is None:
        yield Finding("ok", "folder", "can be written")
    else:
        yield Finding("problem", "folder", f"{kept} cannot be written by this user: work in a clone of your own")


def _git() -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding("problem", "git", "git is missing: `apt install git`")
        return
    if refused := repository.refusal():
        yield Finding("problem", "git", refused)
        return
    asked = ["git", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]
    if subprocess.run(asked, capture_output=True, check=False, timeout=10).returncode == 0:
        yield Finding("ok", "git", "knows who commits")
    else:
        mend = "`git config --global user.name NAME`, `git config --global user.email ADDRESS`"
        yield Finding("warning", "git", f"does not know who commits, which `dvc exp run` needs: {mend}")


@cache
def _repo() -> Any:
    with in_one_line("workspace"):
        from dvc.repo import Repo

        return Repo()


def _cache() -> Iterator[Finding]:
    """How outputs get from DVC's cache into the folder: the test of `dvc doctor`, whose two small files go at once."""
    from dvc.fs import generic

    repo = _repo()
    cache = Path(repo.cache.local.path)
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    # Its last argument is a path beside which it writes.
    possible = generic.test_links(LINKS, repo.cache.local.fs, str(there), repo.fs, f"{repo.root_dir}/dvc.yaml")
    wanted = repo.config["cache"].get("type") or BY_DEFAULT
    used = next((kind for kind in wanted if kind in possible), "copy")
    if used == "copy":
        links = [kind for kind in possible if kind != "copy"]
        mend = f"`dvc config --local cache.type {','.join(links)}` would link them"
        of_type = f"cache.type is {','.join(wanted)}, and {mend}"
        of_disk = f"{cache} can be linked by no kind of cache.type; `dvc cache dir` puts it on the project's disk"
        told = "copies, so that outputs lie on the disk twice"
        yield Finding("warning", "DVC's cache", f"{told}: {of_type if links else of_disk}")
    else:
        yield Finding("ok", "DVC's cache", f"{used} (possible here: {', '.join(possible)})")


def _remote() -> Iterator[Finding]:
    repo = _repo()
    name = repo.config["core"].get("remote")
    if name is None:
        yield Finding("ok", "DVC's remote", "none by default, and a run needs none")
        return
    try:
        with in_one_line("workspace"):
            storage = repo.cloud.get_remote_odb(name)
            there = within_patience(lambda: storage.fs.exists(storage.path), f"DVC's remote {name}")
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 (each kind of remote has a client with errors of its own)
        told = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"DVC's remote {name}: {told}; mend it, or `dvc remote default --unset`") from None
    yield Finding("ok", "DVC's remote", f"{name} answers" if there else f"{name} is empty: `dvc push` begins it")


def _leftovers() -> Iterator[Finding]:
    """What DVC stops at. Its own lock is freed by the system when a process ends, however it ends."""
    repo = _repo()
    lock = Path(repo.tmp_dir) / "lock"
    if found := cut_off(Path(repo.root_dir)):
        told = f"{found[0]} was cut off by a kill, and DVC stops at it: `yoyak status` mends it"
        yield Finding("problem", "leftovers", told)
    elif lock.exists() and _is_held(lock):
        yield Finding("warning", "leftovers", "none; DVC works in another terminal: wait for it to end")
    else:
        yield Finding("ok", "leftovers", "nothing that DVC stops at")


def _is_held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "folder": _folder,
    "git": _git,
    "DVC's cache": _cache,
    "DVC's remote": _remote,
    "leftovers": _leftovers,
}
