"""What is checked of a run before any starts: its parameters, its data, and whether it has been run already."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.exceptions import InvalidArgumentError

from yoyak.core.errors import UserError
from yoyak.core.files import sha256
from yoyak.core.records import read_json
from yoyak.modeling import weights
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params
from yoyak.sweeps import copies, schedule
from yoyak.sweeps.experiments import ExperimentList, Run


@dataclass(frozen=True)
class CheckedRun:
    """What a run is made of; its parameters are valid."""

    needs: frozenset[str]
    """What it trains and writes: see `schedule.work`."""
    weights: dict[str, str]
    """Sources of base weights, each with its key in `params.yaml`."""
    made_of: dict[str, Any]
    """Keys of its JSON in which a result that is there must agree with today's list."""


def check_run(listed: ExperimentList, run: Run, data: Path, where: str) -> CheckedRun:
    """Check a run whose data folder is `data`; `where`, the list and the experiment, begins a `UserError`."""
    if not data.is_dir():
        raise UserError(f"{where}: no folder {data}; `python -m yoyak.sweeps folds` makes it")
    params = params_of(listed.params, run.overrides, data, where)
    needs = schedule.work(params, run.data)
    made_of = {
        "needs": sorted(needs),
        "params": listed.params,
        "set": listed.set,
        "overrides": run.overrides,
        "rows_sha256": {path.name: sha256(path) for path in sorted(data.glob("*.csv"))},
    }
    # As it will be read: JSON has no tuples.
    return CheckedRun(needs, _sources(params, where), json.loads(json.dumps(made_of)))


def params_of(changes: dict[str, Any], overrides: Sequence[str], data: Path, where: str) -> Params:
    """All of `params.yaml` as `copies.write_params` writes it; a `UserError` that `where` begins for what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        try:
            copies.write_params(path, data, changes, list(overrides))
        except (InvalidArgumentError, ValueError) as error:
            raise UserError(f"{where}: {error.__cause__ or error}") from None
        try:
            return read_params(path)
        except UserError as error:
            raise UserError(f"{where}: {str(error).replace(folder + '/', '')}") from None


def _sources(params: Params, where: str) -> dict[str, str]:
    sources = {
        params.models[name]["weights"]: f"{where}: models.{name}.weights"
        for name in [*params.run.models, *params.run.untuned]
    }
    for source, key in sources.items():
        if source.startswith(("./", "../")):
            raise UserError(f"{key}: each experiment runs in a folder of its own; write {Path(source).resolve()}")
    return sources


def digest(content: object) -> str:
    """Of what JSON can say, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def has_run(result: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether the JSON `result` is there; a `UserError` where it was made of other parameters or rows."""
    if not result.exists():
        return False
    found = read_json(result)
    for key, value in made_of.items():
        if not isinstance(found, dict) or found.get(key) != value:
            raise UserError(
                f"{result}: was made with other parameters or data ({key}); remove it, or choose another --out"
            )
    return True


def fetch_weights(sources: Mapping[str, str]) -> None:
    """Download and convert base weights before the copies run, which would all do it at once.

    `sources` has each source's key in `params.yaml`, for error messages.
    """
    for source, key in sources.items():
        # A folder is loaded from where it is, and reading it takes time; what is from scratch is loaded from nowhere.
        local = source.startswith(("/", "~")) and Path(source).expanduser().is_dir()
        if not local and source != "scratch":
            weights.fetch(source, weights.pin(source, key))
