"""One summary a row from the candidates of several models."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yoyak import rouge
from yoyak.errors import UserError
from yoyak.parameters import Section
from yoyak.records import Candidate, Prediction


class EnsembleParams(Section):
    """How models join."""

    strategy: Literal["consensus"]
    """`consensus`: the candidate most like all models' candidates, in the competition's own metric."""
    members: list[str] | None = None
    """Models of `run.models` that take part; all where the key is empty."""


@dataclass(frozen=True)
class Member:
    """A model's vote."""

    weight: float
    """Its dev score: the better model's candidates count for more."""
    predictions: Sequence[Prediction]


def members(params: EnsembleParams, models: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of each model that takes part."""
    chosen = params.members or list(models)
    for name in chosen:
        if name not in models:
            raise UserError(f"params.yaml: ensemble.members: {name} is not in run.models ({', '.join(models)})")
    return {name: weights[name] for name in chosen}


def combine(members: Sequence[Member]) -> list[Prediction]:
    """A prediction for each row of the members, which hold the same rows in the same order."""
    return [
        consensus(rows, [member.weight for member in members])
        for rows in zip(*(member.predictions for member in members), strict=True)
    ]


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
    scores = rouge.score([candidate.text] * len(pool), [(other.text,) for other, _ in pool], "mean")
    # Not `sum`: its rounding depends on the order, and of two equal candidates the later one might win.
    return math.fsum(weight * score.mean for score, (_, weight) in zip(scores, pool, strict=True))
