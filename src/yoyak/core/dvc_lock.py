"""DVC's file of who writes what, `.dvc/tmp/rwlock`: reading it, and removing one that a kill has cut off.

DVC empties the file before it writes it anew. Where it is killed between the two, or the disk is full, every later
command of DVC fails on it. `python -m yoyak.core.dvc_lock` mends that before `make repro`.
"""

import json
import os
import sys
from pathlib import Path

from yoyak.core.errors import UserError, exits_with_one_line


def written_now(folder: Path) -> set[str]:
    """Paths that a living process is writing, as DVC notes them in its temporary folder."""
    try:
        entries = json.loads((folder / "rwlock").read_text(encoding="utf-8"))["write"]
        return {path for path, entry in entries.items() if _alive(entry["pid"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return set()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def mend(project: Path) -> None:
    """Remove the project's file if it is cut off, and say so; a `UserError` where a DVC process is at work."""
    folder = project / ".dvc/tmp"
    if not _is_cut_off(folder / "rwlock"):
        return
    # They take half a second to load.
    from dvc.lock import LockError, make_lock

    try:
        with make_lock(str(folder / "lock")), make_lock(str(folder / "rwlock.lock")):
            # It may have been written meanwhile.
            if _is_cut_off(folder / "rwlock"):
                (folder / "rwlock").unlink()
                print(f"removed {folder / 'rwlock'}: DVC was killed over it, and could not read it", file=sys.stderr)
    except LockError:
        raise UserError(f"{folder / 'rwlock'} is cut off, and DVC is at work: wait for its end, then repeat") from None


def _is_cut_off(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return True
    return False


@exits_with_one_line
def main() -> None:
    """Mend the project in the working folder."""
    mend(Path())


if __name__ == "__main__":
    main()
