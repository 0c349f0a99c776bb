"""Minimum Bayes risk (Kumar & Byrne 2004): of several candidates the one with the highest expected score.

The expectation is over all members' candidates, as if each might be the reference; a member's weight is shared evenly
among its own, so that many candidates are no more votes. A candidate is compared with itself, too: else, of two members
with one candidate each, the lighter one's would win.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yoyak.core.errors import UserError, quoted
from yoyak.core.records import Candidate, Floats, Prediction
from yoyak.metrics import rouge

TIE_DIGITS = 12
"""Digits of an expected score; scores that differ in further ones differ by rounding alone."""


class Pool(NamedTuple):
    """All members' candidates for one row, but empty ones."""

    fname: str
    candidates: tuple[Candidate, ...]
    members: NDArray[np.int64]
    """Place of the member that each candidate is from: shape (candidates,)."""
    utilities: Floats
    """Mean score of each candidate, in [0, 1], against each member's candidates: shape (candidates, members)."""


def pools(predictions: Mapping[str, Sequence[Prediction]]) -> list[Pool]:
    """A pool a row; the members hold the same rows in the same order. Many rows are shared among all cores."""
    rows = list(zip(*predictions.values(), strict=True))
    if sum(sum(len(member.candidates) for member in row) ** 2 for row in rows) < rouge.PARALLEL_FROM:
        return _pools(rows)
    return rouge.on_all_cores(_pools, rows, chunk=25)


def _pools(rows: Sequence[Sequence[Prediction]]) -> list[Pool]:
    return [_pool(row) for row in rows]


def _pool(row: Sequence[Prediction]) -> Pool:
    if len(names := {member.fname for member in row}) > 1:
        raise UserError(
            f"the members' predictions are of different rows ({', '.join(map(quoted, sorted(names)))}); run `dvc repro`"
        )
    of_members = [(place, each) for place, member in enumerate(row) for each in member.candidates if each.text]
    candidates = tuple(candidate for _, candidate in of_members)
    utilities = np.zeros((len(candidates), len(row)))
    for column, member in enumerate(row):
        others = [other.text for other in member.candidates]
        for line, candidate in enumerate(candidates):
            scores = rouge.score([candidate.text] * len(others), [(other,) for other in others])
            utilities[line, column] = sum(score.mean for score in scores) / max(1, len(others))
    return Pool(row[0].fname, candidates, np.array([place for place, _ in of_members], dtype=np.int64), utilities)


def choose(pool: Pool, weights: Floats) -> int | None:
    """Place of the best candidate under the members' `weights`, shape (members,); the first of equal ones.

    Candidates of a member without weight neither vote nor can be chosen. None where there are no others.
    """
    eligible = weights[pool.members] > 0
    if not eligible.any():
        return None
    return int(np.where(eligible, np.round(pool.utilities @ weights, TIE_DIGITS), -1).argmax())


def prediction(pool: Pool, weights: Floats) -> Prediction:
    """The best candidate, and all other eligible ones after it; an empty text where there is none."""
    if (best := choose(pool, weights)) is None:
        return Prediction(fname=pool.fname, text="")
    eligible = np.flatnonzero(weights[pool.members] > 0).tolist()
    others = [pool.candidates[place] for place in eligible if place != best]
    return Prediction(fname=pool.fname, text=pool.candidates[best].text, candidates=(pool.candidates[best], *others))
