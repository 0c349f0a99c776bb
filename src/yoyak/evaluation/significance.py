"""How sure a mean over rows is, and a difference of two: resampling, seeded, the same rows for all models."""

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats

FOLDS = 5
SWAPS = 10_000
"""Random swaps of a paired test: enough for p-values that are corrected for a hundred comparisons."""
BLOCK_ENTRIES = 2**22
"""Most entries of the draws that are in memory at a time."""


def resampled_means(values: Floats, samples: int, seed: int) -> Floats:
    """Means of `values`, shape (rows, columns), over rows drawn with replacement: shape (samples, columns).

    All columns see the same draws, so that differences of columns are paired (Koehn 2004). How often each row was drawn
    makes a matrix, and all means one matrix product.
    """
    rows = len(values)
    draw = np.random.default_rng(seed)
    means = []
    for size in _blocks(samples, rows):
        drawn = draw.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
        means.append(counts.astype(np.float64) @ values / rows)
    return np.concatenate(means)


def interval(means: Floats) -> Floats:
    """95 % percentile interval (Efron 1979) of each column of resampled means: shape (columns, 2)."""
    return np.percentile(means, [2.5, 97.5], axis=0).T


def paired_p_values(differences: Floats, seed: int, swaps: int = SWAPS) -> Floats:
    """Two-sided p of each column of per-row differences, shape (rows, columns), by random swaps of the two sides.

    If two models were alike, each row's difference might as well have the other sign (Fisher's randomisation test; for
    text scores see Noreen 1989, Dror et al. 2018).
    """
    rows, columns = differences.shape
    draw = np.random.default_rng(seed)
    observed = np.abs(differences.mean(axis=0))
    as_far = np.zeros(columns)
    for size in _blocks(swaps, rows):
        signs = 2.0 * draw.integers(2, size=(size, rows)) - 1.0
        # Rounding must not make a swap that changes nothing look closer than what was observed.
        as_far += (np.abs(signs @ differences / rows) >= observed - 1e-9).sum(axis=0)
    return (as_far + 1) / (swaps + 1)


def holm(p_values: Floats, family: int) -> Floats:
    """P-values corrected for the size of the `family` of comparisons that they come from (Holm 1979).

    The family is larger than the values where they are a choice from it: the best of k models compared with the others
    is a choice from all k (k - 1) / 2 pairs.
    """
    order = np.argsort(p_values)
    factors = family - np.arange(len(p_values))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return corrected


def parts(rows: int, seed: int) -> NDArray[np.int64]:
    """The part of a cross-validation that each row belongs to, shape (rows,): five parts, fewer if rows are fewer."""
    return np.random.default_rng(seed).permutation(rows) % min(FOLDS, rows)


def _blocks(samples: int, rows: int) -> list[int]:
    size = max(1, BLOCK_ENTRIES // max(1, rows))
    return [min(size, samples - start) for start in range(0, samples, size)]
