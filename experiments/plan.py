"""A list of experiments, and which of them need the same training or the same summaries."""

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from yoyak.core.errors import UserError
from yoyak.core.params import Section, check, read_yaml
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import resolve, resolve_average

NAME = re.compile(r"[\w-]+")
"""Of an experiment, or of a folder of data."""


class Experiment(Section):
    """What of `params.yaml` is changed, and how often it runs."""

    set: list[str] = Field(default=[])
    """Overrides as `dvc exp run -S` takes them: `lora.r=32`."""
    seeds: list[int] | None = None
    """Of training and of sampling."""
    data: list[str] | None = None
    """Folders of `--data`."""


class List(Section):
    """The content of a list of experiments. What an experiment does not say, it has from here."""

    params: dict[str, Any] = Field(default={})
    """Merged into `params.yaml`: further entries of `models`, say."""
    set: list[str] = Field(default=[])
    """Overrides of all experiments, before their own."""
    seeds: list[int] = Field(default=[42], min_length=1)
    data: list[str] = Field(min_length=1)
    experiments: dict[str, Experiment] = Field(min_length=1)

    @field_validator("experiments", mode="before")
    @classmethod
    def _overrides_alone(cls, experiments: Any) -> Any:
        """`name: [lora.r=32]` says as much as `name: {set: [lora.r=32]}`."""
        if not isinstance(experiments, dict):
            return experiments
        return {name: {"set": each} if isinstance(each, list) else each for name, each in experiments.items()}


@dataclass(frozen=True)
class Run:
    """An experiment with one seed on one data folder."""

    experiment: str
    data: str
    seed: int
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.experiment}.{self.data}.s{self.seed}"


def read_list(path: Path) -> List:
    listed = check(List, read_yaml(path), f"{path}:")
    folders = [*listed.data, *(folder for each in listed.experiments.values() for folder in each.data or [])]
    for name in [*listed.experiments, *folders]:
        if not NAME.fullmatch(name):
            raise UserError(f"{path}: {name!r} is to be part of a file's name: letters, digits, _ and - alone")
    return listed


def runs(listed: List) -> list[Run]:
    """All of them, in the order of the list."""
    return [
        Run(
            name,
            data,
            seed,
            (*listed.set, *experiment.set, f"run.seed={seed}", f"generation.seed={seed}"),
        )
        for name, experiment in listed.experiments.items()
        for data, seed in itertools.product(experiment.data or listed.data, experiment.seeds or listed.seeds)
    ]


def work(params: Params, data: str) -> frozenset[str]:
    """What a project with these parameters trains and writes, each as a hash of all that decides it.

    Two runs with one of these in common must not run at once: the second takes it from DVC's cache.
    """
    given = f"{data} {params.prompts.model_dump_json()} {params.data.model_dump_json()}"
    jobs = {name: resolve(params, name, pin=None) for name in params.run.models}
    trained = {name: f"{name} {job.training.model_dump_json()}" for name, job in jobs.items()}
    found = set()
    for name, job in jobs.items():
        found.add(_hash(f"{given} {trained[name]}"))
        found.add(_hash(f"{given} {trained[name]} {job.generation.model_dump_json()}"))
    for name in params.run.averaged:
        average = resolve_average(params, name, pins={})
        training = " ".join(trained[member] for member in average.members)
        found.add(_hash(f"{given} {training} {average.model_dump_json()}"))
    for name in params.run.untuned:
        found.add(_hash(f"{given} untuned {name} {resolve(params, name, pin=None).generation.model_dump_json()}"))
    return frozenset(found)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def may_start(name: str, needs: dict[str, frozenset[str]], done: set[str], failed: set[str]) -> bool:
    """Whether all that `name` needs has been done, or is its own to do: the first run that needs it does it."""
    there = frozenset().union(*(needs[other] for other in done))
    return all(
        name == next(other for other in needs if work in needs[other] and other not in failed)
        for work in needs[name] - there
    )
