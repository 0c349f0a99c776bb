"""Where a model is good and where it is not: scores of groups of rows."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from yoyak.core.speakers import speakers
from yoyak.evaluation import significance
from yoyak.evaluation.faults import Diagnosis
from yoyak.evaluation.leaderboard import Leaderboard, ScoringParams, Split, diagnose_rows, length_ratios
from yoyak.metrics.rouge import FIGURES

RATIO_EDGES = [0, 0.5, 0.8, 1.25, 2, np.inf]
RATIO_NAMES = ["under half", "half to 0.8", "0.8 to 1.25", "1.25 to 2", "over twice"]
FEWEST_ROWS = 10
"""Fewest rows of a group that gets an interval: the bootstrap of fewer rows is far too narrow."""
TOPIC_ROWS = 5
"""Fewest rows of a topic that is a group of its own: most of the competition's topics occur once."""
LAST_WORD = re.compile(r"(\w+)[.!?…\"'”’)\]]*$")


def by_row(board: Leaderboard) -> pd.DataFrame:
    """`scores/rows.csv`: every summary's scores, faults, and the groups that it belongs to."""
    groups = _groups_of_rows(board.split)
    tables = []
    for name, scores in board.scores.items():
        table = pd.DataFrame(scores, columns=list(FIGURES)).assign(model=name, rouge_mean=scores.mean(axis=1))
        if texts := board.texts.get(name):
            ratios = length_ratios(texts, board.split.references)
            table["length_ratio"] = ratios
            table["summary_length"] = pd.cut(ratios, RATIO_EDGES, labels=RATIO_NAMES, include_lowest=True).astype(str)
            table[list(Diagnosis._fields)] = pd.DataFrame(diagnose_rows(texts, board.split.dialogues)).to_numpy()
        tables.append(pd.concat([groups, table], axis=1))
    rows = pd.concat(tables, ignore_index=True)
    first = ["split", "model", "fname", *FIGURES, "rouge_mean"]
    return rows[[*first, *(column for column in rows.columns if column not in first)]]


def _groups_of_rows(split: Split) -> pd.DataFrame:
    characters = [sum(map(len, turns)) for turns in split.dialogues]
    return pd.DataFrame(
        {
            "split": split.name,
            "fname": split.fnames,
            "dialogue_characters": characters,
            "dialogue_length": _quarters(characters),
            "speakers": [str(len(speakers("\n".join(turns)))) for turns in split.dialogues],
            "topic": _frequent(split.topics),
            "register": [_register(row[0]) for row in split.references],
        }
    )


def _quarters(characters: Sequence[int]) -> list[str]:
    """`100 to 220 characters`, and so on: four groups of about as many rows."""
    edges = np.unique(np.percentile(characters, [0, 25, 50, 75, 100]).round().astype(int))
    places = np.clip(np.searchsorted(edges, characters, side="right") - 1, 0, max(0, len(edges) - 2))
    return [f"{edges[place]} to {edges[min(place + 1, len(edges) - 1)]} characters" for place in places]


def _frequent(topics: Sequence[str | None]) -> list[str]:
    rows = Counter(topics)
    return ["no topic" if topic is None else topic if rows[topic] >= TOPIC_ROWS else "rarer topics" for topic in topics]


def _register(summary: str) -> str:
    """How its last sentence ends: in polite `니다`, in plain `다`, or otherwise."""
    ending = LAST_WORD.search(summary.strip())
    word = ending[1] if ending else ""
    # 합니다, but neither 아니다 nor 다니다: the syllable before ends in ㅂ, the 17th of 28 final consonants.
    if word.endswith("니다") and len(word) > 2 and (ord(word[-3]) - ord("가")) % 28 == 17:
        return "니다"
    return "다" if word.endswith("다") else "other"


def breakdowns(rows: pd.DataFrame, params: ScoringParams) -> pd.DataFrame:
    """`scores/breakdowns.csv`: a line for each split, group and model, with a 95 % interval of `rouge_mean`."""
    lines: list[dict[str, Any]] = []
    for by in ("dialogue_length", "speakers", "topic", "register", "summary_length"):
        for (split, group, model), part in rows.dropna(subset=[by]).groupby(["split", by, "model"], sort=False):
            if len(part) < FEWEST_ROWS:
                low = high = np.nan
            else:
                means = significance.resampled_means(
                    part[["rouge_mean"]].to_numpy(), params.bootstrap_samples, params.seed
                )
                low, high = significance.interval(means)[0]
            figures = {figure: part[figure].mean() for figure in (*FIGURES, "rouge_mean")}
            lines.append(
                {"split": split, "by": by, "group": group, "model": model, "rows": len(part), **figures}
                | {"ci95_low": low, "ci95_high": high}
            )
    return pd.DataFrame(lines).sort_values(["split", "by", "group"], kind="stable", key=_numbers_first)


def _numbers_first(column: "pd.Series[str]") -> "pd.Series[Any]":
    """`100 to 220` before `1000 to 2000`."""
    return column.str.replace(r"^\d+", lambda digits: digits[0].zfill(6), regex=True)
