"""What is known of a candidate before anybody has seen the reference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from yoyak.core.errors import UserError, quoted
from yoyak.core.records import Floats, Likelihood, Prediction
from yoyak.ensembling import all_pairs, mbr
from yoyak.ensembling.mbr import Pool
from yoyak.evaluation.faults import diagnose
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes

PARALLEL_FROM = 300_000
"""Pairs of candidates from which on starting further processes takes less time than they save."""
SHARPNESS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What a candidate's log-probability a token is multiplied by, before the softmax that makes its weight as a reference
(Jinnai et al. 2023, arXiv:2311.05263): 0 lets all different texts count alike."""

OWN = (
    *("own_utility", "own_log_probability", "log_probability", "lowest_log_probability", "others_log_probability"),
    *("total_log_probability", "length", "length_deviation", "faults", "copies", "from_dialogue"),
)
"""Features that need nothing learned: `own_utility` is the mean score against the candidates of the same member;
`own_log_probability` its member's, a token; `log_probability`, `lowest_…` and `others_…` the rescorers', a token: mean,
least, and mean without its member; `total_…` the mean sum; `length` the logarithm of its letters, `length_deviation`
the square of its distance to the row's mean; `copies` the share of candidates with this very text; `from_dialogue` the
share of its morphemes that the dialogue has."""

Likelihoods = Mapping[str, Sequence[Mapping[str, Likelihood]]]
"""Of each rescorer, and each row, by text."""


class Evidence(NamedTuple):
    """Of a row's candidates."""

    pool: Pool
    by_likelihood: Floats
    """Mean score of each against all texts, weighted by how likely these are: shape (candidates, `SHARPNESS`)."""
    own: Floats
    """Shape (candidates, `OWN`)."""


class _Row(NamedTuple):
    pool: Pool
    names: tuple[str, ...]
    """Of the pool's members."""
    dialogue: str
    heard: dict[str, Mapping[str, Likelihood]]
    """Of each rescorer."""


def evidence(
    predictions: Mapping[str, Sequence[Prediction]], dialogues: Sequence[str], likelihoods: Likelihoods
) -> list[Evidence]:
    """Of each row of the members, which hold the same rows in the same order as `dialogues` and `likelihoods`."""
    pools = mbr.pools(predictions)
    rows = [
        _Row(pool, tuple(predictions), dialogue, {name: of_rows[row] for name, of_rows in likelihoods.items()})
        for row, (pool, dialogue) in enumerate(zip(pools, dialogues, strict=True))
    ]
    if sum(len(pool.candidates) ** 2 for pool in pools) < PARALLEL_FROM:
        return _evidence(rows)
    return rouge.on_all_cores(_evidence, rows, chunk=10)


def _evidence(rows: Sequence[_Row]) -> list[Evidence]:
    return [_of_row(row) for row in rows]


def _of_row(row: _Row) -> Evidence:
    pool, texts = row.pool, [candidate.text for candidate in row.pool.candidates]
    if not texts:
        return Evidence(pool, np.zeros((0, len(SHARPNESS))), np.zeros((0, len(OWN))))
    own = np.array([candidate.log_probability for candidate in pool.candidates])
    heard = _heard(row, texts)
    totals = np.array([[each.log_probability for each in of_text] for of_text in heard]).reshape(len(texts), -1)
    a_token = totals / np.array([[each.tokens for each in of_text] for of_text in heard]).reshape(len(texts), -1)
    mean = a_token.mean(axis=1) if row.heard else own
    lengths = np.log([len(text) for text in texts])
    words = set(morphemes(row.dialogue))
    counts = Counter(texts)
    columns = {
        "own_utility": pool.utilities[np.arange(len(texts)), pool.members],
        "own_log_probability": own,
        "log_probability": mean,
        "lowest_log_probability": a_token.min(axis=1) if row.heard else own,
        "others_log_probability": _without_own(row, a_token) if row.heard else own,
        "total_log_probability": totals.mean(axis=1) if row.heard else own,
        "length": lengths,
        "length_deviation": (lengths - lengths.mean()) ** 2,
        "faults": [
            sum(map(bool, diagnose(candidate.text, row.dialogue))) + (not candidate.finished)
            for candidate in pool.candidates
        ],
        "copies": [counts[text] / len(texts) for text in texts],
        "from_dialogue": [_share(morphemes(text), words) for text in texts],
    }
    return Evidence(
        pool, _by_likelihood(texts, mean), np.column_stack([np.array(columns[name], dtype=float) for name in OWN])
    )


def _heard(row: _Row, texts: Sequence[str]) -> list[list[Likelihood]]:
    for name, by_text in row.heard.items():
        if missing := next((text for text in texts if text not in by_text), None):
            raise UserError(
                f"rescored/{name}…: no log-probability of a candidate of {quoted(row.pool.fname)}, "
                f"{quoted(missing)!r}; run `dvc repro`"
            )
    return [[by_text[text] for by_text in row.heard.values()] for text in texts]


def _without_own(row: _Row, a_token: Floats) -> Floats:
    """Means over the rescorers that are not a candidate's own member; over all where there is no other."""
    own = np.array([[row.names[member] == name for name in row.heard] for member in row.pool.members])
    own = own.reshape(a_token.shape)
    kept = ~own | own.all(axis=1, keepdims=True)
    means: Floats = (a_token * kept).sum(axis=1) / kept.sum(axis=1)
    return means


def _by_likelihood(texts: Sequence[str], log_probabilities: Floats) -> Floats:
    """Copies of a text share its weight: they are the same guess."""
    scores, counts = all_pairs.mean_f1(texts), Counter(texts)
    copies = np.array([counts[text] for text in texts])
    raised = np.exp(np.outer(log_probabilities - log_probabilities.max(), SHARPNESS)) / copies[:, None]
    weighted: Floats = scores @ (raised / raised.sum(axis=0))
    return weighted


def _share(found: Sequence[str], words: set[str]) -> float:
    return sum(word in words for word in found) / len(found) if found else 0.0
