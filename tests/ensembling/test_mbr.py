"""Choices among many candidates are those of earlier versions, which compared pair by pair."""

import random

import numpy as np
import pytest
from sample import sample_texts

from yoyak.core.records import Candidate, Prediction
from yoyak.ensembling import mbr
from yoyak.metrics import rouge

MEMBERS, CANDIDATES, ROWS = 3, 8, 6


def near_copies(text: str, draw: random.Random, words: list[str]) -> str:
    """Like another sample of the same model: some words are dropped, others exchanged."""
    kept = [word for word in text.split() if draw.random() > 0.1]
    return " ".join(draw.choice(words) if draw.random() < 0.2 else word for word in kept)


@pytest.fixture(scope="module")
def members() -> dict[str, list[Prediction]]:
    draw = random.Random(0)
    texts = [text for text in sample_texts() if "\n" not in text]
    words = [word for text in texts for word in text.split()]
    summaries = texts[:: len(texts) // ROWS][:ROWS]

    def prediction(row: int) -> Prediction:
        said = [near_copies(summaries[row], draw, words) for _ in range(CANDIDATES)]
        candidates = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in said)
        return Prediction(fname=f"dev_{row}", text=said[0], candidates=candidates)

    return {f"member_{member}": [prediction(row) for row in range(ROWS)] for member in range(MEMBERS)}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 1.0, 1.0], [2, 0, 21, 15, 20, 7]),
        ([0.5, 0.3, 0.2], [2, 0, 21, 15, 20, 7]),
        ([0.0, 0.9, 0.1], [12, 8, 21, 15, 20, 12]),
    ],
)
def test_golden_choices(members: dict[str, list[Prediction]], weights: list[float], expected: list[int]) -> None:
    assert [mbr.choose(pool, np.array(weights)) for pool in mbr.pools(members)] == expected


def test_utilities_are_means_over_each_members_candidates(members: dict[str, list[Prediction]]) -> None:
    for pool, *row in zip(mbr.pools(members), *members.values(), strict=True):
        expected = [[_mean(one.text, member) for member in row] for one in pool.candidates]
        assert np.allclose(pool.utilities, expected, rtol=0, atol=1e-12)


def _mean(text: str, member: Prediction) -> float:
    scores = rouge.score([text] * CANDIDATES, [(other.text,) for other in member.candidates])
    return float(np.mean([score.mean for score in scores]))


def test_on_all_cores_as_on_one(members: dict[str, list[Prediction]], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = mbr.pools(members)
    monkeypatch.setattr(mbr, "PARALLEL_FROM", 0)
    for pool, expected in zip(mbr.pools(members), alone, strict=True):
        assert pool.candidates == expected.candidates
        assert np.array_equal(pool.utilities, expected.utilities)
