"""What a search came to: a table, what chance alone would give, and a picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.console import Console
from rich.table import Table

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from yoyak.core.files import whole
from yoyak.core.records import Floats, read_json
from yoyak.evaluation import significance
from yoyak.reporting.chance import luck
from yoyak.sweeps import halving
from yoyak.sweeps.collect import MBR
from yoyak.sweeps.experiments import ExperimentList
from yoyak.sweeps.halving import SAMPLES, SEED
from yoyak.sweeps.ranges import Range, Value

LOG_WIDTH = 200
"""Columns of the table where no terminal folds it."""
ACROSS = 3
"""Most parameters side by side."""
LONGEST = 12
"""Letters of a choice that are drawn."""
POINTS = 4
"""Between two rungs, so that their intervals are not drawn over each other: 1/72 inch."""
SPREAD = 36
"""Over which trials with the same choice, or the same integer, are spread: 1/72 inch."""


@dataclass(frozen=True)
class Climb:
    """What a trial has come to."""

    name: str
    values: Mapping[str, Value]
    """Its parameters."""
    rungs: Sequence[Floats]
    """Mean ROUGE of each dev row in percent, shape (rows,): on each rung that it has ended."""
    state: str
    """What is to be said of one that has not come to its own end; empty for others."""


def scores(result: Path) -> Floats:
    """Mean ROUGE of each dev row in percent, shape (rows,): of what MBR chooses, as the JSON of a run has it."""
    return np.array(read_json(result)["rows"][MBR])


def percent(share: float) -> str:
    return f"{round(100 * share)} %"


def told(rows: Floats, sign: str = "") -> str:
    """The mean over rows, with a 95 % bootstrap interval."""
    low, high = interval(rows)
    return f"{rows.mean():{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"


def interval(rows: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over rows."""
    low, high = significance.interval(significance.resampled_means(rows[:, None], SAMPLES, SEED))[0]
    return float(low), float(high)


def tell(climbs: Sequence[Climb], listed: ExperimentList, scoring: str, picture: Path) -> None:
    """Print the table of all trials and what chance alone would give, and draw `picture` once a rung has ended."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    order = ranked(climbs)
    console.print(table(order, listed))
    if not order or not order[0].rungs:
        return
    console.print(f"ROUGE: mean of ROUGE-1/2/L F1 of what MBR chooses, percent, 95 % bootstrap intervals; {scoring}")
    console.print("to the first: at the rung that the trial has come to, on the same rows of dev")
    for line in of_chance(climbs, listed.rungs):
        console.print(line)
    draw(order, listed, scoring, picture)
    console.print(f"drawn: {picture}")


def ranked(climbs: Sequence[Climb]) -> list[Climb]:
    """The best first: of those that have seen most, the one with the highest mean."""
    return sorted(climbs, key=lambda climb: (-len(climb.rungs), -(climb.rungs[-1].mean() if climb.rungs else 0)))


def table(order: Sequence[Climb], listed: ExperimentList) -> Table:
    """A line a trial, in that order. Its difference from the first is of the rung that it has come to, and of the same
    rows."""
    built = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("trial", "of train", "ROUGE", "to the first"):
        built.add_column(column, justify="left" if column == "trial" else "right", no_wrap=True)
    built.add_column("parameters")
    for climb in order:
        seen, told_rows, behind = "", "", ""
        if climb.rungs:
            level = len(climb.rungs) - 1
            seen, told_rows = percent(listed.rungs[level]), told(climb.rungs[level])
            if climb is not order[0]:
                behind = told(climb.rungs[level] - order[0].rungs[level], "+")
        built.add_row(
            climb.name, ", ".join(filter(None, [seen, climb.state])), told_rows, behind, of_trial(climb.values)
        )
    return built


def of_trial(values: Mapping[str, Value]) -> str:
    """Parameters in short."""
    names = short_names(list(values))
    return ", ".join(f"{names[key]} {_shown(value)}" for key, value in values.items())


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Of each key as many of its last parts as tell it from the others."""
    found = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        found[key] = next(
            (end for end in ends if not any(f".{other}".endswith(f".{end}") for other in keys if other != key)), key
        )
    return found


def _shown(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Chance:
    """Of the trials that have ended one rung."""

    count: int
    mean: float
    best: str
    above: float
    """What the best is better than the mean by, in points of ROUGE."""
    luck: float
    """What it would seem better by, were all equally good."""


def chance(climbs: Sequence[Climb], level: int) -> Chance | None:
    """None of fewer than two."""
    there = {climb.name: climb.rungs[level] for climb in climbs if len(climb.rungs) > level}
    if len(there) < 2:
        return None
    mean = float(np.mean(list(there.values())))
    best = halving.ranked(there)[0]
    return Chance(len(there), mean, best, float(there[best].mean()) - mean, luck(there))


def of_chance(climbs: Sequence[Climb], rungs: Sequence[float]) -> list[str]:
    """A line for each rung that several trials have ended."""
    found = [(share, chance(climbs, level)) for level, share in enumerate(rungs)]
    return [
        f"{percent(share)} of train: {of.best}, the best of {of.count}, is {of.above:.2f} above their mean; "
        f"were all equally good, it would seem {of.luck:.2f} above it"
        for share, of in found
        if of
    ]


def draw(climbs: Sequence[Climb], listed: ExperimentList, scoring: str, path: Path) -> None:
    """Each trial's mean ROUGE on each rung that it has ended, with its interval, against each parameter.

    A dashed line of a rung's colour is where chance alone would put the best of the trials that have ended it.
    """
    climbs = [climb for climb in climbs if climb.rungs]
    ends = [[interval(rows) for rows in climb.rungs] for climb in climbs]
    by_chance = [chance(climbs, level) for level in range(len(listed.rungs))]
    names = short_names(list(listed.search))
    down = math.ceil(len(names) / ACROSS)
    across = math.ceil(len(names) / down)
    size = (max(9, 4.2 * across), 1.4 + 3.6 * down)
    figure, drawn = pyplot.subplots(down, across, figsize=size, layout="constrained", squeeze=False, sharey=True)
    colours = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 0.9, len(listed.rungs)))
    for axes, (key, name) in zip(drawn.flat, names.items(), strict=False):
        _panel(axes, climbs, ends, listed.search[key], key, colours)
        for level, of in enumerate(by_chance):
            if of:
                axes.axhline(of.mean + of.luck, color=colours[level], linestyle="--", linewidth=1)
        axes.set_xlabel(name)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(drawn.flat)[len(names) :]:
        axes.set_visible(False)
    # Matplotlib does not look for the ends of what is moved aside.
    low, high = min(low for each in ends for low, _ in each), max(high for each in ends for _, high in each)
    drawn[0][0].set_ylim(low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1)
    for row in drawn:
        row[0].set_ylabel("mean ROUGE of dev, percent")
    figure.legend(*_legend(climbs, listed.rungs, colours), loc="outside lower left", ncols=len(listed.rungs) + 1)
    figure.suptitle(f"95 % bootstrap intervals over rows; {scoring}", x=0.01, ha="left", fontsize="medium")
    with whole(path) as half:
        figure.savefig(half, dpi=120, format="png")
    pyplot.close(figure)


def _panel(
    axes: Axes,
    climbs: Sequence[Climb],
    ends: Sequence[Sequence[tuple[float, float]]],
    found: Range,
    key: str,
    colours: Any,
) -> None:
    _x_axis(axes, found)
    for place, (climb, intervals) in enumerate(zip(climbs, ends, strict=True)):
        value: Any = climb.values[key]
        at = float(found.choice.index(value) if found.choice else value)
        aside = SPREAD * (place / max(1, len(climbs) - 1) - 0.5) if found.choice or found.int else 0
        for level, (rows, between) in enumerate(zip(climb.rungs, intervals, strict=True)):
            points = aside + POINTS * (level - (len(colours) - 1) / 2)
            moved = axes.transData + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans)
            axes.plot([at, at], between, color=colours[level], linewidth=1, alpha=0.6, transform=moved)
            axes.plot([at], [rows.mean()], "o", color=colours[level], markersize=5, transform=moved)


def _x_axis(axes: Axes, found: Range) -> None:
    """All of what was searched, and a little more."""
    if found.choice:
        axes.set_xticks(range(len(found.choice)), [_shown(value)[:LONGEST] for value in found.choice])
        axes.set_xlim(-0.5, len(found.choice) - 0.5)
    elif found.int:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(found.int[0] - 0.5, found.int[1] + 0.5)
    elif found.log:
        axes.set_xscale("log")
        more = (found.log[1] / found.log[0]) ** 0.05
        axes.set_xlim(found.log[0] / more, found.log[1] * more)
    elif found.uniform:
        more = 0.05 * (found.uniform[1] - found.uniform[0])
        axes.set_xlim(found.uniform[0] - more, found.uniform[1] + more)


def _legend(climbs: Sequence[Climb], rungs: Sequence[float], colours: Any) -> tuple[list[Any], list[str]]:
    handles, labels = [], []
    for level, share in enumerate(rungs):
        count = sum(len(climb.rungs) > level for climb in climbs)
        handles.append(pyplot.Line2D([], [], color=colours[level], marker="o", linewidth=1))
        labels.append(f"{percent(share)} of train: {count} trials")
    handles.append(pyplot.Line2D([], [], color="#555555", linestyle="--", linewidth=1))
    return handles, [*labels, "where chance alone puts the best of them"]
