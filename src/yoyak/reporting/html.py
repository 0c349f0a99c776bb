"""The last run as one HTML file, which needs neither server nor network: scores, and every dev row to read."""

import hashlib
import json
import re
import tempfile
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from yoyak.core import repository
from yoyak.core.errors import UserError, quoted
from yoyak.core.files import write_whole
from yoyak.core.params import read_section
from yoyak.core.records import Prediction, read_records
from yoyak.core.run import RunParams
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.evaluation import baselines, diagnosis, leaderboard, plots
from yoyak.evaluation.faults import Diagnosis
from yoyak.evaluation.leaderboard import Split, what_was_counted
from yoyak.evaluation.tables import read_stage_table
from yoyak.metrics import rouge
from yoyak.metrics.rouge import Metric
from yoyak.reporting import console
from yoyak.reporting.console import FAULTS, WHAT_FAULTS_MEAN, interval, what_dev_decided
from yoyak.reporting.highlights import pieces

FIGURES = (*rouge.FIGURES, "rouge_mean")
IN_A_SCRIPT = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
"""Escapes of characters that could end the element with the JSON; they occur in its texts alone."""


def write(path: Path) -> None:
    """The report of the run in the working folder."""
    scores, joined = console.scores_of_the_run(Path()), console.of_the_ensemble(Path())
    # The metric of these scores; `params.yaml` may have another by now.
    metric = leaderboard.metric_of(scores["scoring"])
    write_whole(path, _page(_summary_of_the_run(scores, joined), _rows_to_read(metric, bool(joined))))


def _page(summary: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = _source("report.js")
    return templates.get_template("report.html").render(
        **summary,
        style=Markup(_source("tags.css") + _source("report.css")),
        script=Markup(script),
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded(rows)),
        is_baseline=is_baseline,
        interval=interval,
    )


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def embedded(content: object) -> str:
    """JSON that is safe inside `<script type="application/json">`, whatever its texts are."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(IN_A_SCRIPT)


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
        "decided": what_dev_decided(scores["best"], joined).split("\n"),
        "weights": joined.get("weights", {}),
        "learned": joined.get("learned"),
        "by_weight": console.by_weight,
        "what_was_learned": console.what_was_learned,
        "diagnostics": scores["diagnostics"],
        "repairs": console.of_postprocessing(Path()),
        "fault_names": FAULTS,
        "what_faults_mean": WHAT_FAULTS_MEAN,
        "models": models,
        "pictures": _pictures([name for name in models if name not in averaged], breakdowns),
        "breakdowns": _groups(breakdowns),
    }


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
        "Dev loss in training": _svg(lambda path: plots.draw_learning_curves(curves, path)),
        "Score by dialogue length": _svg(lambda path: plots.draw_by_length(breakdowns, path)),
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


# The rows


def _rows_to_read(metric: Metric, with_ensemble: bool) -> dict[str, Any]:
    """Data of the page's script: every dev row, with its summaries by models, ensemble and baselines."""
    split = leaderboard.read_split("dev")
    scored = read_stage_table(Path("scores/rows.csv"), ["split", "model", "fname", *Diagnosis._fields], FIGURES)
    scored = scored[scored["split"] == split.name]
    if all(is_baseline(name) for name in scored["model"]):
        raise UserError(f"scores/rows.csv: no scores of a model on {split.name}; run `dvc repro`")
    summaries = _texts(split, [name for name in scored["model"].unique() if name != baselines.HUMAN], with_ensemble)
    judged = _judged(summaries, split, scored, metric)
    rows = zip(
        split.fnames, split.topics, split.dialogues, split.references, _disagreements(summaries, metric), strict=True
    )
    return {
        "models": [{"name": name, "baseline": is_baseline(name)} for name in summaries],
        "faults": {name: FAULTS[name] for name in Diagnosis._fields},
        "rows": [
            {
                "fname": fname,
                "topic": topic or "",
                "length": sum(map(len, turns)),
                "disagreement": disagreement,
                "dialogue": [pieces(turn) for turn in turns],
                "references": [pieces(text) for text in references],
                "summaries": {
                    name: {"text": pieces(texts[place], references, metric.tokenizer), **judged[name][fname]}
                    for name, texts in summaries.items()
                },
            }
            for place, (fname, topic, turns, references, disagreement) in enumerate(rows)
        ],
    }


def _texts(split: Split, scored: Sequence[str], with_ensemble: bool) -> dict[str, list[str]]:
    """Each summary of the split's rows, in their order: the ensemble's, the models', the baselines'."""
    extracts = baselines.extracts(split.dialogues)
    files = {name: Path(f"predictions/{name}/{split.name}.jsonl") for name in scored if name not in extracts}
    if with_ensemble:
        files[ENSEMBLE] = Path(f"ensemble/{split.name}.jsonl")
    summaries = extracts | {
        name: leaderboard.align(read_records(path, Prediction), split.fnames, name) for name, path in files.items()
    }
    models = [name for name in scored if not is_baseline(name)]
    return {name: summaries[name] for name in [ENSEMBLE, *models, *filter(is_baseline, scored)] if name in summaries}


def _judged(
    summaries: Mapping[str, Sequence[str]], split: Split, scored: pd.DataFrame, metric: Metric
) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores and faults of each model's summary of each row; the ensemble's, which no file has, are computed here."""
    tables = dict(list(scored.groupby("model")))
    if ENSEMBLE in summaries:
        scores = leaderboard.score(summaries[ENSEMBLE], split.references, metric)
        faults = pd.DataFrame(diagnosis.diagnose_rows(summaries[ENSEMBLE], split.dialogues))
        tables[ENSEMBLE] = faults.assign(fname=split.fnames, **dict(zip(FIGURES, scores.T, strict=False)))
        tables[ENSEMBLE]["rouge_mean"] = scores.mean(axis=1)
    judged = {name: {row["fname"]: _judgement(row) for row in tables[name].to_dict("records")} for name in summaries}
    for name, rows in judged.items():
        if missing := set(split.fnames) - set(rows):
            raise UserError(f"scores/rows.csv: no score of {name} for {quoted(min(missing))}; run `dvc repro`")
    return judged


def _judgement(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row of a table of scores as the page has it."""
    return {
        "scores": [round(float(row[figure]), 1) for figure in FIGURES],
        # Text where the column has empty fields, too.
        "faults": [fault for fault in Diagnosis._fields if str(row[fault]) == "True"],
    }


def _disagreements(summaries: Mapping[str, Sequence[str]], metric: Metric) -> list[float | None]:
    """How unlike the models' summaries of each row are: 100 less the mean ROUGE of all pairs; none of one model."""
    models = [texts for name, texts in summaries.items() if name != ENSEMBLE and not is_baseline(name)]
    pairs = list(combinations(models, 2))
    rows = len(models[0])
    if not pairs:
        return [None] * rows
    texts = [text for first, _ in pairs for text in first]
    others = [(text,) for _, second in pairs for text in second]
    alike = np.array([score.mean for score in rouge.score(texts, others, metric)]).reshape(len(pairs), rows)
    return [round(100 * (1 - float(mean)), 1) for mean in alike.mean(axis=0)]
