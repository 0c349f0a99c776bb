"""Tables and pictures of what the pipeline found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def leaderboard_table(scores: Mapping[str, Any], ensemble: Mapping[str, Any] | None) -> Table:
    """Models by score, with intervals, and how far each lies behind the best; fits into 80 columns."""
    scoring = scores["scoring"]
    table = Table(
        title="Leaderboard: ROUGE F1 on dev, percent",
        caption=f"{scoring['library']}, {scoring['tokenizer_version']}, {scoring['references']} over references. "
        "Brackets: 95 % bootstrap interval; behind: difference to the best model on the same rows.",
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for column in ("R-1", "R-2", "R-L", "mean", "", "behind", ""):
        table.add_column(column, justify="right", no_wrap=True)
    rows = dict(scores["models"]) | ({"ensemble": ensemble["ensemble"]} if ensemble else {})
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["rouge_mean"]):
        gap = scores["best"]["minus"].get(name)
        table.add_row(
            name.removeprefix("baseline/"),
            *(f"{row[key]:.1f}" for key in ("rouge1", "rouge2", "rougeL")),
            f"{row['rouge_mean']:.2f}",
            _interval(row["ci95"]),
            *((f"{gap['rouge_mean']:.2f}", _interval(gap["ci95"])) if gap else ("", "")),
            style="dim" if name.startswith("baseline/") else None,
        )
    return table


def _interval(bounds: list[float]) -> str:
    low, high = bounds
    # Escaped: rich reads square brackets as markup.
    return escape(f"[{low:.1f}, {high:.1f}]")


def print_run(root: Path) -> None:
    """What `make repro` ends with: the leaderboard and where everything lies."""
    from yoyak.records import read_json

    console = Console()
    ensemble = root / "metrics/ensemble.json"
    console.print(
        leaderboard_table(read_json(root / "metrics/scores.json"), read_json(ensemble) if ensemble.exists() else None)
    )
    for name, path in (
        ("submission", "submission/submission.csv"),
        ("checklist", "submission/checklist.md"),
        ("plots", "plots/leaderboard.png"),
        ("learning curves", "plots/training/"),
    ):
        console.print(f"{name:>16}: {path}" + ("" if (root / path).exists() else "  (not made yet)"))


def draw_leaderboard(scores: Mapping[str, Any], path: Path) -> None:
    """Mean ROUGE of each model with its 95 % interval, best on top; baselines in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = dict(reversed(scores["models"].items()))
    means = [row["rouge_mean"] for row in models.values()]
    errors = [
        [abs(row["rouge_mean"] - bound) for row in models.values() for bound in [row["ci95"][side]]] for side in (0, 1)
    ]
    colours = ["#9aa5b1" if name.startswith("baseline/") else "#2563a8" for name in models]
    figure, axes = pyplot.subplots(figsize=(8, 1.2 + 0.45 * len(models)), layout="constrained")
    bars = axes.barh(list(models), means, xerr=errors, color=colours, error_kw={"capsize": 4, "ecolor": "#333333"})
    axes.bar_label(bars, labels=[f"{mean:.1f}" for mean in means], label_type="center", color="white", weight="bold")
    scoring = scores["scoring"]
    axes.set_xlabel(
        "mean of ROUGE-1/2/L F1 on dev, percent, with 95 % bootstrap interval\n"
        f"{scoring['library']} + {scoring['tokenizer_version']}, {scoring['references']} over references"
    )
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
