"""Intervals and p-values: repeatable, paired, and what theory and other implementations say."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoyak.evaluation import significance
from yoyak.evaluation.significance import SWAPS, holm, interval, paired_p_values, parts, resampled_means


def values(rows: int, *columns: float, seed: int = 3) -> np.ndarray:
    """Normal with these means and a standard deviation of 10, the same deviations in each column."""
    noise = np.random.default_rng(seed).normal(0, 10, rows)
    return np.column_stack([mean + noise for mean in columns])


def test_same_seed_same_draws() -> None:
    scores = values(60, 40, 30)
    assert np.array_equal(resampled_means(scores, 500, 0), resampled_means(scores, 500, 0))
    assert not np.array_equal(resampled_means(scores, 500, 0), resampled_means(scores, 500, 1))


def test_draws_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = values(60, 40)
    whole = resampled_means(scores, 500, 0)
    monkeypatch.setattr(significance, "BLOCK_ENTRIES", 700)
    assert resampled_means(scores, 500, 0) == pytest.approx(whole)


def test_resampling_is_drawing_rows() -> None:
    scores = values(7, 40, 30)
    drawn = np.random.default_rng(5).integers(7, size=(300, 7))
    assert resampled_means(scores, 300, 5) == pytest.approx(scores[drawn].mean(axis=1))


def test_columns_see_the_same_rows() -> None:
    """A constant lead stands fast whatever rows are drawn."""
    means = resampled_means(values(60, 41, 40), 500, 0)
    assert interval(means[:, :1] - means[:, 1:]) == pytest.approx(np.array([[1, 1]]))


def test_interval_is_as_wide_as_the_standard_error_says() -> None:
    scores = values(400, 40)
    ((low, high),) = interval(resampled_means(scores, 4000, 0))
    assert (high - low) / 2 == pytest.approx(1.96 * scores.std() / 20, rel=0.05)
    assert (high + low) / 2 == pytest.approx(scores.mean(), abs=0.1)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(300):
        scores = np.random.default_rng(seed).normal(40, 10, (100, 1))
        ((low, high),) = interval(resampled_means(scores, 400, seed))
        covered += low <= 40 <= high
    assert 0.91 <= covered / 300 <= 0.98


def test_p_value_of_all_swaps() -> None:
    """Of eight rows all 256 swaps can be counted."""
    difference = np.array([3.0, 1.0, -2.0, 4.0, 0.5, 2.5, -1.0, 3.5])
    swaps = [np.dot(signs, difference) for signs in itertools.product((1, -1), repeat=8)]
    exact = np.mean(np.abs(swaps) >= abs(difference.sum()) - 1e-9)
    (p,) = paired_p_values(difference[:, None], 0)
    assert p == pytest.approx(exact, abs=0.01)


def test_p_values_of_no_difference_and_of_a_great_one() -> None:
    scores = np.column_stack([np.zeros(50), np.full(50, 5.0), np.random.default_rng(0).normal(0, 1, 50)])
    same, great, chance = paired_p_values(scores, 0)
    assert same == 1
    assert great == pytest.approx(1 / (SWAPS + 1))
    assert 0.05 < chance < 1


def test_p_values_are_uniform_where_models_are_alike() -> None:
    noise = np.random.default_rng(1).normal(0, 1, (60, 400))
    p_values = paired_p_values(noise, 0, swaps=1000)
    assert np.mean(p_values <= 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.median(p_values) == pytest.approx(0.5, abs=0.06)


def test_holm_by_hand() -> None:
    """0.01 × 4, 0.02 × 3, then 0.03 × 2 (not below the one before), and 0.9; then as the smallest of ten."""
    assert holm(np.array([0.03, 0.01, 0.9, 0.02]), 4) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm(np.array([0.03, 0.001]), 10) == pytest.approx([0.27, 0.01])


def test_the_best_of_models_that_are_alike_stands_out_seldom() -> None:
    """Compared with all pairs in mind; with the four comparisons that are made alone, it would more often than 0.05."""
    found = 0
    for seed in range(200):
        scores = np.random.default_rng(seed).normal(0, 1, (60, 5))
        best = scores.mean(axis=0).argmax()
        others = np.delete(scores, best, axis=1)
        p_values = paired_p_values(scores[:, [best]] - others, seed, swaps=2000)
        found += (holm(p_values, family=10) <= 0.05).any()
    assert found / 200 <= 0.05


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    given_values = np.array(p_values)
    corrected = holm(given_values, len(p_values))
    assert (corrected >= given_values).all()
    assert (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(given_values)]) >= 0).all()


@given(st.integers(1, 300))
def test_parts_are_of_equal_size(rows: int) -> None:
    sizes = np.bincount(parts(rows, 0))
    assert len(sizes) == min(5, rows)
    assert sizes.max() - sizes.min() <= 1
