"""Where a model is good and where it is not: scores of single rows and of groups of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from yoyak.core.files import whole
from yoyak.core.records import Floats
from yoyak.evaluation import significance
from yoyak.evaluation.diagnosis import UNKNOWN
from yoyak.evaluation.faults import Diagnosis
from yoyak.evaluation.groups import Groups, by_summary_length
from yoyak.evaluation.leaderboard import Leaderboard, ScoringParams
from yoyak.metrics.rouge import FIGURES

FEWEST_ROWS = 10
"""Fewest rows of a group that gets an interval: the bootstrap of fewer rows is far too narrow."""
COLUMNS = [
    *("split", "model", "fname", *FIGURES, "rouge_mean"),
    *("dialogue_characters", "dialogue_length", "speakers", "topic", "register"),
    *("length_ratio", "summary_length", *Diagnosis._fields),
]
BLOCK = 1000
"""Rows that are made text together."""


def write_rows(boards: Sequence[Leaderboard], path: Path) -> None:
    """`scores/rows.csv`: every summary's scores, faults, and the groups that it belongs to."""
    with whole(path) as half, half.open("w", encoding="utf-8", newline="") as file:
        pd.DataFrame(columns=COLUMNS).to_csv(file, index=False)
        for board in boards:
            for table in by_row(board):
                table.round(4).to_csv(file, index=False, header=False)


def by_row(board: Leaderboard) -> Iterator[pd.DataFrame]:
    """The lines of a split's summaries, some at a time: one model after the other, in the order of the rows."""
    rows = len(board.split.groups.fnames)
    for name in board.scores:
        for start in range(0, rows, BLOCK):
            yield _lines(board, name, slice(start, min(start + BLOCK, rows)))


def _lines(board: Leaderboard, name: str, rows: slice) -> pd.DataFrame:
    groups, scores = board.split.groups, board.scores[name][rows]
    table = pd.DataFrame(scores, columns=list(FIGURES)).assign(
        split=board.split.name,
        model=name,
        fname=groups.fnames[rows],
        rouge_mean=scores.mean(axis=1),
        dialogue_characters=groups.dialogue_characters[rows],
        **{by: of_rows.of(rows) for by, of_rows in groups.by.items()},
    )
    if judged := board.split.summaries.get(name):
        table["length_ratio"] = judged.length_ratios[rows]
        table["summary_length"] = by_summary_length(judged.length_ratios[rows]).of(slice(None))
        for place, fault in enumerate(Diagnosis._fields):
            table[fault] = _as_flags(judged.faults[rows, place])
    return table.reindex(columns=COLUMNS)


def _as_flags(values: Any) -> Any:
    """True, False, or None where nothing is known."""
    known = values.astype(bool)
    return known if (values != UNKNOWN).all() else np.where(values == UNKNOWN, None, known)


def breakdowns(boards: Sequence[Leaderboard], params: ScoringParams) -> pd.DataFrame:
    """`scores/breakdowns.csv`: a line for each split, group and model, with a 95 % interval of `rouge_mean`."""
    lines: list[dict[str, Any]] = []
    for by in ("dialogue_length", "speakers", "topic", "register"):
        for board in boards:
            lines += _lines_of_groups(board, list(board.scores), by, board.split.groups.by[by], params)
    for board in boards:
        for name in board.scores:
            # The groups are each model's own; those who wrote the references have none.
            if judged := board.split.summaries.get(name):
                groups = by_summary_length(judged.length_ratios)
                lines += _lines_of_groups(board, [name], "summary_length", groups, params)
    return pd.DataFrame(lines).sort_values(["split", "by", "group"], kind="stable", key=_numbers_first)


def _lines_of_groups(
    board: Leaderboard, names: Sequence[str], by: str, groups: Groups, params: ScoringParams
) -> list[dict[str, Any]]:
    """A line for each of the models and groups of one kind, the models one after the other."""
    rows_of = {groups.names[place]: np.flatnonzero(groups.places == place) for place in pd.unique(groups.places)}
    intervals = {group: _intervals(board, names, rows, params) for group, rows in rows_of.items()}
    return [
        {"split": board.split.name, "by": by, "group": group, "model": name, "rows": len(rows)}
        | {figure: board.scores[name][rows, column].mean() for column, figure in enumerate(FIGURES)}
        | {"rouge_mean": board.scores[name][rows].mean(axis=1).mean()}
        | {"ci95_low": intervals[group][place, 0], "ci95_high": intervals[group][place, 1]}
        for place, name in enumerate(names)
        for group, rows in rows_of.items()
    ]


def _intervals(board: Leaderboard, names: Sequence[str], rows: Any, params: ScoringParams) -> Floats:
    """Intervals of the models' means over some rows, from the same draws: shape (models, 2)."""
    if len(rows) < FEWEST_ROWS:
        return np.full((len(names), 2), np.nan)
    means = np.column_stack([board.scores[name][rows].mean(axis=1) for name in names])
    return significance.interval(significance.resampled_means(means, params.bootstrap_samples, params.seed))


def _numbers_first(column: "pd.Series[str]") -> "pd.Series[Any]":
    """`100 to 220` before `1000 to 2000`."""
    return column.str.replace(r"^\d+", lambda digits: digits[0].zfill(6), regex=True)
