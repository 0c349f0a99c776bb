"""Who speaks in a dialogue: the labels before its turns, in the forms in which people and corpora write them.

`#Person1#:` is the competition's, and wherever it stands, a turn begins. Other labels begin lines. How sure their form
is decides how much else in the dialogue must agree, so that `참고:`, `10:30` and `https:` make no speakers.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

MASKS = "PhoneNumber|Address|DateOfBirth|CardNumber|CarNumber|Email|PassportNumber|SSN|PersonName|Name"
"""Tags that stand for what was taken out of a text; nobody speaks under them."""

_LEAD = r"(?:(?:[-*•>]|#{1,6}|\d{1,3}[.)]|\[?(?:오[전후] ?)?\d{1,2}:\d\d(?::\d\d)?\]?) )?"
"""A bullet, a number or a time before the label."""
_OPEN = r"(?P<bold>\*{1,3}|__)?"
_COLON = r"(?(bold)(?P<closed>(?P=bold)\s*[:：]|\s*[:：](?P=bold))|(?!))|\s*[:：]"
"""Markdown's bold ends before or behind the colon, or with the line."""
_BLANK = r"(?(bold)(?P<closed>(?P=bold))|)(?=\s)"
_PERSON = r"#Person\d+#"
_HASH = rf"# ?(?!(?i:{MASKS}) ?#)[^\W_][\w.-]{{0,20}}(?: [\w.-]{{1,10}})? ?#"
_ROLE = (
    r"(?:화자|사람|인물|참[석여가]자|발[화언]자|(?i:persons?|speakers?|spk|users?|agent|participant|SD|[ps]))[ _-]?\d+"
)
_LETTER = r"[^\W\d_]"
_NUMBERED = r"(?!오[전후]|새벽|아침|점심|저녁|밤|낮)[^\W\d_]{1,12}[ _-]?\d{1,10}"
_NAME = r"(?!오[전후] ?\d)[^\W\d_][\w.·&-]{0,19}(?: [\w.·&-]{1,12}){0,2}(?: ?\([^()]{1,12}\))?"
_NO_TIME = r"(?:(?<!\d[:：])|(?!\d))"
"""A colon between two digits is of a time or a ratio."""
_NO_PATH = r"(?![/\\)|]|[DPp]\b)"
"""After a colon: `https://`, `C:\\` and `:)` are no labels."""


def _form(label: str, after: str = _COLON, then: str = "", lead: str = _LEAD) -> re.Pattern[str]:
    return re.compile(rf"(?P<lead>{lead}){_OPEN}(?P<label>{label})(?:{after}){then}")


_ANYWHERE = [_form(_PERSON, lead=""), _form(_HASH, lead=r"(?<![\w#])")]
"""`#Person1#:` in the middle of a line or parted from its colon, and `#사람1#:`, `#Person 1#:`, `#Alex#:`."""
_HASHES = [_form(_HASH), _form(_PERSON, _BLANK)]
"""In a dialogue with such labels; at one of them the colon was forgotten."""
_SURE = [
    _form(_ROLE, then=_NO_PATH),
    _form(_LETTER, then=_NO_PATH),
    _form(_NUMBERED, then=_NO_TIME + _NO_PATH),
    _form(rf"[\[【<](?:{_ROLE}|{_LETTER})[\]】>]", rf"{_COLON}|(?=\s)"),
    _form(_HASH, _BLANK),
]
"""Forms that are labels and nothing else."""
_PERHAPS = [
    _form(_ROLE, _BLANK),
    _form(_NAME, then=_NO_TIME + _NO_PATH),
    _form(rf"[\[【<]{_NAME}[\]】>]", rf"{_COLON}|(?=\s)"),
    _form(r"\d{1,3}", then=rf"(?!\d){_NO_PATH}"),
    _form(r"(?:\d{1,3}|[A-Z])[.)]", _BLANK, lead=""),
]
"""Forms that are labels where most lines have one."""


class Labelled(NamedTuple):
    """A line that begins with its speaker's label."""

    speaker: str
    """`#Person1#`, `화자1`, `A`: the label without its colon."""
    line: str
    """The line with its label in one form: no bold, no blank before the colon, and that no full-width one."""
    said: str
    """What follows the label."""


def begin_turns(text: str) -> str:
    """The text with a line break before each `#Person1#:`, and before such labels of other names."""
    for form in _ANYWHERE:
        text = form.sub(lambda match: f"\n{_in_one_form(match)}", text)
    return text


def read(lines: Sequence[str]) -> list[Labelled | None]:
    """The label of each line, None where it has none; of no line at all where the dialogue has no labels we know.

    `lines` are trimmed, and have gone through `begin_turns`.
    """
    hashes = [_first(line, _HASHES) for line in lines]
    if any(label and label.line != label.speaker + label.said for label in hashes):
        return hashes
    sure = [_first(line, _SURE) for line in lines]
    each = [label or _first(line, _PERHAPS) for label, line in zip(sure, lines, strict=True)]
    named = Counter(label.speaker for label in each if label)
    if len(lines) > 1 and all(each) and not _counts_up(named):
        return each
    if (count := len(lines) - sure.count(None)) > 1 and (sure[0] or 2 * count >= len(lines)):
        return sure
    # What stands before a colon once, as in `참고: …`, is found in any text; a speaker speaks again.
    if 2 * named.total() >= len(lines) and max(named.values(), default=0) > 1:
        return each
    return [None] * len(lines)


def speakers(dialogue: str) -> set[str]:
    """The labels of those who speak in a cleaned dialogue, a turn a line: `{"#Person1#", "#Person2#"}`."""
    return {label.speaker for label in read(dialogue.split("\n")) if label}


def _first(line: str, forms: Sequence[re.Pattern[str]]) -> Labelled | None:
    match = next((match for form in forms if (match := form.match(line))), None)
    if match is None:
        return None
    said = line[match.end() :]
    return Labelled(match["label"], _in_one_form(match) + said, said)


def _in_one_form(match: re.Match[str]) -> str:
    bold = "" if match["closed"] else match["bold"] or ""
    colon = ":" if re.search("[:：]", match[0][match.end("label") - match.start() :]) else ""
    return f"{match['lead']}{bold}{match['label']}{colon}"


def _counts_up(names: Counter[str]) -> bool:
    """Whether they are the lines' numbers: `1.`, `2.`, `3.`, …"""
    return max(names.values()) == 1 and all(name.rstrip(".)").isdigit() for name in names)
