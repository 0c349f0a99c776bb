"""DVC's files that a kill has cut off: `.dvc/tmp/rwlock`, where it notes who writes what, and `dvc.lock`.

DVC empties a file before it writes it anew. Where it is killed between the two, or the disk is full, every later
command of DVC fails on it. `python -m yoyak.core.cut_off` mends that before `make repro`.
"""

import json
import re
import sys
from pathlib import Path

from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.files import write_whole
from yoyak.core.repository import git

LOCK_FILE = "dvc.lock"
HEADER = "schema: '2.0'\nstages:\n"
"""What DVC 3 begins the file with."""
MERGE = "\n<<<<<<< "
"""Of a merge that git leaves to the user."""


def mend(project: Path) -> None:
    """Mend what is cut off in a project, and say so; a `UserError` where a DVC process is at work on it.

    Stages that `dvc.lock` has lost are not computed again: DVC finds what they made in its cache.
    """
    found = cut_off(project)
    if not found:
        return
    # They take half a second to load.
    from dvc.lock import LockError, make_lock

    folder = project / ".dvc/tmp"
    try:
        with make_lock(str(folder / "lock")), make_lock(str(folder / "rwlock.lock")):
            # They may have been written meanwhile.
            for path in cut_off(project):
                told = _mend_lock_file(path) if path.name == LOCK_FILE else _remove(path)
                print(f"{told}: DVC was killed over it, and could not read it", file=sys.stderr)
    except LockError:
        raise UserError(f"{found[0]} is cut off, and DVC is at work: wait for its end, then repeat") from None


def cut_off(project: Path) -> list[Path]:
    """Which files of a project are cut off, where DVC would stop at them."""
    rwlock, lock_file = project / ".dvc/tmp/rwlock", project / LOCK_FILE
    found = []
    if rwlock.exists() and not _is_json(rwlock):
        found.append(rwlock)
    if lock_file.exists() and _whole_stages(lock_file) is not None:
        found.append(lock_file)
    return found


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


def _whole_stages(lock_file: Path) -> str | None:
    """What DVC can still read of a lock file that is cut off; None for one that is whole, or wrong in another way."""
    text = lock_file.read_text(encoding="utf-8", errors="replace")
    if HEADER.startswith(text):
        return ""
    begins = [stage.start() for stage in re.finditer(r"^  \S", text, re.MULTILINE)]
    if not text.startswith(HEADER) or MERGE in text or not begins or _is_valid(text):
        return None
    kept = text[: begins[-1]]
    if kept == HEADER:
        return ""
    return kept if _is_valid(kept) else None


def _is_valid(lock: str) -> bool:
    # It takes half a second to load.
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import ParseError, parse_yaml
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(lock, LOCK_FILE))
    except (ParseError, Invalid):
        return False
    return True


def _remove(path: Path) -> str:
    path.unlink()
    return f"removed {path}"


def _mend_lock_file(path: Path) -> str:
    committed = git("-C", str(path.parent), "show", f"HEAD:./{path.name}")
    kept = committed or _whole_stages(path)
    if not kept:
        return _remove(path)
    write_whole(path, kept)
    return f"took {path} from the commit" if committed else f"shortened {path}"


@exits_with_one_line
def main() -> None:
    """Mend the project in the working folder."""
    mend(Path())


if __name__ == "__main__":
    main()
