"""Experiments as tasks of Ray: on this machine, or on the nodes of a cluster.

Ray finds each a place, and one whose node dies a new one. What the task needs of the project goes with it, and its JSON
and its log come back; the driver keeps nothing else.
"""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from yoyak.core.errors import UserError
from yoyak.sweeps import copies, execution, trials
from yoyak.sweeps.execution import LATE, Outcome
from yoyak.sweeps.jobs import Job, Place
from yoyak.sweeps.options import Options

OF_ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_memory_monitor_refresh_ms": "0"}
"""A Ray of one machine is for nobody beyond it: else Ray 2.60 listens on all of its interfaces, `_node_ip_address` or
not, though it asks for a token. And stages themselves meet a memory that runs out; Ray would kill them, and begin anew
without end."""


@dataclass(frozen=True)
class Task:
    """An experiment, as it travels to its node."""

    packed: bytes
    """See `copies.pack`."""
    copy: Path
    """Where the copy is, on each machine; on storage that they share a retry finds the checkpoints there."""
    about: dict[str, Any]
    """Where its JSON begins."""
    shared: bool
    """Whether machines share what they compute through a remote of DVC."""
    project: Path
    """Where the project is, on each machine."""
    kept_as: str | None
    """The name of its experiment of DVC, where the project there can have one."""


@contextlib.contextmanager
def start(devices: list[str], options: Options) -> Iterator[Place]:
    """Ray as a place for jobs, each a task, which has room at once or waits for it.

    On this machine `devices` says how much room there is: the `CUDA_VISIBLE_DEVICES` of each. Raises a `UserError`
    where there is no cluster at the address, or one with another token.
    """
    with _connected(devices, options) as ray:
        gpus = 0 if options.gpus == 0 or not ray.cluster_resources().get("GPU") else 1 / options.per_gpu
        if not gpus:
            print("no GPU is used: on the CPU", flush=True)
        run = ray.remote(_run)
        ends, host = time.time() + 60 * options.minutes, socket.gethostname()

        def ready(job: Job) -> Callable[[], Future[Outcome]]:
            task = Task(copies.pack(*job.made_of), job.copy, job.about, job.remote, Path.cwd(), job.kept_as)

            def begin() -> Future[Outcome]:
                outcome: Future[Outcome] = Future()
                found = run.options(name=job.run.name, num_cpus=1, num_gpus=gpus).remote(task, host, gpus, ends)
                found.future().add_done_callback(lambda done: outcome.set_result(_outcome(done)))
                return outcome

            return begin

        def room() -> int:
            there = ray.cluster_resources()
            return round(float(there.get("GPU", 0) / gpus if gpus else there.get("CPU", 0)))

        yield Place(room, ready)


@contextlib.contextmanager
def _connected(devices: list[str], options: Options) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if options.address is None:
        os.environ.update(OF_ONE_MACHINE)
        room = {"num_cpus": len(devices), "num_gpus": len({*devices} - {""})}
    elif options.gpus:
        raise UserError("--gpus: of a cluster each node tells its own, `ray start --num-gpus`; 0 is for the CPU alone")
    else:
        room = {}
    import ray  # An extra. It reads the environment as it is imported.

    try:
        address = options.address or "local"
        ray.init(address, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False, **room)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"--address {options.address}: {' '.join(str(error).split())}") from None
    try:
        told = options.address or "this machine"
        print(f"on Ray: {told}, {len(ray.nodes())} node{'s' * (len(ray.nodes()) > 1)}", flush=True)
        yield ray
    finally:
        ray.shutdown()


def _outcome(done: Future[Outcome]) -> Outcome:
    error = done.exception()
    return done.result() if error is None else Outcome(False, files={".log": f"{error}\n"})


def _run(task: Task, driver: str, gpus: float, ends: float) -> Outcome:
    """The task, on its node.

    `driver` is the name of the machine that it comes from, `ends` when it is too late to begin, in seconds since 1970.
    """
    if time.time() >= ends:
        return LATE
    task.copy.parent.mkdir(parents=True, exist_ok=True)
    # A node that was given up may be at work still.
    with FileLock(task.copy.with_suffix(task.copy.suffix + ".lock")):
        copies.unpack(task.packed, task.copy)
        log, result = (task.copy / f"experiment.{ending}" for ending in ("log", "json"))
        # Base weights were downloaded there; by their pins they are the same here.
        online = {} if socket.gethostname() == driver else {"HF_HUB_OFFLINE": "0"}
        kept: list[bytes] = []
        keep = None
        if task.kept_as and trials.are_kept(task.project):
            keep = partial(_keep, kept, task, task.kept_as, log)
        outcome = execution.execute(
            task.copy,
            log,
            result,
            task.about,
            {**_environment(gpus), **online},
            shared=task.shared,
            watched=True,
            keep=keep,
        )
        written = [log, result] if outcome.well else [log]
        files = {path.suffix: path.read_text(encoding="utf-8", errors="replace") for path in written}
        return Outcome(outcome.well, outcome.minutes, files, b"".join(kept))


def _keep(kept: list[bytes], task: Task, name: str, log: Path) -> None:
    kept.append(trials.bundle(task.copy, task.project, name, log))


def _environment(gpus: float) -> dict[str, str]:
    import ray

    (node,) = [each for each in ray.nodes() if each["NodeID"] == ray.get_runtime_context().get_node_id()]
    room = node["Resources"]
    at_once = room["GPU"] / gpus if gpus else room["CPU"]
    return execution.environment(",".join(map(str, ray.get_gpu_ids())), max(1, round(at_once)))
