"""Results of runs, as `collect` wrote them, read again."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yoyak.core.errors import UserError
from yoyak.core.records import Floats, read_json
from yoyak.sweeps.collect import MBR


@dataclass(frozen=True)
class Result:
    """What an experiment with one seed on one data folder came to."""

    figures: dict[str, Any]
    """The whole content of its JSON."""

    @property
    def experiment(self) -> str:
        """Its name in the list."""
        return str(self.figures["experiment"])

    @property
    def on(self) -> str:
        """Name of the data folder."""
        return str(self.figures["on"])

    @property
    def seed(self) -> int:
        """Of training and of sampling."""
        return int(self.figures["seed"])

    @property
    def models(self) -> list[str]:
        """Names of those that were trained."""
        return list(self.figures["run"]["models"])

    @property
    def model(self) -> str:
        """The name of the only model; a `ValueError` where several were trained."""
        (name,) = self.models
        return name

    @property
    def averaged(self) -> dict[str, Any]:
        """Resolved parameters of each average of models, by name."""
        return dict(self.figures["averaged"])

    @property
    def overrides(self) -> list[str]:
        """This experiment's own, as its model has them: not those of its list, of seeds or of which models run."""
        own = self.figures["overrides"][len(self.figures["set"]) :]
        changed = [each for each in own if not each.startswith(("run.", "generation.seed"))]
        return [_without(each, [f"models.{name}." for name in self.models]) for each in changed]

    @property
    def rate(self) -> str:
        """Tokens a second of the only training; empty where no step was timed, for it was resumed at its end."""
        rate = self.figures["train"][self.model]["tokens_per_second"]
        return f"{rate:,.0f}" if rate else ""

    def rows(self, column: str) -> Floats:
        """Mean ROUGE of each dev row in percent, shape (rows,): of a model, of `MBR` or of the ensemble."""
        return np.array(self.figures["rows"][column])

    @property
    def own(self) -> Floats:
        """Mean ROUGE in percent of the only model's summaries, shape (rows,)."""
        return self.rows(self.model)

    @property
    def mbr(self) -> Floats:
        """Mean ROUGE in percent of what MBR, all models weighted alike, chooses, shape (rows,)."""
        return self.rows(MBR)


def _without(text: str, prefixes: Iterable[str]) -> str:
    return next((text.removeprefix(prefix) for prefix in prefixes if text.startswith(prefix)), text)


def read_results(folder: Path) -> list[Result]:
    """All results in a folder, in the order of experiment, data folder and seed; a `UserError` for any other JSON."""
    found = [Result(_figures(path)) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: (result.experiment, result.on, result.seed))


def _figures(path: Path) -> dict[str, Any]:
    figures = read_json(path)
    if not isinstance(figures, dict) or not {"experiment", "on", "seed", "rows"} <= figures.keys():
        raise UserError(f"{path}: not what `yoyak sweep` writes; remove it")
    return figures
