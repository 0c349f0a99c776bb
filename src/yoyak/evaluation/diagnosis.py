"""Faults of many summaries at once, and what only many show: summaries that are alike, and too long or too short."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from yoyak.evaluation.faults import Diagnosis, diagnose


def diagnosis_of(
    texts: Sequence[str], references: Sequence[Sequence[str]], dialogues: Sequence[Sequence[str]] | None
) -> dict[str, float]:
    """Percent of the summaries with each fault; a fault that takes the dialogue to see is left out where none is known.

    `distinct`: percent that differ from each other; `length_ratio`: a summary's characters over its references', the
    mean over rows.
    """
    percent = {}
    diagnoses = diagnose_rows(texts, dialogues)
    for fault in Diagnosis._fields:
        if seen := [getattr(row, fault) for row in diagnoses if getattr(row, fault) is not None]:
            percent[fault] = _rounded(100 * np.mean(seen))
    return {
        **percent,
        "distinct": _rounded(100 * len(set(texts)) / len(texts)),
        "length_ratio": _rounded(np.mean(length_ratios(texts, references))),
    }


def diagnose_rows(texts: Sequence[str], dialogues: Sequence[Sequence[str]] | None) -> list[Diagnosis]:
    sources = [None] * len(texts) if dialogues is None else ["\n".join(turns) for turns in dialogues]
    return [diagnose(text, source) for text, source in zip(texts, sources, strict=True)]


def length_ratios(texts: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Characters of each summary over the mean characters of its references."""
    return [len(text) * len(row) / sum(map(len, row)) for text, row in zip(texts, references, strict=True)]


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 2)
