"""What ROUGE does not see: faults of a single summary, found without a model.

On the competition's 2,750 train and dev references, all ending in a full stop but three, `unfinished` marks those
three, `unknown_tags` none and `repeated` eight.
"""

import re
import unicodedata
from typing import NamedTuple

from yoyak.dialogues import TAG
from yoyak.morphemes import morphemes

SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
COPIED_RUN = 5
"""Morphemes in a row that count as copied; shorter runs are how the same thing is said twice."""
COPIED_SHARE = 0.8


class Diagnosis(NamedTuple):
    """Whether a summary has a fault, fault by fault; None where that takes the dialogue, which is not known."""

    empty: bool
    copied: bool | None
    """At least 80 % of its morphemes stand in the dialogue in runs of five or more (Grusky et al. 2018)."""
    unfinished: bool
    """It does not end as a sentence does."""
    unknown_tags: bool | None
    """It names a `#Person3#` or another tag that the dialogue has not."""
    foreign_script: bool | None
    """It has letters of a script, Latin or Kana for example, of which the dialogue has none; Hangul is at home."""
    repeated: bool
    """Three words in a row stand in it twice."""


def diagnose(summary: str, dialogue: str | None) -> Diagnosis:
    return Diagnosis(
        empty=not summary.strip(),
        copied=None if dialogue is None else copied_share(summary, dialogue) >= COPIED_SHARE,
        unfinished=bool(summary.strip()) and not SENTENCE_END.search(summary.strip()),
        unknown_tags=None if dialogue is None else not set(TAG.findall(summary)) <= set(TAG.findall(dialogue)),
        foreign_script=None if dialogue is None else not scripts(summary) <= scripts(dialogue) | {"HANGUL"},
        repeated=_repeats(summary.split()),
    )


def copied_share(summary: str, dialogue: str) -> float:
    """The share of the summary's morphemes, in [0, 1], that stand in the dialogue in the same runs."""
    words, source = morphemes(summary), morphemes(dialogue)
    length = min(COPIED_RUN, len(words))
    if not length:
        return 0.0
    runs = {source[start : start + length] for start in range(len(source) - length + 1)}
    copied = {
        position
        for start in range(len(words) - length + 1)
        if words[start : start + length] in runs
        for position in range(start, start + length)
    }
    return len(copied) / len(words)


def scripts(text: str) -> set[str]:
    """The scripts of its letters, person tags aside: `{"HANGUL", "LATIN"}`; of full-width letters the plain ones'."""
    letters = (letter for letter in unicodedata.normalize("NFKC", TAG.sub(" ", text)) if letter.isalpha())
    return {unicodedata.name(letter, "UNKNOWN").split()[0] for letter in set(letters)}


def _repeats(words: list[str]) -> bool:
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) < len(runs)
