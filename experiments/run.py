"""Run a list of experiments through the stages, several at once, and keep of each one small JSON.

    python experiments/fold_data.py data/raw folds
    python experiments/run.py experiments/sweep.yaml --data folds --out experiments/results/sweep --gpus 4 --per-gpu 3

Each experiment is `dvc repro` in a copy of the project with a folder of `--data` as its data. Copies share DVC's cache:
what one has trained or written no other does again. What is in `--out` is not run again, and must have been made with
the parameters of today; one that fails is told, its log kept, and the rest go on. Ends with exit status 1 where one
failed, and 0 where the deadline left some for later.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import collect
import copies
import plan
from dvc.exceptions import InvalidArgumentError
from plan import Run

from yoyak.core import repository
from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.files import sha256
from yoyak.core.records import read_json
from yoyak.modeling import weights
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params

SAID_LINES = 12
"""Of a failed experiment's log."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="a YAML file such as experiments/sweep.yaml")
    parser.add_argument("--data", type=Path, required=True, help="the folder that the list's data folders are in")
    parser.add_argument("--out", type=Path, required=True, help="where a JSON and a log of each experiment go")
    parser.add_argument(
        "--work", type=Path, default=Path(".cache/experiments"), help="copies, and DVC's cache for them"
    )
    parser.add_argument("--gpus", type=int, help="0: on the CPU; default: 1 where there is one")
    parser.add_argument("--per-gpu", type=int, default=1, help="experiments at once on each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after so many no experiment starts")
    parser.add_argument("--only", nargs="+", help="experiments of these names alone")
    parser.add_argument("--commit", help="where the project is no git repository: the commit that it is of")
    return parser.parse_args()


@exits_with_one_line
def main() -> None:
    asked = arguments()
    _check(asked)
    slots = _slots(asked)
    listed = plan.read_list(asked.list)
    chosen = _chosen(asked, listed)
    made_of = {run.name: _made_of(asked, listed, run) for run in chosen}
    waiting = [run for run in chosen if not _is_there(_result(asked, run), made_of[run.name].told)]
    print(f"{len(waiting)} of {len(chosen)} experiments to run", flush=True)
    _fetch_weights({source: key for run in waiting for source, key in made_of[run.name].weights.items()})
    for run in waiting:
        # After their weights were fetched: the copies cannot pin what they have not in their lock file.
        folder, cache, data = _folder(asked, run), asked.work / "cache", asked.data / run.data
        copies.make(folder, cache, data, listed.params, list(run.overrides))
    asked.out.mkdir(parents=True, exist_ok=True)
    failed = _run_all(asked, slots, {run.name: run for run in waiting}, made_of)
    sys.exit(1 if failed else 0)


def _check(asked: argparse.Namespace) -> None:
    for option, number, least in (("--gpus", asked.gpus or 0, 0), ("--per-gpu", asked.per_gpu, 1)):
        if number < least:
            raise UserError(f"{option} {number}: at least {least}")
    for option, folder in (("--out", asked.out), ("--work", asked.work)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{option} {folder}: a file; name a folder")


def _chosen(asked: argparse.Namespace, listed: plan.List) -> list[Run]:
    for name in asked.only or []:
        if name not in listed.experiments:
            raise UserError(f"--only {name}: {asked.list} has {', '.join(listed.experiments)}")
    return [run for run in plan.runs(listed) if not asked.only or run.experiment in asked.only]


def _result(asked: argparse.Namespace, run: Run) -> Path:
    path: Path = asked.out / f"{run.name}.json"
    return path


def _folder(asked: argparse.Namespace, run: Run) -> Path:
    path: Path = asked.work / run.name
    return path


@dataclass(frozen=True)
class MadeOf:
    """What an experiment is made of, its parameters checked."""

    needs: frozenset[str]
    """What it trains and writes: see `plan.work`."""
    weights: dict[str, str]
    """Sources of base weights, each with its key in `params.yaml`."""
    told: dict[str, Any]
    """Of its JSON: what today's list must agree with."""


def _made_of(asked: argparse.Namespace, listed: plan.List, run: Run) -> MadeOf:
    data, where = asked.data / run.data, f"{asked.list}: {run.experiment}"
    if not data.is_dir():
        raise UserError(f"{where}: no folder {data}; `python experiments/fold_data.py` makes it")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        try:
            copies.write_params(path, data, listed.params, list(run.overrides))
        except (InvalidArgumentError, ValueError) as error:
            raise UserError(f"{where}: {error.__cause__ or error}") from None
        try:
            params = read_params(path)
        except UserError as error:
            raise UserError(f"{where}: {str(error).replace(folder + '/', '')}") from None
    needs, sources = plan.work(params, run.data), _sources(params, where)
    told = {
        "needs": sorted(needs),
        "params": listed.params,
        "set": listed.set,
        "overrides": run.overrides,
        "rows_sha256": {path.name: sha256(path) for path in sorted(data.glob("*.csv"))},
    }
    # As it will be read: JSON has no tuples.
    return MadeOf(needs, sources, json.loads(json.dumps(told)))


def _sources(params: Params, where: str) -> dict[str, str]:
    sources = {
        params.models[name]["weights"]: f"{where}: models.{name}.weights"
        for name in [*params.run.models, *params.run.untuned]
    }
    for source, key in sources.items():
        if source.startswith(("./", "../")):
            raise UserError(f"{key}: each experiment runs in a folder of its own; write {Path(source).resolve()}")
    return sources


def _is_there(result: Path, told: dict[str, Any]) -> bool:
    """Whether this experiment has been run, as it is today."""
    if not result.exists():
        return False
    found = read_json(result)
    for key, value in told.items():
        if not isinstance(found, dict) or found.get(key) != value:
            raise UserError(
                f"{result}: was made with other parameters or data ({key}); remove it, or choose another --out"
            )
    return True


def _fetch_weights(sources: dict[str, str]) -> None:
    """Converted before the copies run, which would all do it at once."""
    for source, key in sources.items():
        # A folder is loaded from where it is, and reading it takes time; what is from scratch is loaded from nowhere.
        local = source.startswith(("/", "~")) and Path(source).expanduser().is_dir()
        if not local and source != "scratch":
            weights.fetch(source, weights.pin(source, key))


def _run_all(asked: argparse.Namespace, slots: list[str], runs: dict[str, Run], made_of: dict[str, MadeOf]) -> set[str]:
    """Names of those that failed."""
    started, at_once = time.monotonic(), len(slots)
    needs = {name: made_of[name].needs for name in runs}
    waiting, done, failed = list(runs), set(), set()
    running: dict[Future[bool], tuple[str, str]] = {}
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            if time.monotonic() - started < 60 * asked.minutes:
                ready = [name for name in waiting if plan.may_start(name, needs, done, failed)]
                for name in ready[: len(slots)]:
                    waiting.remove(name)
                    slot = slots.pop(0)
                    running[pool.submit(_run, asked, runs[name], made_of[name].told, slot, at_once)] = name, slot
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, slot = running.pop(future)
                slots.append(slot)
                (done if future.result() else failed).add(name)
    print(f"{len(done)} done, {len(failed)} failed, {len(waiting)} left for later", flush=True)
    return failed


def _slots(asked: argparse.Namespace) -> list[str]:
    """`CUDA_VISIBLE_DEVICES` of each place, so that the first experiments are spread over all GPUs."""
    import torch

    # Of those that CUDA_VISIBLE_DEVICES names.
    there = torch.cuda.device_count()
    wanted = min(1, there) if asked.gpus is None else asked.gpus
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted > there:
        limit = f" (CUDA_VISIBLE_DEVICES is {seen!r})" if seen is not None else ""
        raise UserError(f"--gpus {wanted}: PyTorch finds {there}{limit}; give as many as there are, or 0 for the CPU")
    if not wanted:
        print("no GPU is used: on the CPU", flush=True)
    gpus = seen.split(",") if seen else [str(gpu) for gpu in range(there)]
    return (gpus[:wanted] or [""]) * asked.per_gpu


def _run(asked: argparse.Namespace, run: Run, told: dict[str, Any], gpu: str, at_once: int) -> bool:
    """Whether it ended well."""
    folder, log, result = _folder(asked, run).resolve(), asked.out / f"{run.name}.log", _result(asked, run)
    cores = str(max(1, (os.cpu_count() or 1) // at_once))
    own = {
        "CUDA_VISIBLE_DEVICES": gpu,
        "OMP_NUM_THREADS": cores,
        "LOKY_MAX_CPU_COUNT": cores,
        "TORCHINDUCTOR_COMPILE_THREADS": cores,
    }
    started = time.monotonic()
    ended_well = copies.repro(folder, log, own)
    minutes = (time.monotonic() - started) / 60
    about = {
        "experiment": run.experiment,
        "on": run.data,
        "seed": run.seed,
        **told,
        "minutes": round(minutes, 2),
        "commit": asked.commit or repository.commit(),
    }
    if ended_well and copies.python(["experiments/collect.py", str(folder), str(result), json.dumps(about)], log, own):
        print(f"{run.name}: {_told(read_json(result))}, {minutes:.1f} minutes", flush=True)
        return True
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SAID_LINES:]
    print(f"{run.name}: failed after {minutes:.1f} minutes, see {log}", *said, sep="\n  ", flush=True)
    return False


def _told(figures: dict[str, Any]) -> str:
    scores = {name: entry["rouge_mean"] for name, entry in figures["scores"]["models"].items() if "/" not in name}
    mbr = sum(figures["rows"][collect.MBR]) / len(figures["rows"][collect.MBR])
    return ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) + f", mbr {mbr:.2f}"


if __name__ == "__main__":
    main()
