"""What an experiment came to, as `collect.py` wrote it, read again."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from collect import MBR
from copies import ROOT

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml
from yoyak.core.records import Floats, read_json
from yoyak.evaluation.leaderboard import what_was_counted


@dataclass(frozen=True)
class Result:
    """One experiment with one seed on one data folder."""

    figures: dict[str, Any]
    """All that its JSON has."""

    @property
    def experiment(self) -> str:
        return str(self.figures["experiment"])

    @property
    def on(self) -> str:
        """The data folder."""
        return str(self.figures["on"])

    @property
    def seed(self) -> int:
        return int(self.figures["seed"])

    @property
    def models(self) -> list[str]:
        """Those that were trained."""
        return list(self.figures["run"]["models"])

    @property
    def model(self) -> str:
        """Where one was trained alone."""
        (name,) = self.models
        return name

    @property
    def averaged(self) -> dict[str, Any]:
        return dict(self.figures["averaged"])

    @property
    def overrides(self) -> list[str]:
        """This experiment's own, as its model has them: not those of its list, of seeds or of which models run."""
        own = self.figures["overrides"][len(self.figures["set"]) :]
        told = [each for each in own if not each.startswith(("run.", "generation.seed"))]
        return [_without(each, [f"models.{name}." for name in self.models]) for each in told]

    @property
    def rate(self) -> str:
        """Tokens a second of the only training; nothing where no step was timed, for it was resumed at its end."""
        rate = self.figures["train"][self.model]["tokens_per_second"]
        return f"{rate:,.0f}" if rate else ""

    def rows(self, column: str) -> Floats:
        """Mean ROUGE of each row, in percent: of a model, or of `MBR` over all candidates."""
        return np.array(self.figures["rows"][column])

    @property
    def own(self) -> Floats:
        """Of the only model's summaries, row by row."""
        return self.rows(self.model)

    @property
    def mbr(self) -> Floats:
        """Of what MBR, all models alike, chooses from their candidates, row by row."""
        return self.rows(MBR)


def _without(text: str, prefixes: Iterable[str]) -> str:
    return next((text.removeprefix(prefix) for prefix in prefixes if text.startswith(prefix)), text)


def read_results(folder: Path) -> list[Result]:
    """By experiment, data and seed."""
    found = [Result(_figures(path)) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: (result.experiment, result.on, result.seed))


def _figures(path: Path) -> dict[str, Any]:
    figures = read_json(path)
    if not isinstance(figures, dict) or not {"experiment", "on", "seed", "rows"} <= figures.keys():
        raise UserError(f"{path}: not what run.py writes; remove it")
    return figures


def entry_of(result: Result, name: str) -> str:
    """Of the project's own `params.yaml`: the one that has this model's weights."""
    weights = result.figures["models"][name]["generation"]["model"]["weights"]
    return next((entry for entry, there in _weights().items() if there == weights), Path(weights).name)


@cache
def _weights() -> dict[str, str]:
    entries = read_yaml(ROOT / "params.yaml")["models"]
    return {name: entry["weights"] for name, entry in entries.items() if "weights" in entry}


def rows_of(results: list[Result]) -> int:
    """Of all data folders."""
    return sum({result.on: len(result.mbr) for result in results}.values())


def ran_on(results: list[Result]) -> str:
    """Device, software and commit."""
    told = set()
    for result in results:
        ran, commit = result.figures["train"][result.models[0]]["ran"], result.figures["commit"][:7]
        told.add(f"{ran['device']}, PyTorch {ran['torch']}, transformers {ran['transformers']}, commit {commit}")
    return "; ".join(sorted(told))


def counted(results: list[Result]) -> str:
    """What scores were counted by."""
    return "; ".join(sorted({what_was_counted(result.figures["scores"]["scoring"]) for result in results}))
