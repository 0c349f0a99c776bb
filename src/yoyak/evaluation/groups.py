"""Groups that rows belong to: by their dialogue's length and speakers, their topic, and how their reference ends."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from yoyak.core.records import Floats

RATIO_EDGES = [0, 0.5, 0.8, 1.25, 2, np.inf]
RATIO_NAMES = ["under half", "half to 0.8", "0.8 to 1.25", "1.25 to 2", "over twice"]
TOPIC_ROWS = 5
"""Fewest rows of a topic that is a group of its own: most of the competition's topics occur once."""
LAST_WORD = re.compile(r"(\w+)[.!?…\"'”’)\]]*$")


class Groups(NamedTuple):
    """The group of each row, by its place among the names."""

    places: NDArray[np.int32]
    names: list[str]

    def of(self, rows: slice) -> list[str]:
        """The names of the groups of some rows."""
        return [self.names[place] for place in self.places[rows]]


class RowGroups(NamedTuple):
    """The rows of a split, and the group of each."""

    fnames: list[str]
    dialogue_characters: NDArray[np.int64]
    by: dict[str, Groups]
    """`dialogue_length`, `speakers`, `topic` and `register` of each row."""


def groups_of(
    fnames: list[str],
    characters: NDArray[np.int64],
    speakers: NDArray[np.int64],
    topics: Sequence[str | None],
    registers: Sequence[str],
) -> RowGroups:
    """The groups of rows from what is known of each."""
    return RowGroups(
        fnames,
        characters,
        {
            "dialogue_length": quarters(characters),
            "speakers": _groups([str(count) for count in speakers]),
            "topic": frequent(topics),
            "register": _groups(registers),
        },
    )


def by_summary_length(length_ratios: Floats) -> Groups:
    """The groups of a model's summaries by their length over their references'."""
    places = pd.cut(length_ratios, RATIO_EDGES, labels=False, include_lowest=True)
    return Groups(places.astype(np.int32), RATIO_NAMES)


def quarters(characters: NDArray[np.int64]) -> Groups:
    """`100 to 220 characters`, and so on: four groups of about as many rows."""
    edges = np.unique(np.percentile(characters, [0, 25, 50, 75, 100]).round().astype(int))
    places = np.clip(np.searchsorted(edges, characters, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [f"{low} to {high} characters" for low, high in zip(edges, [*edges[1:], edges[-1]], strict=True)]
    return Groups(places.astype(np.int32), names)


def frequent(topics: Sequence[str | None]) -> Groups:
    rows = Counter(topics)
    return _groups(
        ["no topic" if topic is None else topic if rows[topic] >= TOPIC_ROWS else "rarer topics" for topic in topics]
    )


def register(summary: str) -> str:
    """How its last sentence ends: in polite `니다`, in plain `다`, or otherwise."""
    ending = LAST_WORD.search(summary.strip())
    word = ending[1] if ending else ""
    # 합니다, but neither 아니다 nor 다니다: the syllable before ends in ㅂ, the 17th of 28 final consonants.
    if word.endswith("니다") and len(word) > 2 and (ord(word[-3]) - ord("가")) % 28 == 17:
        return "니다"
    return "다" if word.endswith("다") else "other"


def _groups(names: Sequence[str]) -> Groups:
    """Of the name of each row's group."""
    places, different = pd.factorize(np.array(names, dtype=object))
    return Groups(places.astype(np.int32), list(different))
