"""A list of experiments as its YAML file has it, and the runs that it asks for."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from yoyak.core.errors import UserError
from yoyak.core.params import Section, check, read_yaml
from yoyak.sweeps.ranges import Range

NAME = re.compile(r"[\w-]+")
"""Of an experiment, or of a data folder."""


class Experiment(Section):
    """What of `params.yaml` is changed, and how often it runs."""

    set: list[str] = Field(default=[])
    """Overrides as `dvc exp run -S` takes them: `lora.r=32`."""
    seeds: list[int] | None = None
    """Of training and of sampling."""
    data: list[str] | None = None
    """Folders of `--data`."""


class ExperimentList(Section):
    """The content of a list of experiments. What an experiment does not say, it has from here."""

    params: dict[str, Any] = Field(default={})
    """Merged into `params.yaml`: further entries of `models`, say."""
    set: list[str] = Field(default=[])
    """Overrides of all experiments, before their own."""
    seeds: list[int] = Field(default=[42], min_length=1)
    data: list[str] = Field(min_length=1)
    experiments: dict[str, Experiment] = Field(default={})
    search: dict[str, Range] = Field(default={})
    """In place of experiments: from what each parameter is drawn, a parameter as `-S` has it."""
    rungs: list[float] = Field(default=[0.25, 0.5, 1.0], min_length=1)
    """Shares of train's rows that a trial of a search sees, one after the other, while it is among the better half."""

    @field_validator("experiments", mode="before")
    @classmethod
    def _overrides_alone(cls, experiments: Any) -> Any:
        """`name: [lora.r=32]` says as much as `name: {set: [lora.r=32]}`."""
        if not isinstance(experiments, dict):
            return experiments
        return {name: {"set": each} if isinstance(each, list) else each for name, each in experiments.items()}

    @model_validator(mode="after")
    def _one_of_both(self) -> "ExperimentList":
        if bool(self.experiments) == bool(self.search):
            raise ValueError("a list has either experiments or search")
        if self.experiments and "rungs" in self.model_fields_set:
            raise ValueError("rungs: only a search has them")
        if self.search and (len(self.data) != 1 or len(self.seeds) != 1):
            raise ValueError("a search has one folder in data, and one of seeds")
        percent = [round(100 * share) for share in self.rungs]
        if sorted({*percent}) != percent or percent[0] < 1 or self.rungs[-1] != 1:
            raise ValueError("rungs: shares that grow, each at least 0.01 above the last, and end with 1 are expected")
        return self


@dataclass(frozen=True)
class Run:
    """An experiment with one seed on one data folder."""

    experiment: str
    data: str
    """Name of the data folder."""
    seed: int
    overrides: tuple[str, ...]
    """Of `params.yaml`: the list's, the experiment's and the seed's, in the order in which they are applied."""

    @property
    def name(self) -> str:
        """Unique in its list, and fit for a file's name."""
        return f"{self.experiment}.{self.data}.s{self.seed}"


def read_list(path: Path) -> ExperimentList:
    """The list in a YAML file; a `UserError` names a key that is wrong, or a name that no file can have."""
    listed = check(ExperimentList, read_yaml(path), f"{path}:")
    folders = [*listed.data, *(folder for each in listed.experiments.values() for folder in each.data or [])]
    for name in [*listed.experiments, *folders]:
        if not NAME.fullmatch(name):
            raise UserError(f"{path}: {name!r} is to be part of a file's name: letters, digits, _ and - alone")
    return listed


def runs(listed: ExperimentList) -> list[Run]:
    """All runs, in the order of the list."""
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
