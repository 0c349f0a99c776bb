"""Running a list of experiments through the stages, several at once; of each run one small JSON is kept."""

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.core.records import read_json
from yoyak.sweeps import check, copies, execution, on_ray, schedule
from yoyak.sweeps.check import CheckedRun
from yoyak.sweeps.collect import MBR
from yoyak.sweeps.execution import LATE, Outcome
from yoyak.sweeps.experiments import ExperimentList, Run, read_list, runs
from yoyak.sweeps.options import Options

LOG_LINES = 12
"""How many of a failed run's log are printed, its last ones."""


@dataclass(frozen=True)
class Work:
    """What is to be run."""

    options: Options
    listed: ExperimentList
    runs: dict[str, Run]
    """Those without a result, by name, in the order of the list."""
    checked: dict[str, CheckedRun]
    """Each of them."""
    commit: str
    """Of the project."""
    remote: str
    """Its settings in a copy; empty: none is shared."""

    def about(self, name: str) -> dict[str, Any]:
        """Where the JSON begins."""
        run = self.runs[name]
        told = {"experiment": run.experiment, "on": run.data, "seed": run.seed, **self.checked[name].made_of}
        return {**told, "commit": self.commit}

    def made_of(self, name: str) -> tuple[Path, Path, dict[str, Any], list[str], str]:
        """Of its copy, as `copies.make` takes it: DVC's cache, data, changed parameters, overrides, remote."""
        options, run = self.options, self.runs[name]
        cache, data = options.work / "cache", options.data / run.data
        return cache, data, self.listed.params, list(run.overrides), self.remote


Start = Callable[[str], Future[Outcome]]
"""Lets a run begin as soon as there is room."""


def run_list(options: Options) -> set[str]:
    """Run what has not been run yet on this machine; the names of the runs that failed, their logs kept.

    Each is `dvc repro` in a copy of the project. Copies share DVC's cache: what one has trained or written no other
    does again. A fault in any run's parameters or data is a `UserError` before the first starts.
    """
    devices = slots(options)
    work = prepare(options)
    return _run(work, here(work, devices))


def sweep(options: Options) -> set[str]:
    """As `run_list`; but several runs go to Ray where it is installed, and any to the cluster that the options name."""
    devices = slots(options)
    work = prepare(options)
    has_ray = importlib.util.find_spec("ray") is not None
    if options.address and not has_ray:
        raise UserError(f"--address {options.address}: Ray is not installed; `pip install -e '.[ray]'`")
    if options.address or (has_ray and len(work.runs) > 1):
        return _run(work, on_ray.start(_tasks(work), devices, options))
    if len(devices) > 1 and len(work.runs) > 1:
        print(f"without Ray: {len(devices)} at once on this machine", flush=True)
    return _run(work, here(work, devices))


def prepare(options: Options) -> Work:
    """What has no result yet, checked, with its weights downloaded and pinned."""
    for option, folder in (("--out", options.out), ("--work", options.work)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option} {folder}: a file; name a folder")
    remote = copies.remote_settings(options.remote) if options.remote else ""
    listed = read_list(options.experiments)
    chosen = _chosen(options, listed)
    checked = {
        run.name: check.check_run(listed, run, options.data / run.data, f"{options.experiments}: {run.experiment}")
        for run in chosen
    }
    waiting = {run.name: run for run in chosen if not check.has_run(options.result(run), checked[run.name].made_of)}
    print(f"{len(waiting)} of {len(chosen)} experiments to run", flush=True)
    check.fetch_weights({source: key for name in waiting for source, key in checked[name].weights.items()})
    options.out.mkdir(parents=True, exist_ok=True)
    return Work(options, listed, waiting, checked, options.commit or repository.commit(), remote)


def _run(work: Work, place: AbstractContextManager[Start]) -> set[str]:
    needs = {name: work.checked[name].needs for name in work.runs}
    with place as start:
        return schedule.run_all(needs, start, lambda name, outcome: _tell(work, name, outcome))


@contextlib.contextmanager
def here(work: Work, devices: list[str]) -> Iterator[Start]:
    """A process of this machine for each run, as many at once as there are `devices`, each a `CUDA_VISIBLE_DEVICES`."""
    options = work.options
    if not devices[0]:
        print("no GPU is used: on the CPU", flush=True)
    for name, run in work.runs.items():
        # After their weights were fetched: the copies cannot pin what they have not in their lock file.
        copies.make(options.copy(run), *work.made_of(name))
    begun = time.monotonic()
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)

    def run_one(name: str) -> Outcome:
        if time.monotonic() - begun >= 60 * options.minutes:
            return LATE
        run, device = work.runs[name], free.get()
        files = options.copy(run).resolve(), options.log(run), options.result(run)
        seconds = begun + options.seconds - time.monotonic()
        try:
            environment = execution.environment(device, len(devices))
            return execution.execute(*files, work.about(name), environment, seconds, bool(work.remote))
        finally:
            free.put(device)

    pool = ThreadPoolExecutor(len(devices))
    try:
        yield lambda name: pool.submit(run_one, name)
    finally:
        # What Ctrl-C has ended is not followed by those that waited for it.
        pool.shutdown(cancel_futures=True)


def _tasks(work: Work) -> dict[str, on_ray.Task]:
    return {
        name: on_ray.Task(
            copies.pack(*work.made_of(name)), work.options.copy(run).resolve(), work.about(name), bool(work.remote)
        )
        for name, run in work.runs.items()
    }


def _chosen(options: Options, listed: ExperimentList) -> list[Run]:
    for name in options.only:
        if name not in listed.experiments:
            raise UserError(f"--only {name}: {options.experiments} has {', '.join(listed.experiments)}")
    return [run for run in runs(listed) if not options.only or run.experiment in options.only]


def slots(options: Options) -> list[str]:
    """`CUDA_VISIBLE_DEVICES` of each slot, so that the first runs are spread over all GPUs: one at least, but none on a
    cluster, whose nodes have their own.

    Raises a `UserError` for numbers that cannot be.
    """
    for option, number, least in (("--gpus", options.gpus or 0, 0), ("--per-gpu", options.per_gpu, 1)):
        if number < least:
            raise UserError(f"{option} {number}: at least {least}")
    if options.address:
        return []
    there = torch.cuda.device_count()  # Of those that CUDA_VISIBLE_DEVICES names.
    wanted = min(1, there) if options.gpus is None else options.gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted > there:
        limit = f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else ""
        raise UserError(f"--gpus {wanted}: PyTorch finds {there}{limit}; give as many as there are, or 0 for the CPU")
    gpus = visible.split(",") if visible else [str(gpu) for gpu in range(there)]
    return (gpus[:wanted] or [""]) * options.per_gpu


def _tell(work: Work, name: str, outcome: Outcome) -> bool | None:
    """Print what came of a run, having written what of it is not here yet; whether it ended well."""
    if outcome.well is None:
        return None
    run, options = work.runs[name], work.options
    for ending, content in outcome.files.items():
        (options.out / f"{name}{ending}").write_text(content, encoding="utf-8")
    if outcome.well:
        print(f"{name}: {_scores(read_json(options.result(run)))}, {outcome.minutes:.1f} minutes", flush=True)
        return True
    log = options.log(run)
    last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    print(f"{name}: failed after {outcome.minutes:.1f} minutes, see {log}", *last, sep="\n  ", flush=True)
    return False


def _scores(figures: dict[str, Any]) -> str:
    scores = {name: entry["rouge_mean"] for name, entry in figures["scores"]["models"].items() if "/" not in name}
    mbr = sum(figures["rows"][MBR]) / len(figures["rows"][MBR])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) + f", mbr {mbr:.2f}"
