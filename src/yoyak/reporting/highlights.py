"""Marks in a text for a reader: person tags, and words that a summary shares with its references."""

import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

from yoyak.core.text import TAG
from yoyak.metrics.morphemes import Tokenizer, morphemes, readable

TAG_STYLE = Path(__file__).with_name("tags.css")
COLOURS = 6
"""Number of colours of person tags in `TAG_STYLE`."""
WORD, PAIR = 1, 2
"""Levels of a mark: a morpheme that a reference has, too; one of two in a row that it has in a row."""
LONGEST_GAP = 8
"""Most characters but blanks between two morphemes; a form that is not in the text must not be found far behind."""

Piece = tuple[str, int] | tuple[str, int, str]
"""Some characters, how much of them is shared (0, `WORD` or `PAIR`), and of a tag its colour."""


def colour(tag: str) -> str:
    """The class in `tags.css` of a tag: by the person's number, or `mask` of a mask such as `#PhoneNumber#`."""
    number = re.search(r"\d+", tag)
    return f"person{int(number[0]) % COLOURS}" if number else "mask"


def pieces(text: str, references: Sequence[str] = (), tokenizer: Tokenizer = "mecab") -> list[Piece]:
    """The text cut where its marks change and round its tags; joined again, it is `readable(text)`."""
    text = readable(text)
    levels = _shared(text, references, tokenizer)
    tags: list[tuple[int, str]] = [(0, "")] * len(text)
    for tag in TAG.finditer(text):
        start, end = tag.span()
        # A tag is shared as a whole: its hashes and the word "Person" are in every reference.
        levels[start:end] = [min(levels[start:end])] * (end - start)
        tags[start:end] = [(start, colour(tag[0]))] * (end - start)
    runs = groupby(zip(text, levels, tags, strict=True), key=lambda place: place[1:])
    return [_piece("".join(letter for letter, *_ in run), level, name) for (level, (_, name)), run in runs]


def _piece(text: str, level: int, colour: str) -> Piece:
    return (text, level, colour) if colour else (text, level)


def _shared(text: str, references: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """How much of each character any of the references has, too: 0, `WORD` or `PAIR`."""
    levels = [0] * len(text)
    if not references:
        return levels
    expected = [_words(reference, tokenizer) for reference in references]
    words = {word for row in expected for word in row}
    pairs = {pair for row in expected for pair in pairwise(row)}
    places = [span for span in spans(text, tokenizer) if text[slice(*span)] != "."]
    for start, end in places:
        levels[start:end] = [WORD if text[start:end] in words else 0] * (end - start)
    for first, second in pairwise(places):
        if (text[slice(*first)], text[slice(*second)]) in pairs:
            levels[first[0] : second[1]] = [PAIR] * (second[1] - first[0])
    return levels


def _words(text: str, tokenizer: Tokenizer) -> list[str]:
    """Its morphemes but full stops: every summary has them, and `rouge` does not count them."""
    return [token for token in morphemes(text, tokenizer) if token != "."]


def spans(text: str, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    """Start and end of each morpheme in a readable text, in order; those that are not its own letters are left out.

    Kiwi, for one, takes `했` for `하` and `었`.
    """
    found, end = [], 0
    for token in morphemes(text, tokenizer):
        blanks = len(text[end:]) - len(text[end:].lstrip())
        start = text.find(token, end, end + blanks + LONGEST_GAP + len(token))
        if start >= 0:
            end = start + len(token)
            found.append((start, end))
    return found
