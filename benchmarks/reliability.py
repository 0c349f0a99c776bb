"""Kill the pipeline at random moments, let it go on, and compare what it ends with to an undisturbed run.

    python benchmarks/reliability.py            # about ten minutes on two cores
    python benchmarks/reliability.py --kills 1 --only score --kills-only --draft out.json

The project is shrunk as the tests shrink it: a real git and DVC repository in a temporary folder, tiny models, a CPU.
`dvc repro` runs once undisturbed. Then, for each stage, again and again: a copy of that project in which the stage has
not run yet, `dvc repro`, SIGKILL at a random moment to DVC and its stage, to DVC alone, to the stage alone, or while
DVC saves to its cache; sometimes twice; `dvc repro` to the end; and each file is compared.
`python docs/generate/reliability.py` writes docs/reliability.md from the results.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/support")]

import recording  # noqa: E402
import trials  # noqa: E402
import warm_python  # noqa: E402
from kills import Duration, durations  # noqa: E402
from project import Project, new_project  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from sameness import locked  # noqa: E402
from twins import llama32, save_twin  # noqa: E402

from yoyak.core import environment, repository  # noqa: E402

STAGES = (
    "train@llama32_3b",
    "train@bart_mini",
    "infer@llama32_3b",
    "infer@bart_mini",
    "score",
    "ensemble",
    "submit",
)
HOW = ("group", "dvc", "stage", "saving")
INTERRUPTED = {"train@llama32_3b": "make repro", "infer@bart_mini": "dvc repro"}
"""Stages that get Ctrl-C, and the command that runs them."""
THREADS = {"again": 1, "two": 2}
"""Of the clones that run the same commit."""
ROWS = {"train": 8, "dev": 8, "test": 8}
EPOCHS, ROWS_A_STEP = 6, 2
STARTED = time.monotonic()


def main() -> None:
    asked = _arguments()
    if asked.draft is None:
        recording.require_clean_tree()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        (folder / "warm").mkdir()
        results = {
            "device": environment.describe()["device"],
            "commit": repository.commit(),
            "command": " ".join(["python", "benchmarks/reliability.py", *sys.argv[1:]]),
            "seed": asked.seed,
            "project": {"rows": ROWS, "epochs": EPOCHS, "steps_an_epoch": ROWS["train"] // ROWS_A_STEP},
            **_measure(folder, asked),
        }
    path = asked.draft or ROOT / "benchmarks/results/reliability.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    _print(results)
    if any(trial["faults"] for part in ("kills", "interrupts") for trial in results[part]):
        sys.exit("error: there are faults; see above")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill the shrunk pipeline at random moments.")
    parser.add_argument("--kills", type=int, default=8, help="killed runs of each stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, help="stages")
    parser.add_argument("--minutes", type=float, default=60, help="after which no further run is killed")
    parser.add_argument("--kills-only", action="store_true", help="no Ctrl-C and no clones")
    parser.add_argument("--draft", type=Path, help="a file for the results, also of uncommitted code")
    return parser.parse_args()


def _measure(folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    project = _project(folder / "undisturbed/project")
    with warm_python.warm_python(folder / "warm"), ThreadPoolExecutor() as beside:
        clones = {} if asked.kills_only else {name: _clone(project, folder / name, name) for name in THREADS}
        runs = [beside.submit(clone.run, "dvc", "repro") for clone in clones.values()]
        took = durations(project)
        draw = random.Random(asked.seed)
        interrupted = [] if asked.kills_only else _interrupted(project, folder / "trial", took, draw)
        killed = _killed(project, folder / "trial", asked, took, draw)
        for run in runs:
            run.result()
    reproducible = {} if asked.kills_only else {"reproducible": _reproducible({"first": project, **clones})}
    return {"kills": killed, "interrupts": interrupted, **reproducible}


def _killed(
    project: Project, folder: Path, asked: argparse.Namespace, took: dict[str, Duration], draw: random.Random
) -> list[dict[str, Any]]:
    """Stage after stage in each round: what the time does not suffice for is missing of all alike."""
    found: list[dict[str, Any]] = []
    for number in range(asked.kills):
        for offset, stage in enumerate(asked.only):
            if time.monotonic() > STARTED + 60 * asked.minutes:
                return found
            trial = trials.killed(project, folder, stage, HOW[(number + offset) % len(HOW)], took[stage], draw)
            found.append(asdict(trial))
            print(len(found), trial, flush=True)
            shutil.rmtree(folder)
    return found


def _interrupted(
    project: Project, folder: Path, took: dict[str, Duration], draw: random.Random
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for stage, command in INTERRUPTED.items():
        trial = trials.interrupted(project, folder, stage, tuple(command.split()), took[stage], draw)
        found.append(asdict(trial))
        print(trial, flush=True)
        shutil.rmtree(folder)
    return found


def _project(root: Path) -> Project:
    """The shrunk project: a checkpoint an epoch, and each dialogue's summary written by itself."""
    project = new_project(root, ROWS)
    save_twin(llama32, root / "twins/llama32_3b")
    project.edit(_shrink)
    shutil.copyfile(ROOT / "Makefile", root / "Makefile")
    project.commit("shrunk")
    return project


def _shrink(params: Any) -> None:
    long = {"epochs": EPOCHS, "early_stopping_patience": EPOCHS}
    params["run"].update(models=["llama32_3b", "bart_mini"], untuned=[])
    params["training"].update(long, effective_batch_size=ROWS_A_STEP)
    params["generation"].update(max_new_tokens=12, batch_size=1)
    params["limits"].update(free_gb=0.1, empty_percent=100)
    params["models"]["llama32_3b"].update(weights="./twins/llama32_3b", dtype="fp32")
    params["models"]["bart_mini"]["training"].update(long)
    params["models"]["bart_mini"]["generation"].update(max_new_tokens=12)
    params["models"]["bart_mini"]["architecture"].update(vocab_size=600, d_model=32, encoder_ffn_dim=64)


class Clone(Project):
    """A clone whose stages compute with so many threads."""

    threads = 1

    def environment(self) -> dict[str, str]:
        return super().environment() | {"OMP_NUM_THREADS": str(self.threads)}


def _clone(project: Project, folder: Path, name: str) -> Clone:
    """Of the commit alone: nothing that has run."""
    clone = Clone(project.clone(folder / "project").root)
    clone.threads = THREADS[name]
    return clone


def _reproducible(projects: dict[str, Project]) -> dict[str, Any]:
    """Which files of dvc.lock are equal to the first project's, and all scores."""
    locks = {name: locked(project.root, timeless=False) for name, project in projects.items()}
    files = [
        {"stage": key[0], "path": key[2], **{name: lock[key] == locks["first"][key] for name, lock in locks.items()}}
        for key in locks["first"]
        if key[1] == "outs"
    ]
    return {"files": files, "scores": {name: _scores(project.root) for name, project in projects.items()}}


def _scores(root: Path) -> dict[str, float]:
    """`rouge_mean` on dev, percent, of the models and of the ensemble."""
    models = json.loads((root / "metrics/scores.json").read_text())["models"]
    ensemble = json.loads((root / "metrics/ensemble.json").read_text())["ensemble"]
    trained = {name: models[name]["rouge_mean"] for name in ("llama32_3b", "bart_mini")}
    return trained | {"ensemble": ensemble["rouge_mean"]}


def _print(results: dict[str, Any]) -> None:
    table = Table(title=f"killed runs on {results['device']}")
    for column in ("stage", *HOW, "faults"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in STAGES:
        of_stage = [trial for trial in results["kills"] if trial["stage"] == stage]
        counts = [str(sum(len(trial["kills"]) for trial in of_stage if trial["how"] == how)) for how in HOW]
        table.add_row(stage, *counts, str(sum(bool(trial["faults"]) for trial in of_stage)))
    Console().print(table)


if __name__ == "__main__":
    main()
