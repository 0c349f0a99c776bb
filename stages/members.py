"""Stage `members@<model>`: what the trained members of an average are, to the byte.

DVC cannot list the models of `members` as dependencies. So this stage depends on all models, and the average's
inference on what is written here: it does not run again because another model has changed.
"""

import hashlib
import sys
from pathlib import Path

from yoyak.errors import exits_with_one_line
from yoyak.jobs import read_job
from yoyak.records import write_json


@exits_with_one_line
def main() -> None:
    name = sys.argv[1]
    members = read_job(Path(f"data/resolved/{name}/generation.yaml")).members_of(name)
    write_json(
        Path(f"data/members/{name}.json"),
        {
            member: {path.name: _digest(path) for path in sorted(Path(f"models/{member}").iterdir())}
            for member in members
        },
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
