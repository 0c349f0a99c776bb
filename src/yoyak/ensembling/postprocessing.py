"""Small repairs of summaries, each off until switched on, and what each is worth on dev."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from yoyak.core import repository
from yoyak.core.params import Section
from yoyak.core.records import Prediction
from yoyak.core.text import TAG
from yoyak.evaluation import leaderboard
from yoyak.evaluation.faults import ends_as_a_sentence
from yoyak.evaluation.leaderboard import ScoringParams, Split

MARK = re.compile(r"[\"'”’)\]]*([.!?…]+)[\"'”’)\]]*(?=\s|\Z)|(?<=다)(\.)(?=[가-힣#])")
"""Behind `…다` also without a blank after it."""
ABBREVIATION = re.compile(
    r"mrs?|ms|dr|prof|st|jr|sr|no|vs|etc|inc|ltd|corp|co|vol|gen|capt|lt|.*[a-z]\.[a-z].*", re.IGNORECASE
)
"""`Mr`, `p.m`: the full stop behind it ends no sentence."""
WHOLE_TAG = re.compile(f"({TAG.pattern})")
PARTICLE = re.compile(
    r"\A\s+((?:은|는|이|가|을|를|의|과|와|도|만|로|에게|에게서|로부터|으로부터)(?:은|는|도|만|의|을)?)(?=\W|\Z)"
)
"""After a blank: what no reference of the competition or of the sample parts from the tag before it."""
BLANK_BEFORE_MARK = re.compile(r"\s+(?=[.,!?])")


class PostprocessingParams(Section):
    """What is repaired in the ensemble's summaries; the rules apply in this order."""

    normalise_spaces: bool = False
    """One blank between words, none between a tag and its particle (`#Person1# 은`) or before `.`, `,`, `!`, `?`; one
    before a tag that follows a letter."""
    trim_unfinished_sentence: bool = False
    """Drop a last sentence that does not end as one, unless it is the only one."""
    drop_repeated_sentences: bool = False
    """Keep the first of equal sentences."""


def normalise_spaces(text: str) -> str:
    parts = WHOLE_TAG.split(" ".join(text.split()))
    # Even places hold the text between tags, odd ones the tags themselves, which are not touched.
    for place in range(0, len(parts), 2):
        part = parts[place]
        if place:
            part = PARTICLE.sub(r"\1", part)
        part = BLANK_BEFORE_MARK.sub("", part)
        follows_a_letter = part[-1:].isalnum()
        parts[place] = f"{part} " if follows_a_letter and place + 1 < len(parts) else part
    return "".join(parts)


def sentences(text: str) -> list[str]:
    """The sentences of a text, the last perhaps unfinished, without the blanks between them."""
    found, start = [], 0
    for mark in MARK.finditer(text):
        if _ends_a_sentence(text[start : mark.start()].split(), mark[1] or mark[2], text[mark.end() :].lstrip()[:1]):
            found.append(text[start : mark.end()].strip())
            start = mark.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def _ends_a_sentence(words: list[str], mark: str, after: str) -> bool:
    """Whether a mark behind these words ends a sentence; `after` is the character that comes next.

    No full stop of `Mr.`, `J. K. Rowling`, `2024. 3. 1.` or of the number of a list ends one.
    """
    word = words[-1].lstrip("'\"“‘([") if words else ""
    last = word[-1:]
    if not last.isascii() or last == "%":
        return last.isalnum() or last == "%" or unicodedata.category(last) == "So"
    if last == "#":
        return TAG.fullmatch(word, max(0, word.rfind("#", 0, -1))) is not None
    if not last.isalnum() or mark != ".":
        return last.isalnum()
    if word.isdigit() or len(word) == 1:
        of_a_list = len(words) == 1 or re.fullmatch(r"\w{1,4}\.", words[-2])
        goes_on = after.isdigit() if word.isdigit() else after.isascii() and after.isalpha()
        return not of_a_list and not goes_on
    return not ABBREVIATION.fullmatch(word)


def trim_unfinished_sentence(text: str) -> str:
    *whole, last = sentences(text) or [text]
    return " ".join(whole) if whole and not ends_as_a_sentence(last) else text


def drop_repeated_sentences(text: str) -> str:
    found = sentences(text)
    kept = list(dict.fromkeys(found))
    return " ".join(kept) if len(kept) < len(found) else text


RULES: dict[str, Callable[[str], str]] = {
    rule.__name__: rule for rule in (normalise_spaces, trim_unfinished_sentence, drop_repeated_sentences)
}


def apply(params: PostprocessingParams, rows: Sequence[Prediction]) -> list[Prediction]:
    """The predictions with their texts repaired by the rules that are switched on; with none on, unchanged."""
    return [_repaired(row, [rule for name, rule in RULES.items() if getattr(params, name)]) for row in rows]


def _repaired(row: Prediction, rules: Sequence[Callable[[str], str]]) -> Prediction:
    text = row.text
    for rule in rules:
        text = rule(text)
    if text == row.text:
        return row
    # `text` stays the first candidate's.
    first = [candidate.model_copy(update={"text": text}) for candidate in row.candidates[:1]]
    return row.model_copy(update={"text": text, "candidates": (*first, *row.candidates[1:])})


def report(
    rows: Sequence[Prediction], split: Split, params: PostprocessingParams, judging: ScoringParams
) -> dict[str, Any]:
    """`metrics/postprocessing.json`: of each rule alone, on or off, the `delta` that its repairs make to the scores.

    Paired by row, in percent; p-values are corrected for the number of rules.
    """
    before = leaderboard.align(rows, split.fnames, "ensemble")
    after = {name: [rule(text) for text in before] for name, rule in RULES.items()}
    scored = leaderboard.score(before, split.references, judging.metric)
    differences = {
        name: leaderboard.score(texts, split.references, judging.metric) - scored for name, texts in after.items()
    }
    deltas = leaderboard.deltas(differences, len(RULES), judging)
    return {
        "scoring": {**leaderboard.made_by(judging), "commit": repository.commit()},
        "split": split.name,
        "rows": len(before),
        "rules": {
            name: {
                "on": getattr(params, name),
                "rows_changed": sum(old != new for old, new in zip(before, texts, strict=True)),
                "delta": deltas[name],
            }
            for name, texts in after.items()
        },
    }
