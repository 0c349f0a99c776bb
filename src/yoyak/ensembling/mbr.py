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
from yoyak.ensembling import all_pairs
from yoyak.metrics import rouge

PARALLEL_FROM = 1_000_000
"""Pairs of candidates from which on starting further processes takes less time than they save."""
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
    texts = [_texts(row) for row in rows]
    pairs = sum(sum(map(len, members)) ** 2 for members in texts)
    utilities = _utilities(texts) if pairs < PARALLEL_FROM else rouge.on_all_cores(_utilities, texts, chunk=10)
    return [_pool(row, each) for row, each in zip(rows, utilities, strict=True)]


def of_members(pool: Pool, places: Sequence[int]) -> Pool:
    """What `pools` makes of these members alone, in this order; `places` are theirs in `pool`."""
    of_each = [np.flatnonzero(pool.members == place) for place in places]
    taken = np.concatenate(of_each)
    return Pool(
        pool.fname,
        tuple(pool.candidates[place] for place in taken.tolist()),
        np.repeat(np.arange(len(places)), [len(of_one) for of_one in of_each]),
        np.ascontiguousarray(pool.utilities[taken][:, places]),
    )


def _texts(row: Sequence[Prediction]) -> list[list[str]]:
    """Each member's candidates."""
    if len(names := {member.fname for member in row}) > 1:
        raise UserError(
            f"the members' predictions are of different rows ({', '.join(map(quoted, sorted(names)))}); run `dvc repro`"
        )
    return [[candidate.text for candidate in member.candidates] for member in row]


def _utilities(rows: Sequence[Sequence[Sequence[str]]]) -> list[Floats]:
    """For each row of the members' texts, what each of them all is worth: shape (candidates, members)."""
    return [_utilities_of_row(members) for members in rows]


def _utilities_of_row(members: Sequence[Sequence[str]]) -> Floats:
    scores = all_pairs.mean_f1([text for texts in members for text in texts])
    ends = np.cumsum([len(texts) for texts in members])
    of_members = np.split(scores, ends[:-1], axis=1)
    return np.stack([columns.sum(axis=1) / max(1, columns.shape[1]) for columns in of_members], axis=1)


def _pool(row: Sequence[Prediction], utilities: Floats) -> Pool:
    candidates = [(place, candidate) for place, member in enumerate(row) for candidate in member.candidates]
    filled = np.array([bool(candidate.text) for _, candidate in candidates], dtype=bool)
    members = np.array([place for place, _ in candidates], dtype=np.int64)
    texts = tuple(candidate for _, candidate in candidates if candidate.text)
    return Pool(row[0].fname, texts, members[filled], utilities[filled])


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
