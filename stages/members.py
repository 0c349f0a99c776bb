"""Stage `members@<model>`: what the trained members of an average are, to the byte.

DVC cannot list the models of `members` as dependencies. So this stage depends on all models, and the average's
inference on what is written here: it does not run again because another model has changed.
"""

import sys
from pathlib import Path

from yoyak.core.errors import exits_with_one_line
from yoyak.core.files import sha256
from yoyak.core.records import write_json
from yoyak.inference.params import read_job


@exits_with_one_line
def main() -> None:
    name = sys.argv[1]
    members = read_job(Path(f"data/resolved/{name}/generation.yaml")).members_of(name)
    folders = {member: sorted(Path(f"models/{member}").iterdir()) for member in members}
    digests = {member: {path.name: sha256(path) for path in files} for member, files in folders.items()}
    write_json(Path(f"data/members/{name}.json"), digests)


if __name__ == "__main__":
    main()
