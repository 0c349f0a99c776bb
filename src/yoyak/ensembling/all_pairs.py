"""ROUGE of each of many texts against each other one, by the rule of `rouge` 1.0.1: all that `rouge.pair` would give.

Shared words are counted by products of matrices. The longest common subsequences of all pairs of sentences are found at
once, a word of the one sentence a step, with a bit for each word of the other. Of several longest ones it is the
library's, by its way back through the tables: words are counted as a set, and others may have more or fewer.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats
from yoyak.metrics import rouge

Numbers = NDArray[np.int64]
Bits = NDArray[np.uint64]

WIDTH = 64
"""Bits of a machine word."""
TOGETHER = 2**13
"""Machine words of the tables that are filled at once, a step: few enough for a core's own cache."""
ZERO, ONE, ALL = np.uint64(0), np.uint64(1), np.uint64(2**WIDTH - 1)
POWERS = [np.uint64(1 << power) for power in range(6)]


def mean_f1(texts: Sequence[str]) -> Floats:
    """Mean of ROUGE-1, -2 and -L F1, in [0, 1], of each text, by line, against each as its reference, by column: shape
    (texts, texts). Texts are counted as the competition counts them, by MeCab's morphemes."""
    tokenizer, library, _ = rouge.COMPETITION
    documents = [rouge.document(text, tokenizer) for text in texts]
    # Texts of the same morphemes score alike.
    distinct = {document.tokens: document for document in documents}
    places = {tokens: place for place, tokens in enumerate(distinct)}
    scores = np.zeros((len(distinct), len(distinct)))
    if comparable := {places[each.tokens]: each.sentences for each in distinct.values() if each.sentences}:
        scores[np.ix_(list(comparable), list(comparable))] = _mean_f1(list(comparable.values()))
    for text, document in zip(texts, documents, strict=True):
        if not document.sentences:
            # Nothing, or full stops alone: like itself at most.
            scores[places[document.tokens], places[document.tokens]] = rouge.pair(text, text, tokenizer, library).mean
    lines = [places[document.tokens] for document in documents]
    return scores[np.ix_(lines, lines)]


def _mean_f1(texts: Sequence[Sequence[Sequence[str]]]) -> Floats:
    """The same of texts as sentences of words, one or more of them."""
    numbers: dict[str, int] = {}
    numbered = [
        [tuple([numbers.setdefault(word, len(numbers)) for word in sentence]) for sentence in sentences]
        for sentences in texts
    ]
    words = [np.concatenate(sentences) for sentences in numbered]
    shared, counts = _shared(words)
    shared_pairs, pair_counts = _shared([each[:-1] * len(numbers) + each[1:] for each in words])
    in_subsequences = _in_subsequences(numbered, len(numbers))
    return (_f1(shared, counts) + _f1(shared_pairs, pair_counts) + _f1(in_subsequences, counts)) / 3


def _f1(shared: Floats, counts: Floats) -> Floats:
    """As `rouge` computes it, of shape (texts, texts)."""
    counts = np.maximum(counts, 1)
    precision, recall = shared / counts[:, np.newaxis], shared / counts
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def _shared(texts: Sequence[Numbers]) -> tuple[Floats, Floats]:
    """How many distinct numbers each two texts share, shape (texts, texts), and how many each has, shape (texts,)."""
    distinct, columns = np.unique(np.concatenate(texts), return_inverse=True)
    lines = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    present = np.zeros((len(texts), len(distinct)), dtype=np.float32)
    present[lines, columns] = 1
    return (present @ present.T).astype(np.float64), present.sum(axis=1, dtype=np.float64)


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
    by_text = np.bitwise_or.reduceat(found[:, :, of_texts], starts, axis=2)
    by_pair = np.bitwise_or.reduceat(by_text[:, of_references], starts, axis=1)
    counts: Floats = np.bitwise_count(by_pair).sum(axis=0, dtype=np.float64)
    return counts.T


def _found(
    firsts: Sequence[tuple[Sequence[int], Sequence[int]]], seconds: Sequence[Sequence[int]], vocabulary: int
) -> Bits:
    """The words that `rouge.common_subsequence` finds, as bits: shape (machine words, firsts, seconds).

    A first sentence is its words and, for each, the bit that stands for it.
    """
    standing = _standing(seconds, vocabulary)
    planes = 1 + max(max(bits) for _, bits in firsts) // WIDTH
    found = np.empty((planes, len(firsts), len(seconds)), dtype=np.uint64)
    # Sentences of like length are taken together, for all take as many steps as the longest.
    order = sorted(range(len(firsts)), key=lambda place: len(firsts[place][0]))
    size = max(1, TOGETHER // (len(seconds) * len(standing)))
    for start in range(0, len(order), size):
        block = order[start : start + size]
        words, bits = _columns([firsts[place] for place in block], planes, vocabulary)
        found[:, block] = _way_back(*_tables(standing[:, words]), bits)
    return found


def _standing(sentences: Sequence[Sequence[int]], vocabulary: int) -> Bits:
    """A bit for each place of a sentence at which a word stands: shape (machine words, vocabulary + 1, sentences). The
    last word stands nowhere."""
    lengths = [len(sentence) for sentence in sentences]
    places = np.concatenate([np.arange(length) for length in lengths])
    standing = np.zeros((1 + max(lengths) // WIDTH, vocabulary + 1, len(sentences)), dtype=np.uint64)
    where = places // WIDTH, np.concatenate(sentences), np.repeat(np.arange(len(sentences)), lengths)
    np.bitwise_or.at(standing, where, _bit(places))
    return standing


def _bit(places: Numbers) -> Bits:
    """A machine word in which the bit of each place is set."""
    return ONE << (places % WIDTH).astype(np.uint64)


def _columns(
    sentences: Sequence[tuple[Sequence[int], Sequence[int]]], planes: int, vocabulary: int
) -> tuple[Numbers, Bits]:
    """The sentences' words, a column each, shape (steps, sentences), and the bits that stand for them, shape (steps,
    planes, sentences, 1).

    Above shorter ones is the word that stands nowhere, at which no table grows.
    """
    steps = max(len(words) for words, _ in sentences)
    columns = np.full((steps, len(sentences)), vocabulary)
    bits = np.zeros((steps, planes, len(sentences), 1), dtype=np.uint64)
    for column, (words, numbers) in enumerate(sentences):
        above = steps - len(words)
        columns[above:, column] = words
        of_words = np.array(numbers)
        bits[np.arange(above, steps), of_words // WIDTH, column, 0] = _bit(of_words)
    return columns, bits


def _tables(matches: Bits) -> tuple[Bits, Bits]:
    """`matches`, and where the way back stops: there, and where the length of the longest common subsequence grows, by
    Hyyrö's addition (2004). Shape of each: (machine words, steps, firsts, seconds)."""
    stops = np.empty_like(matches)
    rows = np.full_like(matches[:, 0], ALL)
    for step in range(matches.shape[1]):
        carry = None
        for row, match, stop in zip(rows, matches[:, step], stops[:, step], strict=True):
            common = row & match
            added = row + common
            if len(rows) > 1:
                over = added < row
                if carry is not None:
                    added += carry
                    over |= added < carry
                carry = over
            np.bitwise_or(added, row ^ common, out=row)
            np.bitwise_or(~row, match, out=stop)
    return matches, stops


def _way_back(matches: Bits, stops: Bits, bits: Bits) -> Bits:
    """The bits of the words on the way back through the tables: shape (planes, firsts, seconds).

    A step goes left to the next stop. A match there is taken, and the next step begins beside it.
    """
    ahead = np.full_like(matches[:, 0], ALL)
    """Columns that the way may still reach: all bits up to one of them."""
    found = np.zeros((bits.shape[1], *ahead.shape[1:]), dtype=np.uint64)
    for step in reversed(range(matches.shape[1])):
        stopped = None
        for left, match, stop in zip(ahead[::-1], matches[::-1, step], stops[::-1, step], strict=True):
            stop_ahead = stop & left
            up_to = _filled(stop_ahead)
            taken = (up_to ^ up_to >> ONE) & match
            if stopped is not None:
                # Columns below a stop all stay ahead.
                up_to |= stopped
                taken &= ~stopped
            if len(ahead) > 1:
                here = np.where(stop_ahead, ALL, ZERO)
                stopped = here if stopped is None else here | stopped
            np.bitwise_xor(up_to, taken, out=left)
            for words, own in zip(found, bits[step], strict=True):
                words |= (taken != 0) * own
    return found


def _filled(bits: Bits) -> Bits:
    """The highest bit and all below it."""
    bits = bits | bits >> ONE
    for power in POWERS[1:]:
        bits |= bits >> power
    return bits
