"""Successive halving (Jamieson and Talwalkar 2016): many candidates on a little data, ever fewer on ever more.

What grows is rows, not epochs: a shorter training ends with a learning rate that is high yet, or has another schedule,
and ranks rates and epochs by that. On part of train each candidate has its whole schedule.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from yoyak.core.records import Floats
from yoyak.evaluation import significance
from yoyak.sweeps import data_folder

PARTS = 5
"""Of train; each holds a fifth out."""
FINALISTS = 4
SAMPLES, SEED = 5000, 0
"""Of the bootstrap."""


@dataclass(frozen=True)
class Level:
    """How much a trial sees."""

    folds: int
    """Trainings, each judged on a part of its own."""
    share: float
    """Of the rows that its fold leaves for training."""

    @property
    def data(self) -> list[str]:
        """Names of its data folders."""
        return [data_folder.share_name(f"f{part}", self.share) for part in range(self.folds)]

    @property
    def told(self) -> str:
        rows = f"{round(100 * self.share)} % of the rows of " if self.share < 1 else ""
        return f"{rows}{self.folds} of {PARTS} folds"


LEVELS = [*(Level(1, share) for share in (0.125, 0.25, 0.5)), *(Level(folds, 1) for folds in range(1, PARTS + 1))]
"""From the cheapest to the dearest."""


def rounds(candidates: int) -> int:
    """How often they are halved until no more than `FINALISTS` are left."""
    return max(0, math.ceil(math.log2(candidates / FINALISTS)))


def kept(candidates: int, rounds_left: int) -> int:
    """How many of so many go on after this round; the last leaves the finalists."""
    return FINALISTS if rounds_left == 1 else math.ceil(candidates / 2)


def level(seconds: list[float | None], budget: float, above: Level | None) -> Level | None:
    """The dearest level that `budget` seconds have time for, of those beyond `above`; None where none is.

    `seconds` has what each of `LEVELS` takes for all candidates of the round; None is not known yet, and then the
    cheapest is taken, to find out.
    """
    first = LEVELS.index(above) + 1 if above else 0
    if first < len(LEVELS) and seconds[first] is None:
        return LEVELS[first]
    fitting = [LEVELS[at] for at in range(first, len(LEVELS)) if (seconds[at] or math.inf) <= budget]
    return fitting[-1] if fitting else None


def ranked(scores: Mapping[str, Floats]) -> list[str]:
    """Names from the best mean to the worst; of equals the first named is first."""
    return sorted(scores, key=lambda name: -float(scores[name].mean()))


@dataclass(frozen=True)
class Lead:
    """Of the best over the next, on the same held-out rows."""

    best: str
    next: str
    mean: float
    low: float
    high: float

    @property
    def told(self) -> str:
        sure = "" if self.low > 0 else ": may be chance"
        return f"{self.best} leads {self.next} by {self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]{sure}"


def lead(scores: Mapping[str, Floats]) -> Lead | None:
    """With a paired 95 % bootstrap interval; None of fewer than two."""
    order = ranked(scores)
    if len(order) < 2:
        return None
    difference = scores[order[0]] - scores[order[1]]
    means = significance.resampled_means(difference[:, None], SAMPLES, SEED)
    low, high = np.asarray(significance.interval(means))[0]
    return Lead(order[0], order[1], float(difference.mean()), float(low), float(high))
