"""Memory and time of data that does not fit into memory, and whether they grow with the rows alone.

    python benchmarks/large_data.py [ROWS ...]

So many synthetic dialogues, in words of the sample's, go as dev rows through the stage `prepare_prompts`, and then,
with two models' summaries of each, through `score`; up to `REPORTED` of them through `yoyak report`, too. A stage's
memory is the largest sum over its processes of what each has for itself and its part of what they share (PSS).
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import recording
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))
from project import ColdProject, Project, new_project

from yoyak.core import environment, repository
from yoyak.core.records import Candidate, Prediction, write_records

ROWS = (20_000, 100_000, 1_000_000)
REPORTED = 100_000
MODELS = ("first", "second")
SAMPLE = Path("data/sample")
EVERY = 0.1
"""Seconds between two looks at the memory."""


def main() -> None:
    recording.require_clean_tree()
    rows = [figure for size in [int(size) for size in sys.argv[1:]] or ROWS for figure in figures_of(size)]
    table = Table(title=f"large_data on {rows[0]['device']}")
    for column in ("name", "rows", "seconds", "peak_gib", "written_gib"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in rows:
        table.add_row(*(str(row[column.header]) for column in table.columns))
    Console().print(table)
    Path("benchmarks/results/large_data.json").write_text(json.dumps(rows, indent=2) + "\n")


def figures_of(size: int) -> Iterator[dict[str, Any]]:
    """The figures of so many rows, a stage a line."""
    with tempfile.TemporaryDirectory() as folder:
        project = large_project(Path(folder) / "project", size)
        stages = {
            "prepare_prompts": (["python", "stages/prepare_prompts.py"], ["data/prompts", "data/references"]),
            "score": (["python", "stages/score.py"], ["scores"]),
        }
        if size <= REPORTED:
            stages["report"] = (["yoyak", "report"], ["report.html"])
        for name, (command, written) in stages.items():
            if name == "score":
                write_summaries(project.root, size)
            seconds, peak = measured(command, project)
            yield {
                "name": name,
                "device": environment.describe()["device"],
                "rows": size,
                "seconds": round(seconds, 1),
                "peak_gib": round(peak / 2**30, 2),
                "written_gib": round(sum(map(_size, (project.root / path for path in written))) / 2**30, 3),
                "commit": repository.commit(),
                "command": "python benchmarks/large_data.py",
            }


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]))


def measured(command: list[str], project: Project) -> tuple[float, int]:
    """Seconds of a command, and the most bytes of memory that it and its children had together."""
    started, peak, ended = time.perf_counter(), 0, threading.Event()
    process = subprocess.Popen(command, cwd=project.root, env=project.environment())

    def watch() -> None:
        nonlocal peak
        while not ended.wait(EVERY):
            peak = max(peak, memory(process.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    status = process.wait()
    seconds = time.perf_counter() - started
    ended.set()
    thread.join()
    if status:
        sys.exit(f"error: {' '.join(command)}: exit code {status}")
    return seconds, peak


def memory(pid: int) -> int:
    """Bytes of a process and its descendants; pages that they share count once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        for each in [parent, *parent.children(recursive=True)]:
            total += each.memory_full_info().pss
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        # It ended while it was looked at.
        pass
    return total


# The data


def large_project(root: Path, size: int) -> Project:
    """A project whose dev split has so many rows; train and test have the sample's."""
    project = new_project(root, {"train": 200, "dev": 40, "test": 50})
    project.edit(lambda params: params["run"].update(models=["bart_mini"], untuned=[]))
    with (root / "data/sample/dev.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fname", "dialogue", "summary", "topic"])
        writer.writerows(dialogues(size))
    return ColdProject(root)


def dialogues(size: int) -> Iterator[tuple[str, str, str, str]]:
    """Rows of about the competition's lengths, no two alike: turns of the sample, cut and put together again."""
    draw = random.Random(0)
    rows = sample("train")
    turns = [line.split(": ", 1)[-1] for row in rows for line in row["dialogue"].split("\n")]
    topics = [row["topic"] for row in rows]
    for number in range(size):
        said = [f"#Person{1 + turn % 2}#: {draw.choice(turns)}" for turn in range(draw.randint(4, 14))]
        yield f"dev_{number}", "\n".join(said), summary(draw, rows), f"{draw.choice(topics)} {draw.randrange(size)}"


def summary(draw: random.Random, rows: list[dict[str, str]]) -> str:
    first, second = draw.choice(rows)["summary"], draw.choice(rows)["summary"]
    return first[: draw.randint(10, 60)] + second[-draw.randint(20, 60) :]


def write_summaries(root: Path, size: int) -> None:
    """What the models say of dev and test, as inference writes it; and their learning curves."""
    rows = sample("train")
    shutil.rmtree(root / "predictions", ignore_errors=True)
    for model in MODELS:
        draw = random.Random(model)
        for split, count in (("dev", size), ("test", 50)):
            write_records(
                root / f"predictions/{model}/{split}.jsonl",
                (_prediction(f"{split}_{number}", [summary(draw, rows) for _ in range(4)]) for number in range(count)),
            )
        curve = root / f"plots/training/{model}/epochs.csv"
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text("epoch,step,loss\n1,22,3.5\n2,44,2.5\n")
    Project(root).edit(lambda params: params["run"].update(models=list(MODELS)))


def _prediction(fname: str, texts: list[str]) -> Prediction:
    candidates = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in texts)
    return Prediction(fname=fname, text=texts[0], candidates=candidates)


def sample(split: str) -> list[dict[str, str]]:
    with (SAMPLE / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
