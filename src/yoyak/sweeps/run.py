"""Running a list of experiments through the stages, several at once; of each run one small JSON is kept."""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.core.records import read_json
from yoyak.sweeps import check, copies, schedule
from yoyak.sweeps.collect import MBR
from yoyak.sweeps.experiments import ExperimentList, Run, read_list, runs

LOG_LINES = 12
"""How many of a failed run's log are printed, its last ones."""


@dataclass(frozen=True)
class Options:
    """Which experiments run, where, and how many at once."""

    experiments: Path
    """The YAML file with the list."""
    data: Path
    """The folder that the list's data folders are in."""
    out: Path
    """Where a JSON and a log of each run go."""
    work: Path
    """Copies of the project, and DVC's cache for them."""
    gpus: int | None = None
    """0: on the CPU; None: one, where there is one."""
    per_gpu: int = 1
    """Runs at once on each."""
    minutes: float = math.inf
    """After so many no run starts."""
    only: tuple[str, ...] = ()
    """Names of the experiments that are run; empty: all."""
    commit: str | None = None
    """Of the project, where it is no git repository."""
    seconds: float = math.inf
    """After so many a run that is not done yet is killed; called again, it goes on."""

    def result(self, run: Run) -> Path:
        return self.out / f"{run.name}.json"

    def log(self, run: Run) -> Path:
        return self.out / f"{run.name}.log"

    def copy(self, run: Run) -> Path:
        """The run's copy of the project."""
        return self.work / run.name


def run_list(options: Options) -> set[str]:
    """Run what has not been run yet; the names of the runs that failed, their logs kept.

    Each is `dvc repro` in a copy of the project. Copies share DVC's cache: what one has trained or written no other
    does again. A fault in any run's parameters or data is a `UserError` before the first starts.
    """
    devices = slots(options)
    for option, folder in (("--out", options.out), ("--work", options.work)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option} {folder}: a file; name a folder")
    if not devices[0]:
        print("no GPU is used: on the CPU", flush=True)
    listed = read_list(options.experiments)
    chosen = _chosen(options, listed)
    checked = {
        run.name: check.check_run(listed, run, options.data / run.data, f"{options.experiments}: {run.experiment}")
        for run in chosen
    }
    waiting = [run for run in chosen if not check.has_run(options.result(run), checked[run.name].made_of)]
    print(f"{len(waiting)} of {len(chosen)} experiments to run", flush=True)
    check.fetch_weights({source: key for run in waiting for source, key in checked[run.name].weights.items()})
    for run in waiting:
        # After their weights were fetched: the copies cannot pin what they have not in their lock file.
        cache, data = options.work / "cache", options.data / run.data
        copies.make(options.copy(run), cache, data, listed.params, list(run.overrides))
    options.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + options.seconds
    named = {run.name: run for run in waiting}
    return schedule.run_all(
        {name: checked[name].needs for name in named},
        devices,
        lambda name, gpu: _run(options, named[name], checked[name].made_of, gpu, len(devices), ends),
        options.minutes,
    )


def _chosen(options: Options, listed: ExperimentList) -> list[Run]:
    for name in options.only:
        if name not in listed.experiments:
            raise UserError(f"--only {name}: {options.experiments} has {', '.join(listed.experiments)}")
    return [run for run in runs(listed) if not options.only or run.experiment in options.only]


def slots(options: Options) -> list[str]:
    """`CUDA_VISIBLE_DEVICES` of each slot, one at least, so that the first runs are spread over all GPUs.

    Raises a `UserError` for numbers that cannot be.
    """
    for option, number, least in (("--gpus", options.gpus or 0, 0), ("--per-gpu", options.per_gpu, 1)):
        if number < least:
            raise UserError(f"{option} {number}: at least {least}")
    # Of those that CUDA_VISIBLE_DEVICES names.
    there = torch.cuda.device_count()
    wanted = min(1, there) if options.gpus is None else options.gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted > there:
        limit = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        raise UserError(f"--gpus {wanted}: PyTorch finds {there}{limit}; give as many as there are, or 0 for the CPU")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(there)]
    return (gpus[:wanted] or [""]) * options.per_gpu


def _run(options: Options, run: Run, made_of: dict[str, Any], gpu: str, at_once: int, ends: float) -> bool:
    """Run one of `at_once`; whether it ended well, before `ends` on the monotonic clock. `gpu` is its
    `CUDA_VISIBLE_DEVICES`."""
    copy, log, result = options.copy(run).resolve(), options.log(run), options.result(run)
    cores = str(max(1, (os.cpu_count() or 1) // at_once))
    environment = {
        "CUDA_VISIBLE_DEVICES": gpu,
        "OMP_NUM_THREADS": cores,
        "LOKY_MAX_CPU_COUNT": cores,
        "TORCHINDUCTOR_COMPILE_THREADS": cores,
    }
    started = time.monotonic()
    ended_well = copies.repro(copy, log, environment, seconds=ends - time.monotonic())
    minutes = (time.monotonic() - started) / 60
    about = {
        "experiment": run.experiment,
        "on": run.data,
        "seed": run.seed,
        **made_of,
        "minutes": round(minutes, 2),
        "commit": options.commit or repository.commit(),
    }
    # In a process of its own: several runs may end at once, and each scores on its own share of the cores.
    collect = ["-m", "yoyak.sweeps.collect", str(copy), str(result), json.dumps(about)]
    if ended_well and copies.python(collect, log, environment):
        print(f"{run.name}: {_scores(read_json(result))}, {minutes:.1f} minutes", flush=True)
        return True
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    print(f"{run.name}: failed after {minutes:.1f} minutes, see {log}", *last, sep="\n  ", flush=True)
    return False


def _scores(figures: dict[str, Any]) -> str:
    scores = {name: entry["rouge_mean"] for name, entry in figures["scores"]["models"].items() if "/" not in name}
    mbr = sum(figures["rows"][MBR]) / len(figures["rows"][MBR])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) + f", mbr {mbr:.2f}"
