"""One summary a row from the candidates of several models."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from yoyak import rouge
from yoyak.errors import UserError
from yoyak.parameters import Section
from yoyak.records import Candidate, Prediction
from yoyak.significance import Floats


class EnsembleParams(Section):
    """How models join."""

    strategy: Literal["consensus"]
    """`consensus`: the candidate most like all models' candidates, in the competition's own metric."""
    members: list[str] | None = None
    """Models of `run.models` that take part; all where the key is empty."""


def members(params: EnsembleParams, models: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each model that takes part."""
    chosen = params.members or list(models)
    for name in chosen:
        if name not in models:
            raise UserError(f"params.yaml: ensemble.members: {name} is not in run.models ({', '.join(models)})")
    return {name: weights[name] for name in chosen}


def dev_scores(path: Path, models: Sequence[str]) -> pd.DataFrame:
    """Each dev row's score from `scores/rows.csv`: rows by fname, columns `models`."""
    try:
        rows = pd.read_csv(path, keep_default_na=False, dtype={"fname": str, "model": str})
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run `dvc repro`, or `dvc pull` if it was pushed") from None
    table = rows[rows["split"] == "dev"].pivot(index="fname", columns="model", values="rouge_mean")
    for name in models:
        if name not in table.columns:
            raise UserError(f"{path}: no dev scores of {name}; run `dvc repro`")
    return table[list(models)]


def dev_weights(params: EnsembleParams, scores: pd.DataFrame) -> dict[str, float]:
    """The weight of each model that takes part: its mean dev score."""
    return members(params, list(scores.columns), {name: scores[name].to_numpy().mean() for name in scores.columns})


def combine(predictions: Mapping[str, Sequence[Prediction]], weights: Mapping[str, float]) -> list[Prediction]:
    """A prediction for each row of the members, which hold the same rows in the same order.

    `weights` are the members' dev scores: the better model's candidates count for more.
    """
    votes = zip(*(predictions[name] for name in weights), strict=True)
    return [consensus(rows, list(weights.values())) for rows in votes]


def cross_validated(
    params: EnsembleParams,
    predictions: Mapping[str, Sequence[Prediction]],
    row_scores: Mapping[str, Floats],
    fold: NDArray[np.int64],
) -> list[Prediction]:
    """The dev rows combined by weights to which they themselves did not contribute: an estimate's summaries.

    `row_scores` are each model's scores of the rows, shape (rows,); `fold` is the part each row belongs to.
    """
    result: dict[int, Prediction] = {}
    for part in range(fold.max() + 1):
        inside = np.flatnonzero(fold == part).tolist()
        # A single row has no others to learn from.
        outside = fold != part if len(fold) > 1 else fold == part
        weights = members(params, list(predictions), {name: row_scores[name][outside].mean() for name in predictions})
        rows = {name: [predictions[name][row] for row in inside] for name in weights}
        result |= dict(zip(inside, combine(rows, weights), strict=True))
    return [result[row] for row in range(len(fold))]


def consensus(rows: Sequence[Prediction], weights: Sequence[float]) -> Prediction:
    """Minimum Bayes risk (Kumar & Byrne 2004): the candidate with the highest expected ROUGE against all candidates.

    Itself among them: else, of two members with one candidate each, the lighter one's would win. A member's weight is
    shared evenly among its candidates. The best-ranked candidate wins a tie.
    """
    if len(names := {row.fname for row in rows}) > 1:
        raise UserError(f"the members' predictions are of different rows ({', '.join(sorted(names))}); run `dvc repro`")
    pool = [
        (candidate, weight / len(row.candidates))
        for row, weight in zip(rows, weights, strict=True)
        for candidate in row.candidates
        if candidate.text
    ]
    if not pool:
        return Prediction(fname=rows[0].fname, text="")
    expected = [_expected_score(candidate, pool) for candidate, _ in pool]
    best = max(range(len(pool)), key=expected.__getitem__)
    order = [best, *(index for index in range(len(pool)) if index != best)]
    return Prediction(fname=rows[0].fname, text=pool[best][0].text, candidates=tuple(pool[index][0] for index in order))


def _expected_score(candidate: Candidate, pool: Sequence[tuple[Candidate, float]]) -> float:
    scores = rouge.score([candidate.text] * len(pool), [(other.text,) for other, _ in pool])
    # Not `sum`: its rounding depends on the order, and of two equal candidates the later one might win.
    return math.fsum(weight * score.mean for score, (_, weight) in zip(scores, pool, strict=True))
