"""The final models, from CSV files to summaries: train those of `final.yaml`, summarise a CSV, and ensemble.

    make final DATA=folder GPUS=8
    python experiments/final.py folder --predict further.csv --gpus 4 --per-gpu 2

FOLDER has train.csv and dev.csv, and test.csv unless `--predict` names another file. Where that file has summaries,
too, it is scored. What is trained already, on the same rows, is not trained again.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import copies
import plan
from ruamel.yaml import YAML

from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.records import read_json
from yoyak.core.repository import cache_folder
from yoyak.data.dialogues import SUMMARY_COLUMN
from yoyak.data.tables import read_table

LIST = copies.ROOT / "experiments/final.yaml"
ENSEMBLE = "ensemble"
"""The experiment of that list whose models are the final ones, each trained by the experiment of its name."""
WORK = Path(".cache/final")
SUBMISSION = Path("submission/final.csv")


@exits_with_one_line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--predict", type=Path, help="a CSV with columns fname and dialogue; default: test.csv")
    parser.add_argument("--weights", type=Path, help="wheels, and folders as .cache/weights has them, to be used")
    parser.add_argument("--gpus", type=int, help="0: on the CPU; default: 1 where there is one")
    parser.add_argument("--per-gpu", type=int, default=1)
    asked = parser.parse_args()
    if asked.weights:
        link_weights(asked.weights.resolve())
    (run,) = [run for run in plan.runs(plan.read_list(LIST)) if run.experiment == ENSEMBLE]
    write_data(asked.data, asked.predict or asked.data / "test.csv", WORK / "data" / run.data)
    shutil.rmtree(WORK / "results", ignore_errors=True)
    _run(asked, [*members(run), ENSEMBLE])
    folder = WORK / "work" / run.name
    log = WORK / "results/submit.log"
    if not copies.repro(folder.resolve(), log, {}, "submit"):
        raise UserError(f"the submission did not pass its checks; see {log}")
    SUBMISSION.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / "submission/submission.csv", SUBMISSION)
    _tell(folder)


def members(run: plan.Run) -> list[str]:
    """The models that the last override of `run.models` names."""
    key = "run.models="
    value = [each for each in run.overrides if each.startswith(key)][-1].removeprefix(key)
    names: list[str] = YAML(typ="safe").load(value)
    return names


def link_weights(folder: Path) -> None:
    """Make what was downloaded or converted elsewhere known here; what is here already stays."""
    found = {Path("packages", wheel.name): wheel for wheel in folder.rglob("*.whl")}
    found |= {Path("weights", config.parent.name): config.parent for config in folder.rglob("config.json")}
    if not found:
        raise UserError(f"--weights {folder}: neither wheels nor folders with a config.json; `make weights` downloads")
    for name, target in found.items():
        link = cache_folder() / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and not link.exists():
            link.unlink()  # To where a folder of weights once was.
        if not link.exists():
            link.symlink_to(target)


def write_data(source: Path, predicted: Path, folder: Path) -> None:
    """The files that the pipeline reads: those of `source`, and `predicted` as test."""
    train, dev = (read_table(source / f"{split}.csv", ["fname", "dialogue", "summary"]) for split in ("train", "dev"))
    test = read_table(predicted, ["fname", "dialogue"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    train.to_csv(folder / "train.csv", index=False)
    dev.to_csv(folder / "dev.csv", index=False)
    test[["fname", "dialogue"]].to_csv(folder / "test.csv", index=False)
    test[["fname"]].assign(summary="요약문").to_csv(folder / "sample_submission.csv")
    if summaries := [column for column in test.columns if SUMMARY_COLUMN.fullmatch(column)]:
        test[["fname", *summaries]].to_csv(folder / copies.REFERENCES, index=False)


def _run(asked: argparse.Namespace, names: list[str]) -> None:
    command: list[Any] = [sys.executable, "experiments/run.py", LIST, "--data", WORK / "data"]
    command += ["--out", WORK / "results", "--work", WORK / "work", "--per-gpu", asked.per_gpu]
    command += [] if asked.gpus is None else ["--gpus", asked.gpus]
    if subprocess.run([*map(str, command), "--only", *names], check=False).returncode:
        raise UserError(f"not all models were trained; what was is kept: mend what {WORK}/results tells, and run again")


def _tell(folder: Path) -> None:
    report = read_json(folder / "metrics/ensemble.json")
    for split, key in (("dev", "ensemble"), ("test", "test")):
        if key in report:
            entry = report[key]
            print(f"{split}: {entry['rouge_mean']:.2f} {entry['ci95']}, {entry['rows']} rows")
    print(f"{SUBMISSION}: written; used: {report['used']} of {', '.join(report['members'])}")


if __name__ == "__main__":
    main()
