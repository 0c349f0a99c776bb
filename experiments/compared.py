"""Differences of two results on the same rows, and what they may be called."""

import numpy as np
from result import Result

from yoyak.core.records import Floats
from yoyak.evaluation import significance

SAMPLES, SEED = 10_000, 0
"""Of the bootstrap."""


def paired_interval(difference: Floats) -> Floats:
    """95 % of the mean of differences, shape (rows,)."""
    means = significance.resampled_means(difference[:, None], SAMPLES, SEED)
    bounds: Floats = significance.interval(means)[0]
    return bounds


def p_values(differences: list[Floats]) -> Floats:
    """Of each mean of differences, Holm-corrected for all of them."""
    alone = [float(significance.paired_p_values(rows[:, None], SEED)[0]) for rows in differences]
    return significance.holm(np.array(alone), len(alone))


def same_runs(runs: list[Result], base: list[Result]) -> list[tuple[Result, Result]]:
    """Those that differ in the experiment alone."""
    return [(run, other) for run in runs for other in base if (run.on, run.seed) == (other.on, other.seed)]
