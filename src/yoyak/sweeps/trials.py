"""Trials of a search as experiments of DVC: `dvc exp show` lists them, with their parameters and metrics."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.sweeps import copies

LAST = "ensemble"
"""The last stage of a trial."""


def require_git() -> None:
    """Stop where the project is no git repository with a commit, which experiments are kept in."""
    if not repository.git("rev-parse", "HEAD"):
        raise UserError(
            "HOURS keeps each trial as an experiment of DVC, which needs git: `git init`, and a first commit"
        )


def are_kept(project: Path) -> bool:
    """Whether a project can have experiments: it is the root of a git repository with a commit."""
    told = repository.git("-C", str(project), "rev-parse", "HEAD", "--show-toplevel").splitlines()
    return bool(told) and Path(told[-1]).resolve() == project.resolve()


def record(copy: Path, name: str, log: Path) -> None:
    """Keep what a copy of the project computed as an experiment of this project's commit.

    Parameters, metrics, `dvc.lock` and changed code go into git's `refs/exps`; data, models and summaries stay in the
    copies' cache of DVC. One of that name is replaced. Raises a `UserError` where DVC or git does not do so.
    """
    project = Path.cwd()
    with _saved(copy, project, name, log) as found:
        _git(copy, "push", "--quiet", "--force", str(project), f"{found}:{found}")


def bundle(copy: Path, project: Path, name: str, log: Path) -> bytes:
    """The same as a file of git, for `unbundle` on another machine, whose project has the commit of the one here."""
    with _saved(copy, project, name, log) as found, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment"
        _git(copy, "bundle", "create", "--quiet", str(path), found, "^HEAD")
        return path.read_bytes()


def unbundle(bundled: bytes) -> None:
    """Keep an experiment that `bundle` has packed; a `UserError` where its commit is not this project's."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(bundled)
        file.flush()
        _git(Path.cwd(), "fetch", "--quiet", file.name, "+refs/exps/*:refs/exps/*")


def missing(names: Iterable[str]) -> list[str]:
    """Those of the names that no experiment of this project has, whichever its commit."""
    found = _git(Path.cwd(), "for-each-ref", "--format=%(refname)", "refs/exps").split()
    there = {reference.rsplit("/", 1)[-1] for reference in found}
    return [name for name in names if name not in there]


@contextlib.contextmanager
def _saved(copy: Path, project: Path, name: str, log: Path) -> Iterator[str]:
    """The experiment in a repository of the copy's own, which is gone afterwards."""
    # Anew: where this was killed, locks of git are left.
    shutil.rmtree(copy / ".git", ignore_errors=True)
    _git(copy, "init", "--quiet")
    _git(copy, "fetch", "--quiet", str(project), "HEAD")
    _git(copy, "reset", "--quiet", "--mixed", "FETCH_HEAD")
    # What the project has beside a copy's parts; what the copy has stays.
    _git(copy, "checkout-index", "-z", "--stdin", given=_git(copy, "ls-files", "--deleted", "-z"))
    local = copy / ".dvc/config.local"
    without_git = local.read_text(encoding="utf-8")
    local.write_text(without_git.replace("no_scm = true", "no_scm = false"), encoding="utf-8")
    try:
        # Without a stage's name DVC wants the outputs of all, the submission's, too, which no trial makes.
        arguments = ["-m", "dvc", "exp", "save", "--name", name, "--force", "--include-untracked", "metrics", LAST]
        if not copies.python(arguments, log, copies.of_copy(copy), copy):
            raise UserError(f"{name}: `dvc exp save` failed; see {log}")
    finally:
        local.write_text(without_git, encoding="utf-8")
    found = _reference(copy, name)
    if found is None:
        raise UserError(f"{name}: `dvc exp save` left no experiment; see {log}")
    yield found
    shutil.rmtree(copy / ".git")


def _reference(folder: Path, name: str) -> str | None:
    head = _git(folder, "rev-parse", "HEAD").strip()
    found = _git(folder, "for-each-ref", "--format=%(refname)", f"refs/exps/{head[:2]}/{head[2:]}/{name}")
    return found.strip() or None


def _git(folder: Path, *arguments: str, given: str = "") -> str:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_DIR", "GIT_WORK"))}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=inherited,
        input=given,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )
    if done.returncode:
        raise UserError(f"{folder}: git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout
