"""Data may be larger than memory: what a stage takes does not grow with the texts of its rows."""

import csv
from pathlib import Path

from project import ColdProject, new_project

from yoyak.core.records import Candidate, Prediction, Prompt, Reference, write_records

FEW, MANY = 1_000, 2_900
"""From so many on the blocks are full in which draws are made and lines are written."""
LONG = "여행 이야기를 합니다. " * 150
"""1,950 characters: 4 KB in memory."""
MOST_GROWTH = 2**11
"""Bytes a row: names, figures and digests. A row's texts have several times as many."""
MEASURED = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def peak(project: ColdProject, stage: str) -> int:
    """The most bytes that a stage had in memory. It starts in a Python of its own, which has nothing loaded."""
    return 2**10 * int(project.run("python", "-c", MEASURED, f"stages/{stage}.py").stdout.split()[-1])


def new(root: Path) -> ColdProject:
    project = new_project(root, {"train": 2, "dev": 2, "test": 2})
    project.edit(lambda params: params["run"].update(models=["bart_mini"], untuned=[]))
    project.edit(lambda params: params["scoring"].update(bootstrap_samples=100))
    return ColdProject(root)


def test_prompts(tmp_path: Path) -> None:
    project = new(tmp_path / "project")
    peaks = []
    # What it builds the first time, to look whether it can be built, is larger than all that follows.
    project.stage("prepare_prompts")
    for rows in (FEW, MANY):
        with (project.root / "data/sample/train.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["fname", "dialogue", "summary"])
            writer.writerows(
                (f"train_{row}", f"#Person1#: {row} {LONG}\n#Person2#: {LONG}", LONG) for row in range(rows)
            )
        peaks.append(peak(project, "prepare_prompts"))
    assert (project.root / "data/prompts/train.jsonl").read_text(encoding="utf-8").count("\n") == MANY
    assert (peaks[1] - peaks[0]) / (MANY - FEW) < MOST_GROWTH


def test_scores(tmp_path: Path) -> None:
    project = new(tmp_path / "project")
    peaks = []
    for rows in (FEW, MANY):
        write_rows(project.root, rows)
        peaks.append(peak(project, "score"))
    assert (project.root / "scores/rows.csv").read_text(encoding="utf-8").count("bart_mini") == MANY + 2
    assert (peaks[1] - peaks[0]) / (MANY - FEW) < MOST_GROWTH


def write_rows(root: Path, count: int) -> None:
    """What the stages before it write: each row has long candidates, of which the first alone is scored."""
    turns = ("#Person1#: 여행 갈까요?", "#Person2#: 네, 가요.")
    first = Candidate(text="둘은 여행을 간다.", log_probability=-1.0, finished=True)
    others = [Candidate(text=LONG, log_probability=-2.0, finished=True)] * 2
    for split, rows in (("dev", count), ("test", 2)):
        names = [f"{split}_{row}" for row in range(rows)]
        prompts = [Prompt(fname=name, system="", turns=turns, question="") for name in names]
        references = [Reference(fname=name, summaries=("여행을 간다.",)) for name in names]
        said = [Prediction(fname=name, text=first.text, candidates=(first, *others)) for name in names]
        write_records(root / f"data/prompts/{split}.jsonl", prompts)
        write_records(root / f"data/references/{split}.jsonl", references)
        write_records(root / f"predictions/bart_mini/{split}.jsonl", said)
    curve = root / "plots/training/bart_mini/epochs.csv"
    curve.parent.mkdir(parents=True, exist_ok=True)
    curve.write_text("epoch,step,loss\n1,22,3.5\n2,44,2.5\n")
