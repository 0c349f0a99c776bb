"""Which models make a submission, and which of them are tuned."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from yoyak.core import run as core_run
from yoyak.core.errors import UserError, quoted
from yoyak.core.params import PARAMS
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params, has_members
from yoyak.preflight.resolve import resolve
from yoyak.sweeps import check, sizes
from yoyak.sweeps.experiments import Run, read_list, runs
from yoyak.tuning.params import FAMILIES

LIST = Path("sweeps/final.yaml")
RECIPE = "competition"
"""The experiment of that list whose models make a submission."""
UNTUNED = "ensemble"
"""The experiment whose models do so where nothing can be tuned."""
ENSEMBLE = "ensemble"
"""The last experiment of a recipe, which has all of its models."""
DATA = "dev"
"""The data folder of a recipe."""
NONE = "none"
"""In place of names: tune nothing."""
ALONE = ("run.untuned=[]", "run.averaged=[]")
"""A model by itself has neither a baseline nor an average."""
LARGEST_TUNED = 5e9
"""Parameters; larger models, whose weights in 16 bits take half of a 24 GB card, are tuned where they are named."""


@dataclass(frozen=True)
class Recipe:
    """What is trained, and how it differs from `params.yaml`."""

    params: dict[str, Any]
    """Merged into `params.yaml`."""
    set: tuple[str, ...]
    """Overrides of all its experiments."""
    models: tuple[str, ...]
    tuned: tuple[str, ...]
    last: tuple[str, ...] = ()
    """Overrides of the experiment that has all of the models, beside these: how they are ensembled."""
    told: str = ""
    """What a user should know of the choice."""

    def experiments(self) -> dict[str, Any]:
        """The list: each model by itself, and then all together; of one model, that alone."""
        single = self.models if len(self.models) > 1 else ()
        alone = {name: _overrides([name], [name] if name in self.tuned else []) for name in single}
        return {
            "params": self.params,
            "set": [*self.set, *ALONE],
            "data": [DATA],
            "experiments": {**alone, ENSEMBLE: [*_overrides(self.models, self.tuned), *self.last]},
        }


def _overrides(models: Sequence[str], tuned: Sequence[str]) -> list[str]:
    return [f"run.models=[{','.join(models)}]", f"run.tuned=[{','.join(tuned)}]"]


def choose(models: list[str] | None, tune: list[str] | None, has_gpu: bool) -> Recipe:
    """The recipe of these entries of `params.yaml`, or of `sweeps/final.yaml` where None are named.

    `tune` names those of them that are tuned, or has `none`; None leaves the choice to the recipe. Raises a `UserError`
    for a name that is not there, and where something is to be tuned without a GPU.
    """
    recipe = _of_list(has_gpu) if models is None else _of_params(models, has_gpu)
    if tune is None:
        return recipe
    names = [name for name in tune if name != NONE]
    for name in names:
        if name not in recipe.models:
            raise UserError(f"TUNE: {quoted(name)} is not among the models, {', '.join(recipe.models)}")
    if names and not has_gpu:
        raise UserError("TUNE: tuning needs a GPU, and none is used; TUNE=none trains without it")
    # How the list ensembles is of those models that it tunes itself.
    last = recipe.last if set(names) == set(recipe.tuned) else (members(recipe.models, names),)
    return replace(recipe, tuned=tuple(name for name in recipe.models if name in names), last=last, told="")


def together(models: Sequence[str], tuned: Sequence[str]) -> list[str]:
    """Overrides of a run of all these models that chooses among them."""
    return [*_overrides(models, tuned), members(models, tuned)]


def members(models: Sequence[str], tuned: Sequence[str]) -> str:
    """Override of the ensemble's members: where all models are tuned the tuned ones alone, which scored better than
    with those that they were made of (docs/tuning.md), else all."""
    if set(tuned) < set(models):
        return "ensemble.members=null"
    return f"ensemble.members=[{','.join(map(core_run.tuned, models))}]"


def _of_list(has_gpu: bool) -> Recipe:
    listed = read_list(LIST)
    name = RECIPE if has_gpu else UNTUNED
    found = [run for run in runs(listed) if run.experiment == name]
    if not found:
        raise UserError(f"{LIST}: experiments.{name} is missing, whose run.models make the submission")
    models, tuned = (names_in(found[0], key) for key in ("run.models", "run.tuned"))
    told = f"no GPU is used, and tuning needs one: the untuned models of {LIST} are trained" if not has_gpu else ""
    chosen = ("run.models=", "run.tuned=")
    last = tuple(each for each in listed.experiments[name].set if not each.startswith(chosen))
    return Recipe(listed.params, tuple(listed.set), tuple(models), tuple(tuned), last, told)


def names_in(run: Run, key: str) -> list[str]:
    """The models that the run's last override of `key` names; none where it has none."""
    values = [each.removeprefix(f"{key}=") for each in run.overrides if each.startswith(f"{key}=")]
    names: list[str] = YAML(typ="safe").load(values[-1]) if values else []
    return names


def _of_params(models: list[str], has_gpu: bool) -> Recipe:
    params = read_params(PARAMS)
    there = [name for name in params.models if not has_members(params, name)]
    if not models:
        raise UserError(f"MODELS: no model is named; there are {', '.join(there)}")
    for name in models:
        if name not in there:
            raise UserError(f"MODELS: no model {quoted(name)!r}; there are {', '.join(there)}")
    if len(set(models)) < len(models):
        raise UserError("MODELS: a model is named twice")
    can_be = tuple(name for name in models if is_tuned_by_default(params, name))
    told = f"no GPU is used, and tuning needs one: {', '.join(can_be)} not tuned" if can_be and not has_gpu else ""
    tuned = can_be if has_gpu else ()
    return Recipe({"ensemble": {"members": None}}, (), tuple(models), tuned, (members(models, tuned),), told)


def params_with(recipe: Recipe, models: list[str]) -> Params:
    """`params.yaml` as the recipe changes it, with these models in its run; a `UserError` for what is wrong in it."""
    overrides = [*recipe.set, *_overrides(models, []), *ALONE]
    # No folder of data is looked into.
    return check.params_of(recipe.params, overrides, Path(), f"{LIST}")


def is_tuned_by_default(params: Params, name: str) -> bool:
    """Whether tuning adapts the model, and in bf16, which it was tried with, on a card of 24 GB."""
    config = resolve(params, name, pin=None)
    size = sizes.size_of(config.training.model)
    return (
        config.tuning is not None
        and config.generation.quantization is None
        and config.training.model.dtype != "fp16"
        and sizes.family_of(config.training.model.weights) in FAMILIES
        and size is not None
        and size.parameters <= LARGEST_TUNED
    )
