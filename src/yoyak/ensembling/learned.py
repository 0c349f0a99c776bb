"""The candidate with the highest expected score, as a linear model of what is known of candidates expects it.

It is learned on rows of train that none of the members has seen: ridge regression (Hoerl and Kennard 1970) of scores on
features, both less their row's mean, so that it tells candidates of one row apart and no hard rows from easy ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats, Prediction
from yoyak.ensembling.features import OWN, SHARPNESS, Evidence
from yoyak.ensembling.mbr import TIE_DIGITS
from yoyak.ensembling.weighting import EnsembleParams, LearnedChoice, ScoredPools, learn_weights
from yoyak.evaluation import significance

FEATURES = ("utility", "weighted_utility", "likelihood_utility", "member_score", *OWN)
"""`utility` and `weighted_utility` are MBR's, with the members' weights alike and as MBR has them; `likelihood_utility`
the same with each text weighted by how likely it is; `member_score` the mean score of its member's candidates."""
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Of the squares of coefficients, for features of spread 1 and a mean of squared errors."""
FLAT = 1e-9
"""Spread under which a feature tells nothing."""


class Study(NamedTuple):
    """Rows with known references: what is known of their candidates, and what these score."""

    evidence: list[Evidence]
    scored: ScoredPools


def learn(params: EnsembleParams, study: Study, rows: NDArray[np.bool_], rescorers: Sequence[str]) -> LearnedChoice:
    """From the chosen `rows`, a mask of shape (rows,)."""
    places = np.flatnonzero(rows)
    weights = learn_weights(params, study.scored, rows)
    settings = LearnedChoice(
        rescorers=list(rescorers),
        weights=weights,
        sharpness=_sharpness(study, places),
        member_scores=_member_scores(study, places),
        coefficients={},
    )
    squares, products, variances = _moments(study, places, settings)
    spread = np.sqrt(np.mean([np.diag(square) for square in squares], axis=0))
    scale = np.where(spread > FLAT, spread, np.inf)
    squares, products = squares / np.outer(scale, scale), products / scale
    found = _solved(squares, products, _penalty(squares, products, variances)) / scale
    return settings.model_copy(update={"coefficients": dict(zip(FEATURES, map(float, found), strict=True))})


def _sharpness(study: Study, places: NDArray[np.int64]) -> float:
    """The one by which the candidate that is most like the likely ones scores best."""
    reached = [
        np.mean([_reached(study, row, study.evidence[row].by_likelihood[:, column]) for row in places.tolist()])
        for column in range(len(SHARPNESS))
    ]
    return SHARPNESS[int(np.argmax(reached))]


def _member_scores(study: Study, places: NDArray[np.int64]) -> dict[str, float]:
    """Mean score of each member's candidates, in percent."""
    found = {}
    for member, name in enumerate(study.scored.scores):
        of_member = [study.scored.candidate_scores[row][study.evidence[row].pool.members == member] for row in places]
        scores = np.concatenate(of_member) if of_member else np.zeros(0)
        found[name] = float(scores.mean()) if len(scores) else 0.0
    return found


def _moments(study: Study, places: NDArray[np.int64], settings: LearnedChoice) -> tuple[Floats, Floats, Floats]:
    """Of each row that has candidates: means of products of features with features (features, features), of features
    with scores (features,), and of squared scores."""
    squares, products, variances = [], [], []
    for row in places:
        if not len(study.evidence[row].own):
            continue
        given = features(study.evidence[row], settings, list(study.scored.scores))
        scores = study.scored.candidate_scores[row]
        scores = scores - scores.mean()
        squares.append(given.T @ given / len(scores))
        products.append(given.T @ scores / len(scores))
        variances.append(scores @ scores / len(scores))
    return np.array(squares), np.array(products), np.array(variances)


def _solved(squares: Floats, products: Floats, penalty: float) -> Floats:
    found: Floats = np.linalg.solve(squares.mean(axis=0) + penalty * np.eye(squares.shape[1]), products.mean(axis=0))
    return found


def _penalty(squares: Floats, products: Floats, variances: Floats) -> float:
    """The one with the least squared error on rows that it was not learned on."""
    parts = significance.parts(len(squares), seed=0)
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for part in range(parts.max() + 1):
            inside, outside = parts == part, parts != part if len(parts) > 1 else parts == part
            found = _solved(squares[outside], products[outside], penalty)
            error += float((variances[inside] - 2 * products[inside] @ found + squares[inside] @ found @ found).sum())
        errors.append(error)
    return PENALTIES[int(np.argmin(errors))]


def features(evidence: Evidence, choice: LearnedChoice, names: Sequence[str]) -> Floats:
    """Each candidate's, less the row's mean: shape (candidates, `FEATURES`). `names`: of the pool's members."""
    pool = evidence.pool
    weights = np.array([choice.weights.get(name, 0.0) for name in names])
    member_scores = np.array([choice.member_scores.get(name, 0.0) for name in names])
    columns = [
        pool.utilities.mean(axis=1),
        pool.utilities @ weights,
        evidence.by_likelihood[:, SHARPNESS.index(choice.sharpness)],
        member_scores[pool.members],
    ]
    found = np.column_stack([*columns, evidence.own])
    return found - found.mean(axis=0) if len(found) else found


def expected(evidence: Evidence, choice: LearnedChoice, names: Sequence[str]) -> Floats:
    """What each candidate is expected to score above the mean of its row's, in percent: shape (candidates,)."""
    coefficients = np.array([choice.coefficients[name] for name in FEATURES])
    found: Floats = np.round(features(evidence, choice, names) @ coefficients, TIE_DIGITS)
    return found


def _reached(study: Study, row: int, values: Floats) -> float:
    """Score of the candidate with the highest of `values`, in percent; 0 where there is none."""
    return float(study.scored.candidate_scores[row][values.argmax()]) if len(values) else 0.0


def cross_validated(params: EnsembleParams, study: Study, rescorers: Sequence[str], fold: NDArray[np.int64]) -> Floats:
    """Score of each row's choice, in percent, by what was learned on the other parts of `fold`: shape (rows,)."""
    names, reached = list(study.scored.scores), np.zeros(len(fold))
    for part in range(fold.max() + 1):
        outside = fold != part if len(fold) > 1 else fold == part
        choice = learn(params, study, outside, rescorers)
        for row in np.flatnonzero(fold == part).tolist():
            reached[row] = _reached(study, row, expected(study.evidence[row], choice, names))
    return reached


def oracle(scored: ScoredPools) -> Floats:
    """Score of each row's best candidate, in percent, shape (rows,); 0 where there is none."""
    return np.array([scores.max() if len(scores) else 0.0 for scores in scored.candidate_scores])


def chosen(evidence: Evidence, choice: LearnedChoice, names: Sequence[str]) -> Prediction:
    """The candidate of the highest expected score, and all others behind it; an empty text where there is none."""
    pool = evidence.pool
    if not pool.candidates:
        return Prediction(fname=pool.fname, text="")
    best = int(expected(evidence, choice, names).argmax())
    others = [candidate for place, candidate in enumerate(pool.candidates) if place != best]
    return Prediction(fname=pool.fname, text=pool.candidates[best].text, candidates=(pool.candidates[best], *others))


def combine(evidence: Sequence[Evidence], choice: LearnedChoice, names: Sequence[str]) -> list[Prediction]:
    return [chosen(each, choice, names) for each in evidence]


def spread(study: Study, choice: LearnedChoice) -> Mapping[str, float]:
    """Percent points that a standard deviation of each feature within its row is worth."""
    names = list(study.scored.scores)
    squares = [np.mean(features(each, choice, names) ** 2, axis=0) for each in study.evidence if len(each.own)]
    deviations = np.sqrt(np.mean(squares, axis=0))
    return {
        name: choice.coefficients[name] * float(deviation) for name, deviation in zip(FEATURES, deviations, strict=True)
    }
