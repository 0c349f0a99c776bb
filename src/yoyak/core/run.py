"""What a run consists of: the section `run` of `params.yaml`."""

import sys
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from yoyak.core.errors import UserError
from yoyak.core.params import Section


def _no_name_twice(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a model is named twice")
    return names


Name = Annotated[str, Field(max_length=100, pattern=r"^[a-z0-9_]+$")]
"""Of an entry of `models`: it is part of the names of files."""
Names = Annotated[list[str], AfterValidator(_no_name_twice)]
"""Models, each named once."""
TUNED = "_tuned"
"""End of a tuned model's name."""


def tuned(model: str) -> str:
    """Name of what tuning makes of the model."""
    return f"{model}{TUNED}"


def entry_of(name: str) -> str:
    """The entry of `models` that decides this model: its own, or that of the one it was tuned from."""
    return name.removesuffix(TUNED)


def model_of_the_stage() -> str:
    """The model that a stage's script is called with."""
    if len(sys.argv) < 2:
        raise UserError(f"{sys.argv[0]}: which model? `dvc repro` calls it with a name, as train@<model>")
    return sys.argv[1]


class RunParams(Section):
    """What a run consists of."""

    models: Names = Field(min_length=1)
    """Entries of `models` with weights, to train, score and ensemble."""
    tuned: Names
    """Models of `run.models` that go on to learn from the scores of their own summaries; what comes of it is scored
    and ensembled, too, as `<model>_tuned`. Adapters alone, and on a GPU: it takes several times a training."""
    untuned: Names
    """Models that are scored before training, too, as `baseline/untuned_<model>`: one more inference of dev each."""
    averaged: Names
    """Entries of `models` with members, to score and ensemble, too; their members must run, too, in `run.models` or, as
    `<model>_tuned`, by `run.tuned`."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of training; sampling has `generation.seed`."""

    @field_validator("models", "tuned", "untuned", "averaged", mode="before")
    @classmethod
    def _a_list(cls, names: object, field: ValidationInfo) -> object:
        """DVC makes a stage of each name, and says of anything but a list that it is not iterable."""
        if names is None or isinstance(names, str):
            one = f"[{names or ('NAME' if field.field_name == 'models' else '')}]"
            raise ValueError(f"a list is expected: {one}; in a command -S 'run.{field.field_name}={one}'")
        return names

    @property
    def trained(self) -> list[str]:
        """Names of all that have weights of their own."""
        return [*self.models, *map(tuned, self.tuned)]

    @property
    def scored(self) -> list[str]:
        """Names of all that the ensemble may choose from."""
        return [*self.trained, *self.averaged]
