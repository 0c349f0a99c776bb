"""Faults of many summaries at once, and what only many show: summaries that are alike, and too long or too short."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats
from yoyak.evaluation.faults import Diagnosis, diagnose

UNKNOWN = -1
"""A fault that takes the dialogue to see, where none is known."""


def diagnosis_of(
    texts: Sequence[str], references: Sequence[Sequence[str]], dialogues: Sequence[Sequence[str]] | None
) -> dict[str, float]:
    """The faults of these summaries, as `in_percent` has them."""
    flags = np.array([flags_of(row) for row in diagnose_rows(texts, dialogues)], dtype=np.int8)
    ratios = [length_ratio(text, row) for text, row in zip(texts, references, strict=True)]
    return in_percent(flags, np.array(ratios), len(set(texts)))


def in_percent(flags: NDArray[np.int8], length_ratios: Floats, distinct: int) -> dict[str, float]:
    """Percent of the summaries with each fault; a fault that takes the dialogue to see is left out where none is known.

    `flags` are of shape (rows, faults), `length_ratios` of shape (rows,). Given as well: the percent that differ from
    each other, of `distinct` texts, and the mean ratio.
    """
    percent = {}
    for place, fault in enumerate(Diagnosis._fields):
        if (seen := flags[flags[:, place] != UNKNOWN, place]).size:
            percent[fault] = _rounded(100 * np.mean(seen))
    return {
        **percent,
        "distinct": _rounded(100 * distinct / len(flags)),
        "length_ratio": _rounded(np.mean(length_ratios)),
    }


def diagnose_rows(texts: Sequence[str], dialogues: Sequence[Sequence[str]] | None) -> list[Diagnosis]:
    sources = [None] * len(texts) if dialogues is None else ["\n".join(turns) for turns in dialogues]
    return [diagnose(text, source) for text, source in zip(texts, sources, strict=True)]


def flags_of(diagnosis: Diagnosis) -> list[int]:
    """1, 0 or `UNKNOWN` for each fault."""
    return [UNKNOWN if fault is None else int(fault) for fault in diagnosis]


def length_ratio(text: str, references: Sequence[str]) -> float:
    """Characters of a summary over the mean characters of its references."""
    return len(text) * len(references) / sum(map(len, references))


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 2)
