"""Run a list of experiments through the stages, several at once, and keep of each one small JSON.

    python experiments/fold_data.py data/raw folds
    python experiments/run.py experiments/sweep.yaml --data folds --out results --gpus 8 --per-gpu 2

Each experiment is `dvc repro` in a copy of the project with a folder of `--data` as its data. Copies share DVC's cache:
what one has trained or written no other does again. What is in `--out` is not run again; one that fails is told, its
log kept, and the rest go on. Ends with exit status 1 where one failed, and 0 where the deadline left some for later.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import collect
import copies
import plan
from dvc.exceptions import InvalidArgumentError
from plan import Run

from yoyak import machine, weights
from yoyak.errors import UserError, exits_with_one_line
from yoyak.parameters import read_yaml
from yoyak.records import read_json

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
    parser.add_argument("--gpus", type=int, default=1, help="0: on the CPU")
    parser.add_argument("--per-gpu", type=int, default=1, help="experiments at once on each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after so many no experiment starts")
    parser.add_argument("--only", nargs="*", help="experiments of these names alone")
    parser.add_argument("--commit", help="where the project is no git repository: the commit that it is of")
    return parser.parse_args()


@exits_with_one_line
def main() -> None:
    asked = arguments()
    listed = plan.read_list(asked.list)
    chosen = [run for run in plan.runs(listed) if not asked.only or run.experiment in asked.only]
    waiting = [run for run in chosen if not _result(asked, run).exists()]
    asked.out.mkdir(parents=True, exist_ok=True)
    print(f"{len(waiting)} of {len(chosen)} experiments to run", flush=True)
    needs = {run.name: _prepared(asked, listed, run) for run in waiting}
    _fetch_weights(asked, waiting)
    failed = _run_all(asked, {run.name: run for run in waiting}, needs)
    sys.exit(1 if failed else 0)


def _result(asked: argparse.Namespace, run: Run) -> Path:
    path: Path = asked.out / f"{run.name}.json"
    return path


def _folder(asked: argparse.Namespace, run: Run) -> Path:
    path: Path = asked.work / run.name
    return path


def _prepared(asked: argparse.Namespace, listed: plan.List, run: Run) -> frozenset[str]:
    """Its copy, whose parameters have been checked, and what it will train and write."""
    data = asked.data / run.data
    if not data.is_dir():
        raise UserError(f"{asked.list}: {run.experiment}: no folder {data}; `python experiments/fold_data.py` makes it")
    folder = _folder(asked, run)
    try:
        copies.make(folder, asked.work / "cache", data, listed.params, list(run.overrides))
    except InvalidArgumentError as error:
        raise UserError(f"{asked.list}: {run.experiment}: {error.__cause__ or error}") from None
    return plan.work(folder, run.data)


def _fetch_weights(asked: argparse.Namespace, runs: list[Run]) -> None:
    """Converted before the copies, which would all do it at once."""
    sources = {}
    for run in runs:
        params = read_yaml(_folder(asked, run) / "params.yaml")
        sources |= {
            params["models"][name]["weights"]: f"models.{name}.weights"
            for name in [*params["run"]["models"], *params["run"]["untuned"]]
        }
    for source, key in sources.items():
        # A folder is loaded from where it is, and reading it takes time.
        if not Path(source).expanduser().is_dir():
            weights.fetch(source, weights.pin(source, key))


def _run_all(asked: argparse.Namespace, runs: dict[str, Run], needs: dict[str, frozenset[str]]) -> set[str]:
    """Names of those that failed."""
    started, slots = time.monotonic(), _slots(asked)
    at_once = len(slots)
    waiting, done, failed = list(runs), set(), set()
    running: dict[Future[bool], tuple[str, str]] = {}
    with ThreadPoolExecutor(at_once) as pool:
        while True:
            if time.monotonic() - started < 60 * asked.minutes:
                ready = [name for name in waiting if plan.may_start(name, needs, done, failed)]
                for name in ready[: len(slots)]:
                    waiting.remove(name)
                    slot = slots.pop(0)
                    running[pool.submit(_run, asked, runs[name], slot, at_once)] = name, slot
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
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = seen.split(",") if seen else [str(gpu) for gpu in range(asked.gpus)]
    if asked.gpus > len(gpus):
        raise UserError(
            f"--gpus {asked.gpus}: CUDA_VISIBLE_DEVICES names {len(gpus)}; lower the one or widen the other"
        )
    return (gpus[: asked.gpus] or [""]) * asked.per_gpu


def _run(asked: argparse.Namespace, run: Run, gpu: str, at_once: int) -> bool:
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
        "overrides": list(run.overrides),
        "minutes": round(minutes, 2),
        "commit": asked.commit or machine.commit(),
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
