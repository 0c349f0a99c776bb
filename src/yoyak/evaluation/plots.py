"""Pictures of scores and learning curves, as PNG: they need no network to be looked at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from yoyak.core.files import whole
from yoyak.core.stale_outputs import PREFIX, is_baseline
from yoyak.evaluation.leaderboard import what_was_counted

GREY = "#9aa5b1"
BLUE = "#2563a8"


@contextmanager
def picture(path: Path, size: tuple[float, float], count: int = 1) -> Iterator[list[Axes]]:
    """So many axes side by side, to draw into; the picture is saved at the end. `size` is in inches."""
    figure, drawn = pyplot.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    yield list(drawn[0])
    for each in drawn[0]:
        each.spines[["top", "right"]].set_visible(False)
    with whole(path) as half:
        figure.savefig(half, dpi=120, format=path.suffix.removeprefix("."))
    pyplot.close(figure)


def draw_leaderboard(scores: Mapping[str, Any], path: Path) -> None:
    """Mean ROUGE of each model with its 95 % interval, best on top; baselines in grey; test beside dev."""
    boards = {"dev": scores, **({"test": scores["test"]} if "test" in scores else {})}
    size = (1 + 6.5 * len(boards), 1.4 + 0.42 * max(len(board["models"]) for board in boards.values()))
    with picture(path, size, len(boards)) as drawn:
        for axes, (split, board) in zip(drawn, boards.items(), strict=True):
            _bars(axes, board["models"])
            axes.set_title(split, loc="left")
            axes.set_xlabel(
                "mean of ROUGE-1/2/L F1, percent, with 95 % bootstrap interval\n" + what_was_counted(scores["scoring"]),
                loc="right",  # Under long names, too, where the axes are narrow.
            )


def _bars(axes: Axes, models: Mapping[str, Any]) -> None:
    names = list(models)[::-1]
    means = [models[name]["rouge_mean"] for name in names]
    errors = [[abs(models[name]["rouge_mean"] - models[name]["ci95"][side]) for name in names] for side in (0, 1)]
    bars = axes.barh(
        [name.removeprefix(PREFIX) for name in names],
        means,
        xerr=errors,
        color=[GREY if is_baseline(name) else BLUE for name in names],
        error_kw={"capsize": 4, "ecolor": "#333333"},
    )
    axes.bar_label(bars, labels=[f"{mean:.1f}" for mean in means], label_type="center", color="white", weight="bold")


def draw_by_length(breakdowns: pd.DataFrame, path: Path) -> None:
    """Mean ROUGE on dev of the shortest to the longest quarter of the dialogues, with 95 % intervals."""
    chosen = breakdowns[(breakdowns["split"] == "dev") & (breakdowns["by"] == "dialogue_length")]
    groups = list(chosen["group"].unique())
    models = list(chosen["model"].unique())
    with picture(path, (9, 5)) as (axes,):
        for place, name in enumerate(models):
            rows = chosen[chosen["model"] == name]
            # Side by side: intervals drawn over each other cannot be read.
            positions = [groups.index(group) + 0.05 * (place - (len(models) - 1) / 2) for group in rows["group"]]
            errors = [rows["rouge_mean"] - rows["ci95_low"], rows["ci95_high"] - rows["rouge_mean"]]
            axes.errorbar(
                positions,
                rows["rouge_mean"],
                yerr=[side.clip(lower=0) for side in errors],
                label=name.removeprefix(PREFIX),
                marker="o",
                capsize=3,
                linestyle="--" if is_baseline(name) else "-",
                alpha=0.5 if is_baseline(name) else 1,
            )
        counts = [int(chosen[chosen["group"] == group]["rows"].iloc[0]) for group in groups]
        axes.set_xticks(
            range(len(groups)), [f"{group}\n{rows} rows" for group, rows in zip(groups, counts, strict=True)]
        )
        axes.set_xlabel("dialogues by length")
        axes.set_ylabel("mean of ROUGE-1/2/L F1 on dev, percent")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, bbox_to_anchor=(1, 1), loc="upper left")


def draw_learning_curves(curves: Mapping[str, pd.DataFrame], path: Path) -> None:
    """Dev loss over epochs, a line a model; `curves` hold `epoch` and `loss`.

    Models of different tokenizers share no scale: the loss is of a token, and theirs are of different lengths.
    """
    with picture(path, (8, 4.5)) as (axes,):
        for name, curve in curves.items():
            axes.plot(curve["epoch"], curve["loss"], marker="o", label=name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("dev loss, nats a token of the model's own")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
