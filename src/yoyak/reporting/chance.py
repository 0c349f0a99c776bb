"""What may be chance in the differences of runs that were scored on the same rows."""

from collections.abc import Mapping

import numpy as np

from yoyak.core.records import Floats
from yoyak.evaluation import significance
from yoyak.evaluation.leaderboard import BOOTSTRAP_SAMPLES, SEED

LUCK_SAMPLES = 5000
"""Resamples for `luck`."""


def pair_intervals(scores: Floats) -> Floats:
    """95 % bootstrap intervals of the mean of each column of `scores` less each later one, paired row by row.

    `scores` has shape (rows, columns), and the intervals (pairs, 2): first the pairs of the first column.
    All pairs see the same draws: an interval of two columns is the same whichever others there are.
    """
    # What rounding adds to a difference of equal columns would look like a difference.
    means = np.round(significance.resampled_means(scores, BOOTSTRAP_SAMPLES, SEED), 9)
    pairs = [significance.interval(means[:, [at]] - means[:, at + 1 :]) for at in range(scores.shape[1] - 1)]
    return np.concatenate([np.empty((0, 2)), *pairs])


def luck(scores: Mapping[str, Floats]) -> float:
    """What the best of so many candidates would seem better than their mean by, were all of them equally good.

    In points of ROUGE: the mean, over resampled rows, of the largest of their differences from the mean of all, each
    centred.
    """
    values = np.stack(list(scores.values()), axis=1)
    differences = values - values.mean(axis=1, keepdims=True)
    means = significance.resampled_means(differences - differences.mean(axis=0), LUCK_SAMPLES, SEED)
    return float(means.max(axis=1).mean())
