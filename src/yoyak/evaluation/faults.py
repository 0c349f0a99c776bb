"""What ROUGE does not see: faults of a single summary, found without a model.

Of the competition's 2,750 train and dev references `no_sentence_end` marks 3, `foreign_script` 19, and the others none.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from yoyak.core.speakers import speakers
from yoyak.core.text import TAG, foreign_words
from yoyak.metrics.morphemes import morphemes

BROKEN_TAG = re.compile(r"#|Person\s*\d", re.IGNORECASE)
"""What is left of a tag once whole ones are taken out."""
LONGEST_STUTTER = 4
LONG_RUN = 5
"""Words in a row that no text has twice; eight of the references have runs of three or four, of names and offers."""
PARTICLES = {"은", "는", "이", "가", "을", "를", "의", "에", "에게", "에서", "와", "과"}
"""Behind a noun: `빵을 빵을` is a stutter, while `하나 하나` and `천천히 천천히` are Korean."""
COUNTED = re.compile(r"한|두|하나|둘")
"""Begins a reduplication of two words: `한 명 한 명`."""
_WHAT = r"(?:요약|summary)"
_LABELS = (
    # `요약:`, `**대화 요약:**`, `다음은 대화의 요약입니다:`
    rf"\A[^.!?:：\n]{{0,40}}{_WHAT}[^.!?:：\n]{{0,24}}[:：]",
    # `[대화 요약]`, `**요약**`; but a title in brackets has a particle behind it, `<요약 보고서>를`.
    rf"\A\W{{0,3}}(?:[\[【][^\]】\n]{{0,20}}{_WHAT}[^\]】\n]{{0,10}}[\]】]|\*+[^*\n]{{0,20}}{_WHAT}[^*\n]{{0,10}}\*+)",
    rf"\A\W{{0,3}}[<(「『][^>)」』\n]{{0,20}}{_WHAT}[^>)」』\n]{{0,10}}[>)」』](?=\W|\Z)",
    # `## 요약`, and `요약` in a line of its own
    rf"\A#+ (?:\w+ )?{_WHAT}(?=\s)|\A\s*(?:\w+ ){{0,2}}{_WHAT}\w? *\n",
    r"\A\W{0,6}(?:정답|답변?|응답|출력|결과|정리|줄거리|(?:핵심|주요|대화) ?내용|#\w+#)\W{0,3}[:：]",
    r"\A\W{0,6}(?:answer|output|response|assistant)\W{0,3}[:：]",
    # `네, 요약해 드리겠습니다.`, `다음은 대화 요약입니다.`, `assistant` in a line of its own
    r"\A(?:\W*(?:네|예|물론입니다|알겠습니다)[,.!]?\s)?"
    rf"[^.!?\n]{{0,30}}{_WHAT}[^.!?\n]{{0,12}}(?:드리겠습니다|다음과 같습니다)[.!]",
    rf"\A다음은 [^.!?\n]{{0,30}}{_WHAT}[^.!?\n]{{0,12}}입니다[.!]",
    r"\A\W{0,3}(?:assistant|model)\s*\n",
    # `[Answer]`, and the headings of our own prompt
    r"\[(?:Conversation|Question|Answer)\]",
    # Parts of a prompt: `(65자)`, `[1] 시작:`
    r"\(\s*(?:공백 ?포함 ?|약 ?|총 ?)*\d+ ?(?:자|글자|단어|characters?|chars?|words?)\s*\)|\[\d+\] ?[^\W\d_]+ ?[:：]",
)
LABEL = re.compile("|".join(_LABELS), re.IGNORECASE)
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
    """It has five words in a row twice, or up to four words twice in succession, reduplication aside."""
    labelled: bool
    """It begins with a label, `요약:` or `[대화 요약]`, or has a part of the prompt such as `(65자)`."""


def diagnose(summary: str, dialogue: str | None) -> Diagnosis:
    """Faults of a summary; `dialogue` has its turns, one a line, and is None or empty where it is not known."""
    if dialogue is not None and not dialogue.strip():
        dialogue = None
    source = None if dialogue is None else _source(dialogue)
    return Diagnosis(
        empty=not summary.strip(),
        copied=None if source is None else _copied_share(summary, source) >= COPIED_SHARE,
        no_sentence_end=bool(summary.strip()) and not ends_as_a_sentence(summary),
        unknown_tags=None if source is None else _has_unknown_tags(summary, source),
        foreign_script=None if source is None else not foreign_words(summary) <= source.foreign_words,
        repeated=_repeats(summary.split()),
        labelled=bool(LABEL.search(summary)),
    )


def ends_as_a_sentence(summary: str) -> bool:
    """Whether it ends in a mark such as a full stop, perhaps with a quotation mark or bracket after it."""
    return bool(SENTENCE_END.search(summary.strip()))


def copied_share(summary: str, dialogue: str) -> float:
    """The share of the summary's morphemes, in [0, 1], that occur in the dialogue in runs of five or more."""
    return _copied_share(summary, _source(dialogue))


class _Source(NamedTuple):
    """What a dialogue has, of which its summaries may have no more."""

    runs: frozenset[tuple[str, ...]]
    """All `COPIED_RUN` morphemes in a row."""
    foreign_words: set[str]
    tags: set[str]
    broken_labels: list[str]
    """Labels such as `#Person 1#` or `Person1`, longest first: they are right as they are."""


@lru_cache(maxsize=1)
def _source(dialogue: str) -> _Source:
    words = morphemes(dialogue)
    labels = sorted(speakers(dialogue), key=len, reverse=True)
    return _Source(
        frozenset(words[start : start + COPIED_RUN] for start in range(len(words) - COPIED_RUN + 1)),
        foreign_words(dialogue),
        set(TAG.findall(dialogue)),
        [label for label in labels if not TAG.fullmatch(label) and BROKEN_TAG.search(label)],
    )


def _copied_share(summary: str, source: _Source) -> float:
    words = morphemes(summary)
    copied = {
        position
        for start in range(len(words) - COPIED_RUN + 1)
        if words[start : start + COPIED_RUN] in source.runs
        for position in range(start, start + COPIED_RUN)
    }
    return len(copied) / len(words) if words else 0.0


def _has_unknown_tags(summary: str, source: _Source) -> bool:
    for label in source.broken_labels:
        summary = summary.replace(label, " ")
    whole = not set(TAG.findall(summary)) <= source.tags
    return whole or bool(BROKEN_TAG.search(TAG.sub(" ", summary)))


def _repeats(words: list[str]) -> bool:
    runs = [tuple(words[start : start + LONG_RUN]) for start in range(len(words) - LONG_RUN + 1)]
    return len(set(runs)) < len(runs) or any(
        _stutters(words[start : start + length], words[start + length :])
        for length in range(1, LONGEST_STUTTER + 1)
        for start in range(len(words) - 2 * length + 1)
    )


def _stutters(phrase: list[str], after: list[str]) -> bool:
    """Whether the phrase comes again right after itself, and not by reduplication."""
    length = len(phrase)
    if length > 2:
        # `두 사람은 만난다 두 사람은 만난다.`
        return [word.strip(".,!?…") for word in phrase] == [word.strip(".,!?…") for word in after[:length]]
    if phrase != after[:length]:
        return False
    third = [word.strip(".,!?…") for word in after[length : 2 * length]]
    return phrase == third or not _may_be_doubled(phrase)


def _may_be_doubled(phrase: list[str]) -> bool:
    """`하나`, `천천히`, `한 명`; not `빵을`, `#Person1#은`, `본다.`, nor a clause."""
    if len(phrase) == 2:
        return bool(COUNTED.fullmatch(phrase[0])) and phrase[1].isalpha()
    (*_, last) = morphemes(phrase[0]) or ("",)
    return len(phrase) == 1 and phrase[0].isalpha() and (last == phrase[0] or last not in PARTICLES)
