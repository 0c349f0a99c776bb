"""Stage `members@<model>`: what the trained members of an average are, to the byte.

DVC cannot list the models of `members` as dependencies: this depends on all, the average's inference on what it writes.
"""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.files import files_in, sha256
    from yoyak.core.records import write_json
    from yoyak.core.run import model_of_the_stage
    from yoyak.inference.params import read_config

    name = model_of_the_stage()
    members = read_config(Path(f"data/resolved/{name}/generation.yaml")).members_of(name)
    files = {member: files_in(Path(f"models/{member}")) for member in members}
    digests = {member: {path.name: sha256(path) for path in paths} for member, paths in files.items()}
    write_json(Path(f"data/members/{name}.json"), digests)


if __name__ == "__main__":
    main()
