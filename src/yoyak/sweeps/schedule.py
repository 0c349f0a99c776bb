"""When a run may start: as many at once as there are slots, and what two have in common is done once."""

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from yoyak.core.run import tuned
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import resolve, resolve_average


def work(params: Params, data: str) -> frozenset[str]:
    """What a project with these parameters trains and writes, each as a hash of all that decides it.

    `data` is the name of the data folder. Two runs with one of these hashes in common must not run at once: the second
    takes it from DVC's cache.
    """
    given = f"{data} {params.prompts.model_dump_json()} {params.data.model_dump_json()}"
    configs = {name: resolve(params, name, pin=None) for name in params.run.models}
    trained = {name: f"{name} {config.training.model_dump_json()}" for name, config in configs.items()}
    found = set()
    for name, config in configs.items():
        found.add(_hash(f"{given} {trained[name]}"))
        found.add(_hash(f"{given} {trained[name]} {config.generation.model_dump_json()}"))
    for name in params.run.tuned:
        config = configs[name]
        assert config.tuning is not None, "the preflight refuses others"
        learned = trained[tuned(name)] = f"{trained[name]} {config.tuning.model_dump_json()}"
        found.add(_hash(f"{given} {learned}"))
        found.add(_hash(f"{given} {learned} {config.generation.model_dump_json()}"))
    for name in params.run.averaged:
        average = resolve_average(params, name, pins={})
        training = " ".join(trained[member] for member in average.members)
        found.add(_hash(f"{given} {training} {average.model_dump_json()}"))
    for name in params.run.untuned:
        found.add(_hash(f"{given} untuned {name} {resolve(params, name, pin=None).generation.model_dump_json()}"))
    return frozenset(found)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def may_start(name: str, needs: Mapping[str, frozenset[str]], done: set[str], failed: set[str]) -> bool:
    """Whether all that `name` needs has been done, or is its own to do: the first run that needs it does it.

    `needs` has the `work` of each run, in the order of the list; `done` and `failed` are names of runs.
    """
    there = {work for other in done for work in needs[other]}
    return all(
        name == next(other for other in needs if work in needs[other] and other not in failed)
        for work in needs[name] - there
    )


def run_all(
    needs: Mapping[str, frozenset[str]], slots: list[str], run: Callable[[str, str], bool], minutes: float
) -> set[str]:
    """Run all, and print how many ended well; the names of those that failed.

    `needs` has the `work` of each run, in the order of the list. `run` takes a run's name and its slot, and returns
    whether it ended well. A slot has one run at a time. After `minutes` no further run starts.
    """
    started = time.monotonic()
    waiting, free = list(needs), list(slots)
    done: set[str] = set()
    failed: set[str] = set()
    running: dict[Future[bool], tuple[str, str]] = {}
    with ThreadPoolExecutor(len(slots)) as pool:
        while True:
            if time.monotonic() - started < 60 * minutes:
                ready = [name for name in waiting if may_start(name, needs, done, failed)]
                for name in ready[: len(free)]:
                    waiting.remove(name)
                    slot = free.pop(0)
                    running[pool.submit(run, name, slot)] = name, slot
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, slot = running.pop(future)
                free.append(slot)
                (done if future.result() else failed).add(name)
    print(f"{len(done)} done, {len(failed)} failed, {len(waiting)} left for later", flush=True)
    return failed
