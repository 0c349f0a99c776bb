"""What a search with a deadline chooses among: entries of `models`, each with each of a few settings."""

import copy
import itertools
from pathlib import Path
from typing import Any

from dvc.utils.collections import merge_dicts
from pydantic import Field

from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS, Section, check, read_yaml
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import resolve
from yoyak.training.params import TrainingConfig

SEARCH = Path("sweeps/search.yaml")
TIMES = "learning_rate_times"
OF_ADAPTERS = ("lora", "quantization")


class SearchList(Section):
    """The content of `sweeps/search.yaml`."""

    models: list[str] = Field(min_length=1)
    """Entries of `sweeps/final.yaml` that are searched where no others are named."""
    settings: dict[str, dict[str, Any]] = Field(min_length=1)
    """What differs from a model's entry, by name."""


def read_search() -> SearchList:
    return check(SearchList, read_yaml(SEARCH), f"{SEARCH}:")


def entries(params: Params, models: list[str], settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries `<model>_<setting>` of each model of `params` with each setting that changes its training.

    All models with the first setting come first. Raises a `UserError` for a model that is no entry, for a setting that
    no entry can have, and where nothing is left.
    """
    found: dict[str, dict[str, Any]] = {}
    trained: list[tuple[str, TrainingConfig]] = []
    for (setting, changes), model in itertools.product(settings.items(), models):
        if model not in params.models:
            raise UserError(f"{SEARCH}: models: no model {model!r}; {PARAMS} and sweeps/final.yaml have no such entry")
        name = f"{model}_{setting}"
        entry = _changed(params, model, changes)
        if entry is None or name in params.models:
            continue
        config = resolve(params.model_copy(update={"models": {name: entry}}), name, pin=None).training
        if (model, config) not in trained:
            trained.append((model, config))
            found[name] = entry
    if not found:
        raise UserError(f"{SEARCH}: settings: none is for {', '.join(models)}; `as_it_is: {{}}` is for all")
    return found


def _changed(params: Params, model: str, changes: dict[str, Any]) -> dict[str, Any] | None:
    """The entry with the changes; None where it has no such thing to change."""
    entry = copy.deepcopy(params.models[model])
    if entry["method"] == "full" and any(key in changes for key in OF_ADAPTERS):
        return None
    more = copy.deepcopy(changes)
    factor = more.pop(TIMES, 1)
    if not isinstance(factor, int | float) or factor <= 0:
        raise UserError(f"{SEARCH}: {TIMES}: {factor!r}: a number above 0 is expected")
    if factor != 1:
        rate = resolve(params, model, pin=None).training.training.learning_rate
        merge_dicts(more, {"training": {"learning_rate": rate * factor}})
    merge_dicts(entry, more)
    return entry
