"""What ROUGE does not see: faults of a single summary, found without a model.

Of the competition's 2,750 train and dev references `no_sentence_end` marks 3, `repeated` 8, `foreign_script` 19,
and the others none.
"""

import re
from typing import NamedTuple

from yoyak.core.text import TAG, foreign_words
from yoyak.metrics.morphemes import morphemes

BROKEN_TAG = re.compile(r"#|Person\s*\d", re.IGNORECASE)
"""What is left of a tag once whole ones are taken out."""
LONGEST_STUTTER = 4
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")
COPIED_RUN = 5
"""Morphemes in a row that count as copied; shorter runs come from putting the same thing in other words."""
COPIED_SHARE = 0.8


class Diagnosis(NamedTuple):
    """Whether a summary has a fault, fault by fault; None where that takes the dialogue, which is not known."""

    empty: bool
    copied: bool | None
    """At least 80 % of its morphemes occur in the dialogue in runs of five or more (Grusky et al. 2018)."""
    no_sentence_end: bool
    """It does not end as a sentence does."""
    unknown_tags: bool | None
    """It names a `#Person3#` or another tag that the dialogue has not, or writes a tag in a broken way."""
    foreign_script: bool | None
    """It has a word of Latin, Kana or other letters that does not occur in the dialogue."""
    repeated: bool
    """It has three words in a row twice, or up to four words twice in succession."""


def diagnose(summary: str, dialogue: str | None) -> Diagnosis:
    """Faults of a summary; `dialogue` has its turns, one a line, and is None or empty where it is not known."""
    if dialogue is not None and not dialogue.strip():
        dialogue = None
    return Diagnosis(
        empty=not summary.strip(),
        copied=None if dialogue is None else copied_share(summary, dialogue) >= COPIED_SHARE,
        no_sentence_end=bool(summary.strip()) and not ends_as_a_sentence(summary),
        unknown_tags=None if dialogue is None else _has_unknown_tags(summary, dialogue),
        foreign_script=None if dialogue is None else not foreign_words(summary) <= foreign_words(dialogue),
        repeated=_repeats(summary.split()),
    )


def ends_as_a_sentence(summary: str) -> bool:
    """Whether it ends in a mark such as a full stop, perhaps with a quotation mark or bracket after it."""
    return bool(SENTENCE_END.search(summary.strip()))


def copied_share(summary: str, dialogue: str) -> float:
    """The share of the summary's morphemes, in [0, 1], that occur in the dialogue in runs of five or more."""
    words, source = morphemes(summary), morphemes(dialogue)
    runs = {source[start : start + COPIED_RUN] for start in range(len(source) - COPIED_RUN + 1)}
    copied = {
        position
        for start in range(len(words) - COPIED_RUN + 1)
        if words[start : start + COPIED_RUN] in runs
        for position in range(start, start + COPIED_RUN)
    }
    return len(copied) / len(words) if words else 0.0


def _has_unknown_tags(summary: str, dialogue: str) -> bool:
    whole = not set(TAG.findall(summary)) <= set(TAG.findall(dialogue))
    return whole or bool(BROKEN_TAG.search(TAG.sub(" ", summary)))


def _repeats(words: list[str]) -> bool:
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) < len(runs) or any(
        words[start : start + length] == words[start + length : start + 2 * length]
        for length in range(1, LONGEST_STUTTER + 1)
        for start in range(len(words) - 2 * length + 1)
    )
