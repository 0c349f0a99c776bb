"""`yoyak summarize` of one dialogue, from the command to its text: this checkout's code beside another's, by turns.

    python benchmarks/summarize.py MODEL OTHER [TURNS]

In a project where MODEL is trained. OTHER is the folder of a clone at the commit to compare with: its code runs on this
project's model. The dialogue is the page's example. Both sides must print the same text; of their wall and CPU seconds
(user and system, whole process, files in the page cache) the medians count.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import recording

from yoyak.core import repository
from yoyak.serving.web import EXAMPLE

TURNS = 7
MAIN = "from yoyak.cli import main; main()"


class Run(NamedTuple):
    wall: float
    cpu: float
    peak_gib: float
    text: str


def main() -> None:
    model, other = sys.argv[1], Path(sys.argv[2]).absolute()
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else TURNS
    recording.require_clean_tree()
    runs: dict[Path, list[Run]] = {Path.cwd(): [], other: []}
    for turn in range(turns + 1):
        for folder in runs:
            done = run(folder, model)
            print(f"{folder.name}: {done.wall:.2f} s, {done.cpu:.2f} s of CPU", flush=True)
            # The first compiles modules and reads files from the disk.
            runs[folder] += [done] * (turn > 0)
    assert len({each.text for of_one in runs.values() for each in of_one}) == 1, "the texts differ"
    ours, theirs = runs.values()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=other, capture_output=True, text=True, check=True
    )
    command = f"python benchmarks/summarize.py {model} OTHER"
    rows = [
        recording.row(
            f"yoyak summarize, one dialogue, {model}",
            unit,
            median(getattr(each, field) for each in ours),
            median(getattr(each, field) for each in theirs),
            f"commit {commit.stdout.strip()}",
            max(each.peak_gib for each in ours),
            command,
        )
        for unit, field in (("seconds", "wall"), ("seconds of CPU", "cpu"))
    ]
    recording.record("summarize", rows)


def run(folder: Path, model: str) -> Run:
    """The command in this project, by the code in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    command = [sys.executable, "-c", MAIN, "summarize", "-", "--model", model]
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(EXAMPLE.encode())
        given.seek(0)
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=printed,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=repository.project_folder(Path.cwd()),
        )
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        if status:
            sys.exit(f"error: {folder}: {' '.join(command)}: exit status {status}")
        printed.seek(0)
        return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20, printed.read().decode())


if __name__ == "__main__":
    main()
