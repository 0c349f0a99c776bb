"""The base weights of an entry of `models`, for whoever opens its adapters without this library."""

from pathlib import Path

from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS
from yoyak.modeling import weights
from yoyak.preflight.check import read_params
from yoyak.preflight.params import has_members


def folder_of(model: str) -> Path:
    """Where they lie, downloaded or converted if need be."""
    params = read_params(PARAMS)
    if model not in params.models:
        raise UserError(f"{PARAMS}: models has no {model!r}; it has {', '.join(params.models)}")
    if has_members(params, model):
        raise UserError(f"models.{model} has no weights of its own; name one of its members")
    source = params.models[model]["weights"]
    if source == "scratch":
        raise UserError(f"models.{model} is trained from scratch: it has no base weights, and models/{model} is whole")
    return weights.fetch(source, weights.pin(source, f"models.{model}.weights"))
