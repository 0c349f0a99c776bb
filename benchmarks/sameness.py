"""Whether a project is as an undisturbed run left it, and what a kill has left behind."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from yoyak.core.ended_work import ENDED

WRITTEN = ("data", "models", "predictions", "scores", "ensemble", "submission", "metrics", "plots")
"""Folders with what stages write."""
OF_TIME = {
    "seconds",
    "tokens_per_second",
    "dialogues_per_second",
    "peak_memory_gib",
    "resumed_at_step",
    "resumed_at_row",
}
"""Figures that no two runs share: of time and memory, and of where a run was taken up."""
WITH_TIME = ("metrics/train/", "metrics/infer/", "plots/training")
"""Beginnings of the paths whose files have such figures: their hashes in dvc.lock differ, too."""


def differences(project: Path, undisturbed: Path) -> list[str]:
    """A line for each file that is not as it is there, and for each of dvc.lock's entries."""
    ours, theirs = _files(project), _files(undisturbed)
    missing = [f"{path}: missing" for path in sorted(theirs - ours)]
    more = [f"{path}: left over" for path in sorted(ours - theirs)]
    other = [
        f"{path}: differs" for path in sorted(ours & theirs) if _content(project, path) != _content(undisturbed, path)
    ]
    locks = [locked(folder) for folder in (project, undisturbed)]
    entries = sorted(key for key in locks[0].keys() | locks[1].keys() if locks[0].get(key) != locks[1].get(key))
    return [*missing, *more, *other, *(f"dvc.lock: {' '.join(key)} differs" for key in entries)]


def _files(root: Path) -> set[str]:
    found = {
        path.relative_to(root).as_posix() for folder in WRITTEN for path in (root / folder).rglob("*") if path.is_file()
    }
    return {path for path in found if Path(path).stem not in OF_TIME}


def _content(root: Path, path: str) -> Any:
    """Bytes; of a record with figures of time, the other figures."""
    file = root / path
    if file.suffix == ".json" and path.startswith(WITH_TIME):
        return _timeless(json.loads(file.read_text(encoding="utf-8")))
    return file.read_bytes()


def _timeless(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    return {key: _timeless(value) for key, value in record.items() if key not in OF_TIME}


def locked(root: Path, timeless: bool = True) -> dict[tuple[str, str, str], Any]:
    """The entries of dvc.lock, by stage, part and path; `timeless`: no hashes of files with figures of time."""
    lock = YAML(typ="safe").load((root / "dvc.lock").read_text(encoding="utf-8"))
    found: dict[tuple[str, str, str], Any] = {}
    for stage, parts in lock["stages"].items():
        found[stage, "cmd", ""] = parts["cmd"]
        found[stage, "params", ""] = parts.get("params")
        for part in ("deps", "outs"):
            for entry in parts.get(part, []):
                hidden = timeless and entry["path"].startswith(WITH_TIME)
                found[stage, part, entry["path"]] = None if hidden else entry
    return found


def leftovers(project: Path) -> list[str]:
    """Our own half-written files, unfinished work and locks that somebody still holds."""
    half = [
        path for path in project.rglob("*") if path.suffix in {".half", ".deleted", ".tmp"} and ".dvc" not in path.parts
    ]
    drafts = list((project / "submission").glob("draft*"))
    unfinished = [path for path in (project / ".cache").glob("*/*/") if path.is_dir() and not (path / ENDED).exists()]
    held = [path for path in (project / ".cache").glob("*/*.lock") if _held(path)]
    return sorted({f"{path.relative_to(project)}: left over" for path in (*half, *drafts, *unfinished, *held)})


def dvc_leftovers(project: Path) -> list[str]:
    """DVC's: a held lock, entries of its rwlock, temporary files, files of its cache that are damaged."""
    folder = project / ".dvc"
    entries = json.loads((folder / "tmp/rwlock").read_text() or "{}")
    found = [f"rwlock: {path}" for path in entries if any(entries[path].values())]
    found += ["lock: held"] if _held(folder / "tmp/lock") else []
    found += [f"{path.relative_to(folder)}: left over" for path in folder.rglob("*.tmp")]
    return found + [f"{path.relative_to(folder)}: damaged" for path in _damaged(folder / "cache/files/md5")]


def _damaged(cache: Path) -> Iterator[Path]:
    for path in cache.glob("??/*"):
        name = path.parent.name + path.name.removesuffix(".dir")
        if path.suffix != ".tmp" and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != name:
            yield path


def _held(path: Path) -> bool:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
