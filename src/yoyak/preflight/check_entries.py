"""Names, entries of `models`, and what the run asks of them: what is checked without data, weights or PyTorch."""

import re
from pathlib import Path

from yoyak.core.errors import UserError, quoted
from yoyak.core.run import entry_of
from yoyak.ensembling.weighting import check_members
from yoyak.preflight.params import Params, check_run, has_members
from yoyak.preflight.resolve import refuse_outputs, resolve, resolve_average

NAME = re.compile(r"[a-z0-9_]+")
LONGEST_NAME = 100
RESERVED = re.compile(r"baseline|ensemble|untuned_.*|.*_tuned")
"""Names under which a run writes other things than models."""


def check_entries(params: Params, path: Path) -> None:
    """Stop at what is wrong in names, in an entry of `models` or in what the run asks of it; `path` is the file's.

    Architectures from scratch are not built, which takes longer than all else.
    """
    for name in params.models:
        if len(name) > LONGEST_NAME:
            raise UserError(f"{path}: models.{quoted(name)}: a name has at most {LONGEST_NAME} letters; shorten it")
        if RESERVED.fullmatch(name):
            raise UserError(f"{path}: models.{name}: this name is taken by what a run writes; choose another")
        if not NAME.fullmatch(name):
            raise UserError(
                f"{path}: models.{quoted(name)}: a name has small letters, digits and _ alone (a dot breaks -S)"
            )
    refuse_outputs(str(params.data.dir), f"{path}: data.dir")
    check_run(params)
    check_members(params.ensemble, params.run.scored)
    for name in params.models:
        if has_members(params, name):
            resolve_average(params, name, pins={})
        else:
            resolve(params, name, pin=None)
    for name in params.run.untuned:
        if params.models[name]["weights"] == "scratch":
            raise UserError(f"params.yaml: run.untuned: {name} is a model from scratch, nothing untuned; take it out")
    for name in params.run.tuned:
        _check_tuned(params, name)
    for name in params.run.averaged:
        _check_members_run(params, name)


def _check_tuned(params: Params, name: str) -> None:
    where = f"params.yaml: run.tuned: {name}"
    if name not in params.run.models:
        raise UserError(f"{where} must be trained first; put it into run.models, too")
    config = resolve(params, name, pin=None)
    if config.tuning is None:
        raise UserError(f"{where} has method: full, and adapters alone are tuned; take it out")
    if config.generation.quantization:
        raise UserError(f"{where} is tuned over weights in 16 bits; set models.{name}.generation.load_in_4bit: false")


def _check_members_run(params: Params, name: str) -> None:
    missing = [member for member in params.models[name]["members"] if member not in params.run.trained]
    of_list = {
        "run.models": [member for member in missing if member in params.models],
        "run.tuned": [entry_of(member) for member in missing if member not in params.models],
    }
    if missing:
        what = " and ".join(f"{', '.join(names)} into {key}" for key, names in of_list.items() if names)
        raise UserError(f"params.yaml: run.averaged: {name} is made of models that must run, too; put {what}")
