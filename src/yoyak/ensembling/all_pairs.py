"""ROUGE of each of many texts against each other one, by the rule of `rouge` 1.0.1: all that `rouge.pair` would give.

Shared words are counted by products of matrices. The longest common subsequences of all pairs of sentences are found at
once, a word of the one sentence a step, with a bit for each word of the other. Of several longest ones it is the
library's, by its way back through the tables: words are counted as a set, and others may have more or fewer.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes

Numbers = NDArray[np.int64]
Bits = NDArray[np.unsignedinteger[Any]]
"""Machine words, a bit for each word of a sentence or text."""

NARROW, WIDE = np.dtype(np.uint32), np.dtype(np.uint64)
TOGETHER = 2**14
"""Machine words of the tables that are filled at once, a step: few enough for a core's own cache."""


def mean_f1(texts: Sequence[str]) -> Floats:
    """Mean of ROUGE-1, -2 and -L F1, in [0, 1], of each text, by line, against each as its reference, by column: shape
    (texts, texts). Texts are counted as the competition counts them, by MeCab's morphemes."""
    tokenizer, library, _ = rouge.COMPETITION
    tokens = [morphemes(text, tokenizer) for text in texts]
    # Texts of the same morphemes score alike; those without sentences come last.
    distinct = {each: rouge.sentences(each) for each in tokens}
    comparable = {each: sentences for each, sentences in distinct.items() if sentences}
    places = {each: place for place, each in enumerate(comparable | distinct)}
    scores = np.zeros((len(distinct), len(distinct)))
    if comparable:
        scores[: len(comparable), : len(comparable)] = _mean_f1(list(comparable.values()))
    for text, each in zip(texts, tokens, strict=True):
        if each not in comparable:
            # Nothing, or full stops alone: like itself at most.
            scores[places[each], places[each]] = rouge.pair(text, text, tokenizer, library).mean
    lines = np.array([places[each] for each in tokens], dtype=np.int64)
    return scores.take(lines, axis=0).take(lines, axis=1)


def _mean_f1(texts: Sequence[Sequence[Sequence[str]]]) -> Floats:
    """The same of texts as sentences of words, one or more of them."""
    numbers: dict[str, int] = {}
    numbered = [
        [tuple([numbers.setdefault(word, len(numbers)) for word in sentence]) for sentence in sentences]
        for sentences in texts
    ]
    words = [np.concatenate(sentences) for sentences in numbered]
    shared = _shared(words)
    shared_pairs = _shared([each[:-1] * len(numbers) + each[1:] for each in words])
    counts, pair_counts = shared.diagonal(), shared_pairs.diagonal()
    in_subsequences = _in_subsequences(numbered, len(numbers))
    return (_f1(shared, counts) + _f1(shared_pairs, pair_counts) + _f1(in_subsequences, counts)) / 3


def _f1(shared: Floats, counts: Floats) -> Floats:
    """As `rouge` computes it, of shape (texts, texts)."""
    counts = np.maximum(counts, 1)
    precision, recall = shared / counts[:, np.newaxis], shared / counts
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def _shared(texts: Sequence[Numbers]) -> Floats:
    """How many distinct numbers each two texts share, and each with itself: shape (texts, texts)."""
    lines = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    _, columns, times = np.unique(np.concatenate(texts), return_inverse=True, return_counts=True)
    # What stands only once, many pairs of words, no two texts share.
    again = times > 1
    alone = np.bincount(lines[~again[columns]], minlength=len(texts))
    present = np.zeros((len(texts), again.sum()), dtype=np.float32)
    present[lines[again[columns]], (np.cumsum(again) - 1)[columns[again[columns]]]] = 1
    shared = (present @ present.T).astype(np.float64)
    np.fill_diagonal(shared, shared.diagonal() + alone)
    return shared


def _in_subsequences(texts: Sequence[Sequence[tuple[int, ...]]], vocabulary: int) -> Floats:
    """How many distinct words are in the longest common subsequences of all sentences of a text, by line, with all of a
    reference, by column: shape (texts, texts)."""
    seconds: dict[tuple[int, ...], int] = {}
    firsts: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    of_texts: list[int] = []
    of_references: list[int] = []
    starts: list[int] = []
    for text in texts:
        starts.append(len(of_texts))
        bits: dict[int, int] = {}
        for sentence in text:
            own = tuple([bits.setdefault(word, len(bits)) for word in sentence])
            of_texts.append(seconds.setdefault(sentence, len(seconds)))
            of_references.append(firsts.setdefault((sentence, own), len(firsts)))
    found = _found(list(firsts), list(seconds), vocabulary)
    # A word has one bit in all sentences of a reference, so that their union is one of bits.
    by_reference = np.bitwise_or.reduceat(found.take(of_references, axis=1), starts, axis=1)
    by_sentence = np.ascontiguousarray(by_reference.transpose(0, 2, 1))
    by_pair = np.bitwise_or.reduceat(by_sentence.take(of_texts, axis=1), starts, axis=1)
    counts: Floats = np.bitwise_count(by_pair).sum(axis=0, dtype=np.float64)
    return counts


def _found(
    firsts: Sequence[tuple[Sequence[int], Sequence[int]]], seconds: Sequence[Sequence[int]], vocabulary: int
) -> Bits:
    """The words that `rouge.common_subsequence` finds, as bits: shape (machine words, firsts, seconds).

    A first sentence is its words and, for each, the bit that stands for it.
    """
    lengths = np.array([len(words) for words, _ in firsts])
    words, bits = _steps(firsts, lengths, vocabulary)
    found = np.empty((bits.shape[1], len(firsts), len(seconds)), dtype=WIDE)
    short = np.array([len(sentence) for sentence in seconds]) <= _width(NARROW)
    # Sentences of like length are taken together, for all take as many steps as the longest.
    order = np.argsort(lengths, kind="stable")
    for dtype, columns in ((NARROW, np.flatnonzero(short)), (WIDE, np.flatnonzero(~short))):
        if not len(columns):
            continue
        standing = _standing([seconds[column] for column in columns.tolist()], vocabulary, dtype)
        together = max(1, TOGETHER // standing[:, 0].size)
        # Kept for all blocks: new memory would cost more than what is computed in it.
        memory = np.empty((2, together * len(words) * standing[:, 0].size), dtype=dtype)
        for start in range(0, len(order), together):
            block = order[start : start + together]
            last = slice(-int(lengths[block[-1]]), None)
            stepped = words[last, block]
            shape = (len(standing), *stepped.shape, len(columns))
            matches, stops = memory[:, : math.prod(shape)].reshape(2, *shape)
            np.take(standing, stepped, axis=1, out=matches, mode="clip")
            _find_stops(matches, stops)
            own = bits[last, :, block]
            narrowed = own.astype(NARROW) if own.max() <= np.iinfo(NARROW).max else own
            found[:, block[:, np.newaxis], columns] = _way_back(matches, stops, narrowed)
    return found


def _steps(
    sentences: Sequence[tuple[Sequence[int], Sequence[int]]], lengths: Numbers, vocabulary: int
) -> tuple[Numbers, Bits]:
    """The sentences' words, a column each, shape (steps, sentences), and the bits that stand for them, shape (steps,
    machine words, sentences, 1).

    Above shorter ones is the word that stands nowhere, at which no table grows.
    """
    columns = np.repeat(np.arange(len(sentences)), lengths)
    lines = lengths.max() - np.repeat(lengths, lengths) + _places(lengths)
    words = np.full((lengths.max(), len(sentences)), vocabulary)
    words[lines, columns] = np.concatenate([own for own, _ in sentences])
    numbers = np.concatenate([own for _, own in sentences])
    planes, width = 1 + numbers.max() // _width(WIDE), _width(WIDE)
    bits = np.zeros((lengths.max(), planes, len(sentences), 1), dtype=WIDE)
    bits[lines, numbers // width, columns, 0] = _bit(numbers, WIDE)
    return words, bits


def _standing(sentences: Sequence[Sequence[int]], vocabulary: int, dtype: np.dtype[Any]) -> Bits:
    """A bit for each place of a sentence at which a word stands: shape (machine words, vocabulary + 1, sentences). The
    last word stands nowhere."""
    lengths = np.array([len(sentence) for sentence in sentences])
    places, width = _places(lengths), _width(dtype)
    standing = np.zeros((math.ceil(lengths.max() / width), vocabulary + 1, len(sentences)), dtype=dtype)
    where = places // width, np.concatenate(sentences), np.repeat(np.arange(len(sentences)), lengths)
    np.bitwise_or.at(standing, where, _bit(places, dtype))
    return standing


def _places(lengths: Numbers) -> Numbers:
    """0, 1, 2 and so on for each of the lengths, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _bit(places: Numbers, dtype: np.dtype[Any]) -> Bits:
    """A machine word in which the bit of each place is set."""
    bits: Bits = np.left_shift(dtype.type(1), (places % _width(dtype)).astype(dtype))
    return bits


def _width(dtype: np.dtype[Any]) -> int:
    return 8 * dtype.itemsize


def _find_stops(matches: Bits, stops: Bits) -> None:
    """Fill in where the way back stops: at matches, and where the length of the longest common subsequence grows, by
    Hyyrö's addition (2004). Shape of both: (machine words, steps, firsts, seconds)."""
    rows = np.full_like(matches[:, 0], np.iinfo(matches.dtype).max)
    common, added = np.empty_like(rows[0]), np.empty_like(rows[0])
    for step in range(matches.shape[1]):
        carry = None
        for row, match, stop in zip(rows, matches[:, step], stops[:, step], strict=True):
            np.bitwise_and(row, match, out=common)
            np.add(row, common, out=added)
            if len(rows) > 1:
                over = added < row
                if carry is not None:
                    added += carry
                    over |= added < carry
                carry = over
            row ^= common
            row |= added
            np.invert(row, out=stop)
            stop |= match


def _way_back(matches: Bits, stops: Bits, bits: Bits) -> Bits:
    """The bits of the words on the way back through the tables: shape (planes, firsts, seconds).

    A step goes left to the next stop. A match there is taken, and the next step begins beside it.
    """
    powers = [1 << power for power in range(_width(matches.dtype).bit_length() - 1)]
    ahead = np.full_like(matches[:, 0], np.iinfo(matches.dtype).max)
    """Columns that the way may still reach: all bits up to one of them."""
    found = np.zeros((bits.shape[1], *ahead.shape[1:]), dtype=bits.dtype)
    up_to, taken, shifted = (np.empty_like(ahead[0]) for _ in range(3))
    hits, word = np.empty_like(found[0]), np.empty_like(found[0])
    for step in reversed(range(matches.shape[1])):
        stopped = None
        for left, match, stop in zip(ahead[::-1], matches[::-1, step], stops[::-1, step], strict=True):
            np.bitwise_and(stop, left, out=up_to)
            stops_here = up_to != 0 if len(ahead) > 1 else None
            # The highest bit, and all below it.
            for power in powers:
                np.right_shift(up_to, power, out=shifted)
                up_to |= shifted
            np.right_shift(up_to, 1, out=taken)
            taken ^= up_to
            taken &= match
            if stopped is not None:
                # It is in a higher machine word that the way has stopped.
                taken[stopped] = 0
                np.copyto(up_to, left, where=stopped)
            np.bitwise_xor(up_to, taken, out=left)
            stopped = stops_here if stopped is None else stopped | stops_here
            # All bits where a word is taken: to multiply flags takes several times as long.
            np.sign(taken, out=hits)
            np.negative(hits, out=hits)
            for words, own in zip(found, bits[step], strict=True):
                np.bitwise_and(hits, own, out=word)
                words |= word
    return found
