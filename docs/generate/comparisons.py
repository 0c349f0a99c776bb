"""Differences of two results on the same rows, for docs/results.md."""

import numpy as np

from yoyak.core.records import Floats
from yoyak.evaluation import significance
from yoyak.sweeps.results import Result

SAMPLES, SEED = 10_000, 0
"""Of the bootstrap."""


def paired_interval(difference: Floats) -> Floats:
    """95 % bootstrap interval, shape (2,), of the mean of differences, shape (rows,)."""
    means = significance.resampled_means(difference[:, None], SAMPLES, SEED)
    bounds: Floats = significance.interval(means)[0]
    return bounds


def p_values(differences: list[Floats]) -> Floats:
    """P of each mean of differences, each of shape (rows,), Holm-corrected for all of them: shape (differences,)."""
    alone = [float(significance.paired_p_values(rows[:, None], SEED)[0]) for rows in differences]
    return significance.holm(np.array(alone), len(alone))


def same_runs(runs: list[Result], base: list[Result]) -> list[tuple[Result, Result]]:
    """Pairs of one of `runs` and one of `base` that differ in the experiment alone."""
    return [(run, other) for run in runs for other in base if (run.on, run.seed) == (other.on, other.seed)]
