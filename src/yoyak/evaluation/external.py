"""Files of summaries that were made elsewhere, scored like our own."""

from pathlib import Path
from typing import Any

import pandas as pd

from yoyak.core.errors import UserError, quoted
from yoyak.data.dialogues import references_in, tell_passed_over, turns
from yoyak.data.tables import read_table, what_it_has
from yoyak.evaluation import leaderboard
from yoyak.evaluation.diagnosis import diagnosis_of
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import require


def score_files(predictions: Path, references: Path, params: ScoringParams) -> dict[str, Any]:
    """Score, interval and faults of the summaries in `predictions`; both files are CSV or JSON.

    Every row of `references` must have its summary. Faults that take the dialogue to see are looked for where
    `references` has a column `dialogue`.
    """
    require(params.tokenizer)
    table = read_table(references, ["fname"])
    expected = references_in(references, table)
    summaries = _read_summaries(predictions)
    if not summaries.keys() & expected.keys():
        first = quoted(next(iter(expected), ""))
        raise UserError(f"{predictions} has none of the rows of {references} ({first} …); are both of one split?")
    for fname in expected:
        if fname not in summaries:
            raise UserError(f"{predictions}: no summary for {quoted(fname)}, which {references} has; add its row")
    texts, targets = [summaries[fname] for fname in expected], list(expected.values())
    (entry,) = leaderboard.entries_of([leaderboard.score(texts, targets, params.metric)], params)
    return {
        "scoring": {
            **leaderboard.made_by(params),
            "pairs_that_the_library_scored_too": rouge.audit(texts, targets, params.metric),
            "references_a_row": sorted({len(row) for row in targets}),
        },
        "scores": entry,
        "diagnostics": diagnosis_of(texts, targets, _dialogues_in(table)),
        "rows_without_reference": len(summaries) - len(expected),
    }


def _read_summaries(path: Path) -> dict[str, str]:
    table = read_table(path, ["fname"])
    column = next((name for name in ("summary", "text") if name in table.columns), None)
    if column is None:
        raise UserError(f"{path}: column 'summary' is missing; {what_it_has(list(table.columns))}")
    tell_passed_over(path, list(table.columns), [column])
    return dict(zip(table["fname"], table[column], strict=True))


def _dialogues_in(table: pd.DataFrame) -> list[list[str]] | None:
    return [turns(dialogue) for dialogue in table["dialogue"]] if "dialogue" in table.columns else None
