"""Folders of models that have left the run.

DVC cannot list the outputs of `run.models` as dependencies, so that stages depend on the whole folder: with leftovers
in it, `dvc.lock` would not fit a fresh clone.
"""

import shutil
from collections.abc import Collection
from pathlib import Path

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml
from yoyak.core.repository import cache_folder

PREFIX = "baseline/"
"""Beginning of the names that baselines have in a leaderboard."""

LOCK_FILE = Path("dvc.lock")


def is_baseline(name: str) -> bool:
    return name.startswith(PREFIX)


def put_away(folder: Path, names: Collection[str]) -> None:
    """Take from `folder` what has none of these names: DVC's cache keeps its outputs for when they come back.

    A folder that no stage has written is somebody's own: it is moved to `.cache/put_away`, and a line names it.
    """
    written = _outputs()
    for model in [*folder.glob("*/"), *folder.glob(f"{PREFIX}*/")]:
        name = model.relative_to(folder).as_posix()
        if name in names or f"{name}/" == PREFIX:
            continue
        if model.as_posix() in written and not model.is_symlink():
            shutil.rmtree(model)
        else:
            _move(model, cache_folder() / "put_away" / model)


def _outputs() -> set[str]:
    lock = read_yaml(LOCK_FILE) if LOCK_FILE.exists() else {}
    try:
        return {out["path"] for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])}
    except (AttributeError, KeyError, TypeError):
        # What to delete and what to keep would be a guess.
        raise UserError(f"{LOCK_FILE}: not as DVC writes it; `git checkout {LOCK_FILE}` brings it back") from None


def _move(folder: Path, target: Path) -> None:
    while target.exists() or target.is_symlink():
        target = target.with_name(f"{target.name}_")
    target.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        # A relative one would point elsewhere.
        target.symlink_to(folder.resolve())
        folder.unlink()
    else:
        shutil.move(folder, target)
    print(f"{folder} is of no model of the run, and no stage has written it: moved to {target}", flush=True)
