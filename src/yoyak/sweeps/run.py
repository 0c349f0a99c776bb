"""Running a list of experiments through the stages, several at once; of each run one small JSON is kept."""

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.core.files import write_whole
from yoyak.core.records import read_json
from yoyak.sweeps import check, copies, execution, on_ray, schedule, trials
from yoyak.sweeps.check import CheckedRun
from yoyak.sweeps.collect import MBR
from yoyak.sweeps.execution import LATE, Outcome
from yoyak.sweeps.experiments import ExperimentList, Run, read_list, runs
from yoyak.sweeps.jobs import Job, Place
from yoyak.sweeps.options import Options

LOG_LINES = 12
"""How many of a failed run's log are printed, its last ones."""


def run_list(options: Options) -> set[str]:
    """Run what has not been run yet on this machine; the names of the runs that failed, their logs kept.

    Each is `dvc repro` in a copy of the project. Copies share DVC's cache: what one has trained or written no other
    does again. A fault in any run's parameters or data is a `UserError` before the first starts.
    """
    devices = slots(options)
    jobs = prepare(options)
    return _run(jobs, here(options, devices))


def sweep(options: Options) -> set[str]:
    """As `run_list`; but several runs go to Ray where it is installed, and any to the cluster that the options name."""
    devices = slots(options)
    jobs = prepare(options)
    return _run(jobs, place_of(options, devices, several=len(jobs) > 1))


def place_of(options: Options, devices: list[str], several: bool) -> AbstractContextManager[Place]:
    """Ray's cluster where the options name one, Ray on this machine for several jobs, and this machine without it."""
    has_ray = importlib.util.find_spec("ray") is not None
    if options.address and not has_ray:
        raise UserError(f"--address {options.address}: Ray is not installed; `pip install -e '.[ray]'`")
    if options.address or (has_ray and several):
        return on_ray.start(devices, options)
    if len(devices) > 1 and several:
        print(f"without Ray: {len(devices)} at once on this machine", flush=True)
    return here(options, devices)


def prepare(options: Options) -> dict[str, Job]:
    """What has no result yet, by name in the order of the list: checked, its weights downloaded and pinned."""
    check_folders(options)
    remote = remote_of(options)
    listed = read_list(options.experiments)
    if listed.search:
        raise UserError(f"{options.experiments}: it has ranges; `yoyak sweep LIST --search optuna` draws from them")
    chosen = _chosen(options, listed)
    checked = {
        run.name: check.check_run(listed, run, options.data / run.data, f"{options.experiments}: {run.experiment}")
        for run in chosen
    }
    waiting = [run for run in chosen if not check.has_run(options.result(run), checked[run.name].made_of)]
    print(f"{len(waiting)} of {len(chosen)} experiments to run", flush=True)
    check.fetch_weights({source: key for run in waiting for source, key in checked[run.name].weights.items()})
    options.out.mkdir(parents=True, exist_ok=True)
    commit = commit_of(options)
    return {
        run.name: job_of(options, listed, run, checked[run.name], options.data / run.data, commit, remote)
        for run in waiting
    }


def check_folders(options: Options) -> None:
    """A `UserError` where a file is in the place of one."""
    for option, folder in (("--out", options.out), ("--work", options.work)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option} {folder}: a file; name a folder")


def remote_of(options: Options) -> str:
    """Settings of the remote in a copy; empty: none is shared."""
    return copies.remote_settings(options.remote) if options.remote else ""


def commit_of(options: Options) -> str:
    """Of the project."""
    return options.commit or repository.commit()


def job_of(
    options: Options, listed: ExperimentList, run: Run, checked: CheckedRun, data: Path, commit: str, remote: str
) -> Job:
    """A run of the list on the data folder `data`, ready for any place."""
    told = {"experiment": run.experiment, "on": run.data, "seed": run.seed, **checked.made_of, "commit": commit}
    made_of = options.work / "cache", data, listed.params, list(run.overrides), remote
    copy = options.copy(run).resolve()
    return Job(run, checked.needs, made_of, told, copy, options.log(run), options.result(run))


def _run(jobs: Mapping[str, Job], place: AbstractContextManager[Place]) -> set[str]:
    needs = {name: job.needs for name, job in jobs.items()}
    with place as opened:
        begin = {name: opened.ready(job) for name, job in jobs.items()}
        return schedule.run_all(needs, lambda name: begin[name](), lambda name, outcome: _tell(jobs[name], outcome))


@contextlib.contextmanager
def here(options: Options, devices: list[str]) -> Iterator[Place]:
    """A process of this machine for each job, as many at once as there are `devices`, each a `CUDA_VISIBLE_DEVICES`."""
    if not devices[0]:
        print("no GPU is used: on the CPU", flush=True)
    begun = time.monotonic()
    free: SimpleQueue[str] = SimpleQueue()
    for device in devices:
        free.put(device)

    def run_one(job: Job) -> Outcome:
        if time.monotonic() - begun >= 60 * options.minutes:
            return LATE
        device = free.get()
        seconds = begun + options.seconds - time.monotonic()
        try:
            environment = execution.environment(device, len(devices))
            files = job.copy, job.log, job.result
            keep = partial(trials.record, job.copy, job.kept_as, job.log) if job.kept_as else None
            return execution.execute(*files, job.about, environment, seconds, job.remote, keep=keep)
        finally:
            free.put(device)

    pool = ThreadPoolExecutor(len(devices))

    def ready(job: Job) -> Callable[[], Future[Outcome]]:
        # After its weights were fetched: the copy cannot pin what it has not in its lock file.
        copies.make(job.copy, *job.made_of)
        return lambda: pool.submit(run_one, job)

    try:
        yield Place(lambda: len(devices), ready)
    finally:
        # What Ctrl-C has ended is not followed by those that waited for it.
        pool.shutdown(cancel_futures=True)


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


def _tell(job: Job, outcome: Outcome) -> bool | None:
    """Print what came of a run, having written what of it is not here yet; whether it ended well."""
    if outcome.well is None:
        return None
    write_files(job, outcome)
    if outcome.well:
        print(f"{job.run.name}: {_scores(read_json(job.result))}, {outcome.minutes:.1f} minutes", flush=True)
    else:
        tell_failure(job, outcome)
    return outcome.well


def write_files(job: Job, outcome: Outcome) -> None:
    """What is not here yet of a job that ran on another machine."""
    if outcome.kept:
        trials.unbundle(outcome.kept)
    for ending, content in outcome.files.items():
        write_whole(job.result.with_name(f"{job.run.name}{ending}"), content)


def tell_failure(job: Job, outcome: Outcome) -> None:
    """Print the end of its log."""
    last = job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    failed = f"{job.run.name}: failed after {outcome.minutes:.1f} minutes, see {job.log}"
    print(failed, *last, sep="\n  ", flush=True)


def _scores(figures: dict[str, Any]) -> str:
    scores = {name: entry["rouge_mean"] for name, entry in figures["scores"]["models"].items() if "/" not in name}
    mbr = sum(figures["rows"][MBR]) / len(figures["rows"][MBR])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) + f", mbr {mbr:.2f}"
