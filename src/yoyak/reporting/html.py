"""The last run as one HTML file, which needs neither server nor network: scores, and every dev row to read."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from markupsafe import Markup

from yoyak.core import repository
from yoyak.core.language import N_, translated
from yoyak.core.params import read_section
from yoyak.core.run import RunParams
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.evaluation import leaderboard, plots
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.evaluation.tables import read_stage_table
from yoyak.reporting import console, page, parameters
from yoyak.reporting.both_languages import said
from yoyak.reporting.console import FAULTS, WHAT_FAULTS_MEAN, interval, what_dev_decided
from yoyak.reporting.rows import BY, FIGURES, GROUPS, rows_to_read


def write(path: Path) -> None:
    """The report of the run in the working folder."""
    scores, joined = console.scores_of_the_run(Path()), console.of_the_ensemble(Path())
    # The metric of these scores; `params.yaml` may have another by now.
    metric = leaderboard.metric_of(scores["scoring"])
    rows = rows_to_read(metric, bool(joined))
    page.write(
        path,
        "report",
        rows.figures,
        messages=[*FAULTS.values(), *BY.values(), *GROUPS],
        blocks=rows.blocks,
        by_fault=rows.by_fault,
        is_baseline=is_baseline,
        interval=interval,
        **_summary_of_the_run(scores, joined),
    )


# The run


def _summary_of_the_run(scores: Mapping[str, Any], joined: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows above the rows."""
    breakdowns = read_stage_table(
        Path("scores/breakdowns.csv"), ["split", "by", "group", "model"], ["rows", *FIGURES], ["ci95_low", "ci95_high"]
    )
    models = [name for name in scores["models"] if not is_baseline(name)]
    averaged = read_section(RunParams, "run").averaged
    boards = {"dev": _board(scores, joined.get("ensemble"))}
    if "test" in scores:
        boards["test"] = _board(scores["test"], joined.get("test"))
    return {
        "scoring": scores["scoring"],
        "commit": repository.told(scores["scoring"].get("commit") or "unknown", digits=12),
        "uncommitted": scores["scoring"].get("uncommitted", []),
        "counted": what_was_counted(scores["scoring"]),
        "boards": boards,
        "decided": _in_both(scores["best"], joined),
        "weights": joined.get("weights", {}),
        "diagnostics": scores["diagnostics"],
        "repairs": console.of_postprocessing(Path()),
        "fault_names": FAULTS,
        "what_faults_mean": WHAT_FAULTS_MEAN,
        "by_names": BY,
        "group_name": _group_name,
        "models": models,
        "pictures": _pictures([name for name in models if name not in averaged], breakdowns),
        "breakdowns": _groups(breakdowns),
        "parameters": parameters.of_the_run(models),
    }


def _in_both(best: Mapping[str, Any], joined: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lines on what was chosen on dev, each in English and Korean."""
    english, korean = (
        what_dev_decided(best, joined, partial(translated, language=language)).split("\n") for language in ("en", "ko")
    )
    return list(zip(english, korean, strict=True))


def _group_name(name: str) -> Markup:
    """Of a group of rows: some have names in words, others are what they are named after."""
    if characters := re.fullmatch(r"(\d+) to (\d+) characters", name):
        return said(N_("{low} to {high} characters"), low=characters[1], high=characters[2])
    return said(name) if name in GROUPS else Markup('<span lang="ko">{}</span>').format(name)


def _board(board: Mapping[str, Any], joined: Mapping[str, Any] | None) -> dict[str, Any]:
    """Models and ensemble, best first, with the end of the scale that their bars share."""
    models = board["models"] | ({ENSEMBLE: joined} if joined else {})
    return {
        "best": board["best"],
        "models": dict(sorted(models.items(), key=lambda item: -item[1]["rouge_mean"])),
        "end": max(10.0, *(row["ci95"][1] for row in models.values())),
    }


def _groups(breakdowns: pd.DataFrame) -> dict[Any, dict[Any, list[dict[Any, Any]]]]:
    """The dev lines of the models: by what the rows are grouped, then group, then a line a model."""
    chosen = breakdowns[(breakdowns["split"] == "dev") & ~breakdowns["model"].map(is_baseline)]
    return {
        by: {group: lines.to_dict("records") for group, lines in part.groupby("group", sort=False)}
        for by, part in chosen.groupby("by", sort=False)
    }


def _pictures(trained: Sequence[str], breakdowns: pd.DataFrame) -> dict[str, Markup]:
    """Drawn as the stage `score` draws them, but as SVG."""
    curves = {
        name: read_stage_table(Path(f"plots/training/{name}/epochs.csv"), [], ["epoch", "loss"]) for name in trained
    }
    return {
        N_("Dev loss in training"): _svg(lambda path: plots.draw_learning_curves(curves, path)),
        N_("Score by dialogue length"): _svg(lambda path: plots.draw_by_length(breakdowns, path)),
    }


def _svg(draw: Callable[[Path], None]) -> Markup:
    """The picture as an element of a page, its text as text."""
    with (
        tempfile.TemporaryDirectory() as folder,
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "yoyak"}),
    ):
        path = Path(folder) / "picture.svg"
        draw(path)
        content = path.read_text(encoding="utf-8")
    element = content[content.index("<svg") :]
    return Markup(re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL))
