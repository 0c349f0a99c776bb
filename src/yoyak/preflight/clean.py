"""What on the disk nothing needs any more: telling it, and deleting it where that is asked for.

What a branch, a tag, an experiment or the workspace needs stays; so does all that cannot be judged.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from gettext import gettext as _
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from rich.markup import escape
from rich.table import Table

from yoyak.core import ended_work
from yoyak.core.cut_off import mend
from yoyak.core.disk import in_words
from yoyak.core.dvc_lock import written_now
from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS, parse_yaml, read_yaml
from yoyak.core.repository import cache_folder, git, repository_root, revisions
from yoyak.core.run import tuned
from yoyak.modeling.weights import converted_name

SCRATCH = ("checkpoints", "predictions")
WEIGHTS = "weights"
COPIES = (".cache/experiments/*", ".cache/final/copies/*", ".dvc/tmp/exps/*")
"""Further workspaces, with parameters of their own: copies of `python -m yoyak.sweeps`, and DVC's temporary ones."""
KEPT_BY_DVC = {"workspace": True, "all_branches": True, "all_tags": True, "all_experiments": True, "force": True}
OF_GC = logging.getLogger("dvc_data.hashfile.gc")
KEY = re.compile(r"(.+)-[0-9a-f]{12,16}")
"""A model's or weights' name, and the hash behind it."""


class Waste(NamedTuple):
    """A line of the table."""

    path: Path
    why: str


def clean(delete: bool) -> list[Table | str]:
    """What `yoyak clean` prints, all of it deleted first where `delete` is set.

    Raises a `UserError` while a stage runs, or where what is needed cannot be told.
    """
    _check_that_nothing_runs()
    mend(repository_root())
    folders, locks, objects = list(_folders()), list(_locks()), _unused_objects()
    told = _("{files} files that nothing needs, as `dvc gc` says")
    sizes = {
        **{waste: _size(waste.path) for waste in folders},
        Waste(cache_folder(), _("{locks} lock files that nobody holds").format(locks=len(locks))): _sizes(locks),
        Waste(Path(".dvc/cache"), told.format(files=len(objects))): _sizes(objects),
    }
    if delete:
        for waste in folders:
            _delete(waste.path)
        for lock in locks:
            _delete_lock(lock)
        _collect(dry=False)
    total = in_words(sum(sizes.values()))
    told = _("freed: {size}") if delete else _("`yoyak clean --yes` deletes this and frees {size}")
    return [_table(sizes), told.format(size=total)]


def _table(sizes: dict[Waste, int]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(_("what could go"), overflow="fold")
    table.add_column(_("why"), overflow="fold")
    table.add_column(_("frees"), justify="right", no_wrap=True)
    for waste, size in sizes.items():
        path = waste.path.relative_to(repository_root()) if waste.path.is_absolute() else waste.path
        table.add_row(escape(str(path)), escape(waste.why), in_words(size))
    return table


def _check_that_nothing_runs() -> None:
    root = repository_root()
    for workspace in (root, *(copy for pattern in COPIES for copy in root.glob(pattern))):
        if written := sorted(written_now(workspace / ".dvc/tmp")):
            raise UserError(f"a stage runs, and writes {written[0]}: clean when it has ended")
    for lock in _lock_files():
        try:
            with FileLock(lock, timeout=0):
                pass
        except Timeout:
            raise UserError(f"a stage runs (lock: {lock}): clean when it has ended") from None


def _folders() -> Iterator[Waste]:
    """Scratch and weights; what has no name of ours is somebody's own."""
    entries = [entry for params in _all_params() for entry in _entries(params)]
    names = {name for model, _source in entries for name in (model, tuned(model), f"untuned_{model}")}
    saved = set(ended_work.saved())
    for folder in _subfolders(*SCRATCH):
        if folder.suffix == ".deleted":
            yield Waste(folder, _("its deletion was cut off"))
        elif folder in saved:
            yield Waste(folder, _("its result is saved"))
        elif (found := KEY.fullmatch(folder.name)) and found[1] not in names:
            yield Waste(folder, _("no {file} has {name}").format(file=PARAMS, name=found[1]))
    sources = {converted_name(source) for _model, source in entries}
    for folder in _subfolders(WEIGHTS):
        if folder.suffix == ".half":
            yield Waste(folder, _("its conversion was cut off"))
        elif (found := KEY.fullmatch(folder.name)) and found[1] not in sources:
            yield Waste(folder, _("no {file} names these weights").format(file=PARAMS))


def _subfolders(*kinds: str) -> list[Path]:
    """Not links: to whose folders they lead is not known."""
    found = (path for kind in kinds for path in sorted((cache_folder() / kind).glob("*/")))
    return [path for path in found if not path.is_symlink()]


def _all_params() -> Iterator[dict[str, Any]]:
    """Of the workspace, of all that git keeps, and of other workspaces."""
    root = repository_root()
    yield read_yaml(PARAMS)
    for copy in (copy for pattern in COPIES for copy in root.glob(f"{pattern}/{PARAMS}")):
        yield read_yaml(copy)
    for revision in revisions():
        if text := git("show", f"{revision}:./{PARAMS}"):
            yield parse_yaml(text, f"{revision[:7]}: {PARAMS}")


def _entries(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Names of models, and their weights; the parameters may be of an earlier version."""
    models = params.get("models") or {}
    if not isinstance(models, dict):
        raise UserError(f"{PARAMS}: models: entries by name are expected; what is needed cannot be told")
    for name, entry in models.items():
        yield str(name), str(entry.get("weights", "scratch")) if isinstance(entry, dict) else "scratch"


def _lock_files() -> list[Path]:
    return [path for kind in (*SCRATCH, WEIGHTS) for path in sorted((cache_folder() / kind).glob("*.lock"))]


def _locks() -> list[Path]:
    """Empty, as ours are."""
    return [path for path in _lock_files() if path.stat().st_size == 0]


def _sizes(paths: list[Path]) -> int:
    return sum(map(_size, paths))


def _size(path: Path) -> int:
    """Bytes that its deletion frees: a file with a further link to it lies there as before."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()]
    return sum(file.stat().st_size for file in files if file.stat().st_nlink == 1)


def _delete(folder: Path) -> None:
    """Under a name first that no whole folder has: a kill may leave some of it."""
    name = folder.name.removesuffix(".half").removesuffix(".deleted")
    with FileLock(folder.with_name(f"{name}.lock"), timeout=0):
        ending = ".half" if folder.parent.name == WEIGHTS else ".deleted"
        shutil.rmtree(folder.rename(folder.with_name(name + ending)))


def _delete_lock(path: Path) -> None:
    """While it is held: who has opened it meanwhile sees that it is gone, and makes a new one."""
    with FileLock(path, timeout=0):
        path.unlink()


def _unused_objects() -> list[Path]:
    """Files of DVC's cache that `dvc gc` would delete."""
    with _removed_by_gc() as paths:
        _collect(dry=True)
    return paths


def _collect(dry: bool) -> None:
    with in_one_line("workspace"):
        from dvc.repo import Repo

        # "Removed 3 objects", also of those that would be.
        logging.getLogger("dvc").setLevel(logging.WARNING)
        with Repo() as repo:
            repo.gc(dry=dry, **KEPT_BY_DVC)


@contextmanager
def _removed_by_gc() -> Iterator[list[Path]]:
    """The paths that DVC names in its log, one a record, and nowhere else."""
    paths: list[Path] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            paths.append(Path(str(record.args[0]) if isinstance(record.args, tuple) else record.getMessage()))

    collector, level, passes_on = Collector(), OF_GC.level, OF_GC.propagate
    OF_GC.addHandler(collector)
    OF_GC.setLevel(logging.INFO)
    OF_GC.propagate = False
    try:
        yield paths
    finally:
        OF_GC.removeHandler(collector)
        OF_GC.setLevel(level)
        OF_GC.propagate = passes_on
