"""The repository that a stage works in: its cache, and the commit that is checked out."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS, changes, parse_yaml, read_yaml

NO_COMMIT = "no commit"
DIRTY = "-dirty"
"""Behind a commit, as `git describe` has it."""
TABLES = (":(glob)data/**/*.csv", ":(glob)data/**/*.dvc")
DECIDING = (str(PARAMS), "dvc.yaml", "weights.lock.yaml", "stages", "src", *TABLES)
"""What decides on a run, as git's patterns."""


def project_folder(start: Path) -> Path:
    """The nearest folder from `start` upwards that has the pipeline; `start` itself where none has."""
    return next((folder for folder in (start, *start.parents) if (folder / "dvc.yaml").is_file()), start)


def repository_root() -> Path:
    """The repository that holds scratch and cache, also from within a DVC experiment's temporary copy.

    DVC sets `DVC_ROOT` to the original repository in `repro`, `exp run`, `--temp` and the queue alike.
    """
    return Path(os.environ.get("DVC_ROOT", Path.cwd()))


def cache_folder() -> Path:
    """The git-ignored folder of packages, converted weights and unfinished work."""
    return repository_root() / ".cache"


def commit() -> str:
    """The commit that is checked out; with `-dirty` behind it where what decides on a run is not as it has it."""
    head = git("rev-parse", "HEAD").strip() or NO_COMMIT
    return head + DIRTY if uncommitted() else head


def short(commit: str) -> str:
    """Its first seven digits, and `-dirty` where that is behind it."""
    return commit[:7] + DIRTY * commit.endswith(DIRTY)


def told(commit: str, digits: int = 7) -> str:
    """What `commit` says, for a reader: so many digits, and whether there were changes."""
    head = commit.removesuffix(DIRTY)
    short = head if head == NO_COMMIT else head[:digits]
    return short if head == commit else f"{short} with uncommitted changes"


def uncommitted() -> list[str]:
    """What decides on a run and differs from the commit: each parameter (`lora.r: 16 → 32`), and other files by name.

    What stages write is none of it: `dvc.lock` and metrics differ in the midst of any run.
    """
    if not git("rev-parse", "HEAD"):
        return []
    changed = git("diff", "--name-only", "--relative", "-z", "HEAD", "--", *DECIDING).split("\0")
    new = git("ls-files", "--others", "--exclude-standard", "-z", "--", *DECIDING).split("\0")
    files = sorted({*changed, *new} - {"", str(PARAMS)})
    return [*(_changed_parameters() if str(PARAMS) in changed else []), *files]


def _changed_parameters() -> list[str]:
    try:
        before = parse_yaml(git("show", f"HEAD:./{PARAMS}"), f"HEAD: {PARAMS}")
        found = changes(before, read_yaml(PARAMS))
    except UserError:
        found = []
    # A comment, or what is no YAML at one of both ends.
    return found or [str(PARAMS)]


def revisions() -> list[str]:
    """Whatever git keeps: branches, tags, experiments of DVC, those that wait in its queue, and what is checked out."""
    stashes = ("refs/stash", "refs/exps/stash", "refs/exps/celery/stash", "refs/exps/celery/failed")
    stashed = [git("log", "--walk-reflogs", "--format=%H", stash, "--") for stash in stashes]
    refs = git("for-each-ref", "--format=%(objectname)")
    return sorted({*"".join([*stashed, refs, git("rev-parse", "HEAD")]).split()})


def git(*arguments: str) -> str:
    """What git prints; nothing where it is missing, this is no repository of its, or it refuses to read it."""
    if shutil.which("git") is None:
        return ""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    if refused := _refusal_in(done.stderr):
        _note(f"{refused}, or no commit is recorded")
    return ""


def refusal() -> str | None:
    """Why git does not read this repository, and the command after which it does; None where it reads it."""
    return _refusal_in(subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, check=False).stderr)


def _refusal_in(said: bytes) -> str | None:
    """Of what git says, in any language. A container, say, sees files of its host's users."""
    found = re.search(rb"git config --global --add safe\.directory .+", said)
    if found is None:
        return None
    return f"git does not read this repository, which belongs to another user: `{found[0].decode(errors='replace')}`"


@cache
def _note(line: str) -> None:
    """Once a process: a run goes on without git, but not without a word."""
    print(f"note: {line}", file=sys.stderr)
