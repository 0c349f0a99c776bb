"""What a copy of the project has computed, pushed to its remote of DVC: `python -m yoyak.sweeps.push`, in the copy.

`dvc push --run-cache` (3.67) pushes what DVC knows of a stage that has run, but not those of its outputs that are kept
out of the cache, our metrics; without them `dvc repro --pull` runs the stage again.
"""

from pathlib import Path

from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo

from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import read_yaml


@exits_with_one_line
def main() -> None:
    """Push it."""
    stages = read_yaml(Path("dvc.lock"))["stages"].values()
    outputs = [HashInfo("md5", output["md5"]) for stage in stages for output in stage["outs"]]
    with in_one_line("workspace"), Repo() as repo:
        repo.push(run_cache=True)
        repo.cloud.push(outputs)


if __name__ == "__main__":
    main()
