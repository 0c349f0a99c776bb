"""Who writes what now, as DVC notes it in `.dvc/tmp/rwlock`."""

import json
import os
from pathlib import Path


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
