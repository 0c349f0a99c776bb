"""When a run may start: what two have in common is done once."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

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


Outcome = TypeVar("Outcome")


def run_all(
    needs: Mapping[str, frozenset[str]],
    start: Callable[[str], Future[Outcome]],
    ended_well: Callable[[str, Outcome], bool | None],
) -> set[str]:
    """Run all, and print how many ended well; the names of those that failed.

    `needs` has the `work` of each run, in the order of the list. `start` is given a run's name as soon as what it has
    in common with others is done, and finds it a place: on this machine, or on one of Ray's. `ended_well` is told what
    came of it; it says None where the run did not begin, which leaves it for later.
    """
    waiting = list(needs)
    done: set[str] = set()
    failed: set[str] = set()
    running: dict[Future[Outcome], str] = {}
    late: list[str] = []
    while True:
        for name in [name for name in waiting if may_start(name, needs, done, failed)]:
            waiting.remove(name)
            running[start(name)] = name
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            name = running.pop(future)
            well = ended_well(name, future.result())
            (late.append if well is None else done.add if well else failed.add)(name)
    print(f"{len(done)} done, {len(failed)} failed, {len(waiting) + len(late)} left for later", flush=True)
    return failed
