"""Checks before any work: every section of `params.yaml`, every entry of `models`, files and room."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yoyak.core.errors import UserError, quoted
from yoyak.core.limits import check_disk
from yoyak.core.params import check, read_yaml
from yoyak.core.repository import cache_folder
from yoyak.data.dialogues import DataParams
from yoyak.modeling import weights
from yoyak.preflight.check_entries import check_entries
from yoyak.preflight.params import Params
from yoyak.submission.file import read_sample


def read_params(path: Path) -> Params:
    """`params.yaml`, each section checked, and each entry of `models` too, whether the run has it or not."""
    params = check(Params, read_yaml(path), f"{path}:")
    check_entries(params, path)
    for name, entry in params.models.items():
        if entry.get("weights") == "scratch":
            _check_architecture(entry["architecture"], f"params.yaml: models.{name}.architecture")
    return params


def _check_architecture(architecture: dict[str, Any], where: str) -> None:
    if not _mark_of(architecture).exists():
        # Imported here: to load PyTorch and transformers takes longer than all other checks.
        from yoyak.training.from_scratch import check_architecture

        check_architecture(architecture, where)


def remember_architectures(params: Params) -> None:
    """Mark all that `read_params` has checked, so that it need not build them again."""
    for entry in params.models.values():
        if entry.get("weights") == "scratch":
            mark = _mark_of(entry["architecture"])
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def _mark_of(architecture: dict[str, Any]) -> Path:
    """The file that is there once this architecture was checked by these versions."""
    versions = {package: version(package) for package in ("transformers", "torch", "yoyak")}
    content = json.dumps([architecture, versions], sort_keys=True, default=str)
    return cache_folder() / "architectures" / hashlib.sha256(content.encode()).hexdigest()


def check_room(params: Params, pins: Mapping[str, str | None]) -> None:
    """Stop where the disk has no room for the run, with the weights that later stages download or convert."""
    sources = {params.models[name]["weights"]: pin for name, pin in pins.items()}
    weights_gb = sum(weights.to_write_gb(source, pin) for source, pin in sources.items())
    check_disk(params.limits, 1 + weights_gb, "this run, with weights that are still to be downloaded or converted,")


def check_wandb() -> None:
    """Stop where wandb is missing, or nobody is logged in; a training must not be the first to find out."""
    where = "params.yaml: tracking.wandb"
    if find_spec("wandb") is None:
        raise UserError(f"{where}: the package wandb is missing; `pip install wandb`, or set it false")
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    import wandb

    try:
        wandb.Api()
    except wandb.errors.UsageError:
        raise UserError(
            f"{where}: nobody is logged in; `wandb login`, or WANDB_MODE=offline, or set it false"
        ) from None


def check_submission(data: DataParams, test: Collection[str]) -> None:
    """`test` has the names of the test rows."""
    path = data.dir / data.sample_submission
    for row, fname in enumerate(read_sample(path)["fname"], start=1):
        if fname not in test:
            raise UserError(f"{path}, row {row}, column 'fname': {quoted(fname)} is not in {data.dir / data.test}")
