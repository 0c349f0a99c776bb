"""What a killed training goes on from."""

import json
from pathlib import Path


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint: the trainer writes its state last."""
    complete = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json") if _is_whole(path)]
    return max(complete, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _is_whole(state: Path) -> bool:
    """Not so where the training was killed while it wrote this file."""
    try:
        json.loads(state.read_text())
    except ValueError:
        return False
    return True
