"""The dev rows of the report's page: figures of all by which it sorts and filters, and texts in blocks, compressed.

A page of 100,000 rows would otherwise be a gigabyte of JSON, parsed before anything is seen.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from yoyak.core.errors import UserError, quoted
from yoyak.core.language import N_
from yoyak.core.records import Floats, Prediction, read_records
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.evaluation import baselines, diagnosis, leaderboard
from yoyak.evaluation.faults import Diagnosis
from yoyak.evaluation.groups import Groups, by_summary_length
from yoyak.evaluation.leaderboard import Split
from yoyak.evaluation.tables import read_stage_table
from yoyak.metrics import rouge
from yoyak.metrics.rouge import Metric
from yoyak.reporting.console import FAULTS
from yoyak.reporting.highlights import pieces

FIGURES = (*rouge.FIGURES, "rouge_mean")
GROUPED_BY = ("dialogue_length", "speakers", "topic", "register")
"""Columns of `scores/rows.csv` that have the group of a row; the summaries' length is each model's own."""
BLOCK = 50
"""Rows whose texts are compressed together: some 100 KB, which a browser has again in milliseconds."""


class Rows(NamedTuple):
    """Data of the page's script."""

    figures: dict[str, Any]
    """Of every dev row what it is sorted and filtered by, a list a figure."""
    blocks: Iterator[str]
    """Texts of `BLOCK` rows each: JSON, compressed by zlib, in Base64."""
    by_fault: dict[str, dict[str, "Faulty"]]
    """By fault, and by model."""


class Faulty(NamedTuple):
    """A model's summaries with a fault."""

    rows: int
    rouge_mean: float | None
    """In percent; None of no rows."""


BY = {
    "dialogue_length": N_("by the dialogue's length"),
    "speakers": N_("by speakers"),
    "topic": N_("by topic"),
    "register": N_("by the reference's ending"),
    "summary_length": N_("by the summary's length"),
}
"""What rows are grouped by."""
GROUPS = (
    *(N_("under half"), N_("half to 0.8"), N_("0.8 to 1.25"), N_("1.25 to 2"), N_("over twice")),
    *(N_("no topic"), N_("rarer topics"), N_("other")),
)
"""Groups that have names in words."""


class Judged(NamedTuple):
    """A model's summaries of the split's rows, in their order."""

    texts: list[str]
    scores: Floats
    """`FIGURES` in percent, shape (rows, 4)."""
    faults: NDArray[np.bool_]
    """Shape (rows, faults)."""
    summary_length: Groups
    """By its length over its references'."""


class Row(NamedTuple):
    """What a block has of a row."""

    turns: tuple[str, ...]
    references: tuple[str, ...]
    summaries: dict[str, tuple[str, list[float], list[str]]]
    """By model: the text, its scores, the names of its faults."""


def rows_to_read(metric: Metric, with_ensemble: bool) -> Rows:
    """Every dev row, with its summaries by models, ensemble and baselines."""
    split = leaderboard.read_split("dev")
    texts = ["split", "model", "fname", *Diagnosis._fields, *GROUPED_BY]
    scored = read_stage_table(Path("scores/rows.csv"), texts, FIGURES)
    scored = scored[scored["split"] == split.name]
    judged = _judged(split, scored, metric, with_ensemble)
    bits = 1 << np.arange(len(Diagnosis._fields))
    figures = {
        "block": BLOCK,
        "models": [{"name": name, "baseline": is_baseline(name)} for name in judged],
        "faults": {name: FAULTS[name] for name in Diagnosis._fields},
        "by": BY,
        "fname": split.fnames,
        "topic": [topic or "" for topic in split.topics],
        "length": [sum(map(len, turns)) for turns in split.dialogues],
        "disagreement": _disagreements({name: each.texts for name, each in judged.items()}, metric),
        "mean": {name: each.scores[:, -1].round(1).tolist() for name, each in judged.items()},
        "faulty": {name: (each.faults @ bits).tolist() for name, each in judged.items()},
        "groups": {by: _figures_of(groups) for by, groups in _groups(split, scored).items()},
        "lengths": {name: _figures_of(each.summary_length) for name, each in judged.items()},
    }
    by_fault = {
        fault: {name: _faulty(each, place) for name, each in judged.items()}
        for place, fault in enumerate(Diagnosis._fields)
    }
    return Rows(figures, _blocks(split, judged, metric), by_fault)


def _faulty(judged: Judged, fault: int) -> Faulty:
    scores = judged.scores[judged.faults[:, fault], -1]
    return Faulty(len(scores), float(scores.mean()) if len(scores) else None)


def _groups(split: Split, scored: pd.DataFrame) -> dict[str, Groups]:
    """By what the stage `score` has grouped the rows, by the same names."""
    # Each model's lines have the same.
    table = scored.drop_duplicates("fname").set_index("fname").loc[split.fnames]
    grouped = {by: pd.factorize(table[by]) for by in GROUPED_BY}
    return {by: Groups(places.astype(np.int32), list(names)) for by, (places, names) in grouped.items()}


def _figures_of(groups: Groups) -> dict[str, Any]:
    return {"names": groups.names, "of": groups.places.tolist()}


def _blocks(split: Split, judged: Mapping[str, Judged], metric: Metric) -> Iterator[str]:
    rows = (
        Row(
            split.dialogues[place],
            split.references[place],
            {
                name: (
                    each.texts[place],
                    [round(float(score), 1) for score in each.scores[place]],
                    [fault for fault, has in zip(Diagnosis._fields, each.faults[place], strict=True) if has],
                )
                for name, each in judged.items()
            },
        )
        for place in range(len(split.fnames))
    )
    for _, block in rouge.stream_on_all_cores(partial(_compressed, metric=metric), rows, BLOCK, metric):
        yield block


def _compressed(rows: Sequence[Row], metric: Metric) -> str:
    content = [
        {
            "dialogue": [pieces(turn) for turn in row.turns],
            "references": [pieces(text) for text in row.references],
            "summaries": {
                name: {"text": pieces(text, row.references, metric.tokenizer), "scores": scores, "faults": faults}
                for name, (text, scores, faults) in row.summaries.items()
            },
        }
        for row in rows
    ]
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return b64encode(zlib.compress(text.encode())).decode()


def _judged(split: Split, scored: pd.DataFrame, metric: Metric, with_ensemble: bool) -> dict[str, Judged]:
    """Texts, scores and faults: the ensemble's, the models', the baselines'."""
    if all(is_baseline(name) for name in scored["model"].unique()):
        raise UserError(f"scores/rows.csv: no scores of a model on {split.name}; run `dvc repro`")
    texts = _texts(split, [name for name in scored["model"].unique() if name != baselines.HUMAN], with_ensemble)
    tables = dict(list(scored.groupby("model")))
    judged = {name: _of_a_model(name, texts[name], split, tables[name]) for name in texts if name != ENSEMBLE}
    return ({ENSEMBLE: _of_the_ensemble(texts[ENSEMBLE], split, metric)} if with_ensemble else {}) | judged


def _texts(split: Split, scored: Sequence[str], with_ensemble: bool) -> dict[str, list[str]]:
    """Each summary of the split's rows, in their order."""
    extracts = baselines.extracts(split.dialogues)
    files = {name: Path(f"predictions/{name}/{split.name}.jsonl") for name in scored if name not in extracts}
    if with_ensemble:
        files[ENSEMBLE] = Path(f"ensemble/{split.name}.jsonl")
    summaries = extracts | {
        name: leaderboard.align(read_records(path, Prediction), split.fnames, name) for name, path in files.items()
    }
    models = [name for name in scored if not is_baseline(name)]
    return {name: summaries[name] for name in [ENSEMBLE, *models, *filter(is_baseline, scored)] if name in summaries}


def _of_the_ensemble(texts: list[str], split: Split, metric: Metric) -> Judged:
    """No file has its scores: they are computed here."""
    scores = leaderboard.score(texts, split.references, metric)
    faults = np.array([diagnosis.flags_of(row) for row in diagnosis.diagnose_rows(texts, split.dialogues)]) == 1
    return Judged(texts, np.column_stack([scores, scores.mean(axis=1)]), faults, _lengths(texts, split))


def _of_a_model(name: str, texts: list[str], split: Split, table: pd.DataFrame) -> Judged:
    places = pd.Index(table["fname"]).get_indexer(pd.Index(split.fnames))
    if (places < 0).any():
        missing = min(fname for fname, place in zip(split.fnames, places, strict=True) if place < 0)
        raise UserError(f"scores/rows.csv: no score of {name} for {quoted(missing)}; run `dvc repro`")
    # Text where the column has empty fields, too.
    faults = table[list(Diagnosis._fields)].to_numpy() == "True"
    return Judged(texts, table[list(FIGURES)].to_numpy()[places], faults[places], _lengths(texts, split))


def _lengths(texts: Sequence[str], split: Split) -> Groups:
    rows = zip(texts, split.references, strict=True)
    return by_summary_length(np.array([diagnosis.length_ratio(*row) for row in rows]))


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
