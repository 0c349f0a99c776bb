"""ROUGE-1, -2 and -L of texts against references, by the rule of one of two libraries.

`rouge` 1.0.1, which the competition's baseline pins, counts n-grams as sets, ends sentences at full stops, takes the
union of the sentences' longest common subsequences, and adds 1e-8 under the fraction of F1. `rouge_score` 0.1.2,
Google's, counts n-grams as often as they stand there and knows no sentences.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from itertools import chain, islice, pairwise
from statistics import fmean
from typing import Any, Literal, NamedTuple, TypeVar

from yoyak.core.errors import UserError
from yoyak.metrics.morphemes import Tokenizer, morphemes
from yoyak.metrics.morphemes import describe as describe_tokenizer

Library = Literal["rouge", "rouge_score"]
ReferenceRule = Literal["mean", "max"]
Row = TypeVar("Row")
Result = TypeVar("Result")

PARALLEL_FROM = 3000
"""Pairs of texts from which on starting further processes takes less time than they save."""
ONE_PROCESS = ("okt", "komoran", "kkma", "kiwi")
"""Analysers that take too long to load, or too much memory, to be loaded once more for each core."""
CHUNKS_A_CORE = 8
"""Chunks of a stream that wait for a core at a time."""
AUDITED = 100
"""Pairs of a run that the library itself scores, too."""


class Metric(NamedTuple):
    """How a score is computed: it must be given with every score."""

    tokenizer: Tokenizer
    library: Library
    references: ReferenceRule
    """A row's score over several references: their mean, or the best of them, for each of the three figures."""

    def describe(self) -> dict[str, str]:
        counted = {
            "rouge": f"yoyak {version('yoyak')}",
            "rouge_score": f"rouge-score-rs {version('rouge-score-rs')}",
        }
        return {
            **describe_tokenizer(self.tokenizer),
            "library": {"rouge": "rouge 1.0.1", "rouge_score": "rouge_score 0.1.2"}[self.library],
            "counted_by": counted[self.library],
            "references": self.references,
        }


COMPETITION = Metric("mecab", "rouge", "mean")


class RowScore(NamedTuple):
    """ROUGE-1, -2 and -L F1 of one text, each in [0, 1]."""

    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815 - the Hugging Face convention's name

    @property
    def mean(self) -> float:
        return fmean(self)


FIGURES = RowScore._fields
"""Names of the three figures, as files and tables have them."""
ZERO = RowScore(0.0, 0.0, 0.0)
"""The score of a text that shares nothing with its reference."""


def score(texts: Sequence[str], references: Sequence[Sequence[str]], metric: Metric = COMPETITION) -> list[RowScore]:
    """A score a row. Many rows are shared among the machine's cores, where the analyser can be loaded twice."""
    rows = list(zip(texts, references, strict=True))
    pairs = sum(len(row_references) for _, row_references in rows)
    if pairs < PARALLEL_FROM or metric.tokenizer in ONE_PROCESS:
        return score_rows(rows, metric)
    return on_all_cores(partial(score_rows, metric=metric), rows, chunk=500)


def on_all_cores(work: Callable[[Sequence[Row]], list[Result]], rows: Sequence[Row], chunk: int) -> list[Result]:
    """The results of `work` on chunks of the rows, in the rows' order; the machine's cores share the chunks."""
    # Imported here: training scores too, a few rows at a time, and needs none of it.
    from joblib import Parallel, delayed

    chunks = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
    return [result for done in Parallel(n_jobs=-1)(delayed(work)(each) for each in chunks) for result in done]


def stream_on_all_cores(
    work: Callable[[Sequence[Row]], Result], rows: Iterable[Row], chunk: int, metric: Metric
) -> Iterator[tuple[Sequence[Row], Result]]:
    """Chunks of the rows with the result of `work` on each, in the rows' order.

    Many rows are shared among the machine's cores, some of them at a time: all of them may be larger than memory.
    """
    from joblib import Parallel, cpu_count, delayed

    rows = iter(rows)
    first = list(islice(rows, PARALLEL_FROM))
    chunks = _chunks(chain(first, rows), chunk)
    if len(first) < PARALLEL_FROM or metric.tokenizer in ONE_PROCESS:
        yield from ((each, work(each)) for each in chunks)
        return
    with Parallel(n_jobs=-1) as parallel:
        while some := list(islice(chunks, CHUNKS_A_CORE * cpu_count())):
            yield from zip(some, parallel(delayed(work)(each) for each in some), strict=True)


def _chunks(rows: Iterator[Row], size: int) -> Iterator[Sequence[Row]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def score_rows(rows: Sequence[tuple[str, Sequence[str]]], metric: Metric) -> list[RowScore]:
    return [
        _over_references([pair(text, reference, metric.tokenizer, metric.library) for reference in references], metric)
        for text, references in rows
    ]


def _over_references(scores: list[RowScore], metric: Metric) -> RowScore:
    if len(scores) == 1:
        return scores[0]
    combine = fmean if metric.references == "mean" else max
    return RowScore(*(combine(column) for column in zip(*scores, strict=True)))


@lru_cache(maxsize=2**12)
def pair(text: str, reference: str, tokenizer: Tokenizer, library: Library) -> RowScore:
    """F1 of a pair; 0 where a side has no token."""
    if library == "rouge":
        return _by_sets(_document(text, tokenizer), _document(reference, tokenizer))
    scores = _exact_scorer(tokenizer).score(reference, text)
    return RowScore(scores["rouge1"].fmeasure, scores["rouge2"].fmeasure, scores["rougeL"].fmeasure)


class _Morphemes:
    """The interface that `rouge_score` asks of a tokenizer; its own drops Hangul."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def tokenize(self, text: str) -> tuple[str, ...]:
        return morphemes(text, self.tokenizer)


@lru_cache
def _exact_scorer(tokenizer: Tokenizer) -> Any:
    from rouge_score_rs.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Morphemes(tokenizer))


# The rule of `rouge` 1.0.1, counted here: the library itself takes nine times as long (benchmarks/scoring.py),
# and ends in a RecursionError on long texts. `audit` and the tests hold it to the library's figures.


class _Document(NamedTuple):
    """A text as `rouge` sees it."""

    sentences: tuple[tuple[str, ...], ...]
    unigrams: frozenset[str]
    bigrams: frozenset[str]
    """Two words and a blank between them; across sentences, too. Not pairs: Python's garbage collector would walk
    through thousands of them again and again."""
    tokens: tuple[str, ...]


@lru_cache(maxsize=2**10)
def _document(text: str, tokenizer: Tokenizer) -> _Document:
    tokens = morphemes(text, tokenizer)
    parts = sentences(tokens)
    words = [word for sentence in parts for word in sentence]
    return _Document(parts, frozenset(words), frozenset(map(" ".join, pairwise(words))), tokens)


def sentences(tokens: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The sentences of a text as `rouge` sees them, each with a word at least; none where it has full stops alone."""
    # A full stop inside a token ends a sentence as well, and a blank between two of them is one: an empty word.
    return tuple([tuple(part.split()) or ("",) for part in " ".join(tokens).split(".") if part])


def _by_sets(text: _Document, reference: _Document) -> RowScore:
    if not text.sentences or not reference.sentences:
        return _where_the_library_raises(text, reference)
    shared: set[str] = set()
    for target in reference.sentences:
        for sentence in text.sentences:
            shared |= common_subsequence(target, sentence)
    words, reference_words = len(text.unigrams), len(reference.unigrams)
    return RowScore(
        _f1(len(text.unigrams & reference.unigrams), words, reference_words),
        _f1(len(text.bigrams & reference.bigrams), len(text.bigrams), len(reference.bigrams)),
        _f1(len(shared), words, reference_words),
    )


def _where_the_library_raises(text: _Document, reference: _Document) -> RowScore:
    """A side has no token, or full stops alone: nothing is shared, unless both sides are the same full stops."""
    if not text.tokens or text.tokens != reference.tokens:
        return ZERO
    return RowScore(1.0, float(len(text.tokens) > 1), 1.0)


def _f1(shared: int, text: int, reference: int) -> float:
    """With the library's own order of operations, so that its figures come out to the last bit."""
    precision = shared / text if text else 0.0
    recall = shared / reference if reference else 0.0
    return 2.0 * ((precision * recall) / (precision + recall + 1e-8))


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> set[str]:
    """The distinct words of that longest common subsequence which `rouge` finds; others may be as long.

    The table's rows are kept as bits, one for each column at which the length does not grow (Hyyrö 2004), so that a
    row costs a few operations on one integer; the way back through it is the library's.
    """
    growing_at: dict[str, int] = {}
    for column, word in enumerate(second):
        growing_at[word] = growing_at.get(word, 0) | 1 << column
    everywhere = (1 << len(second)) - 1
    row, table = everywhere, []
    for word in first:
        matches = row & growing_at.get(word, 0)
        row = (row + matches | row - matches) & everywhere
        table.append(row)
    found, line, column = set(), len(first), len(second)
    while line and column:
        if first[line - 1] == second[column - 1]:
            found.add(first[line - 1])
            line, column = line - 1, column - 1
        elif table[line - 1] >> column - 1 & 1:
            column -= 1
        else:
            line -= 1
    return found


def _library_can(texts: tuple[str, str], tokenizer: Tokenizer) -> bool:
    """Whether `rouge` neither raises on this pair nor recurses too deep."""
    documents = [_document(text, tokenizer) for text in texts]
    return all(document.sentences for document in documents) and sum(len(d.tokens) for d in documents) < 500


def audit(texts: Sequence[str], references: Sequence[Sequence[str]], metric: Metric) -> int:
    """Let the library `rouge` itself score some of the rows, and stop if it disagrees; how many pairs it scored."""
    pairs = ((text, reference) for text, row in zip(texts, references, strict=True) for reference in row)
    return audit_pairs(scorable(pairs, metric), metric)


def scorable(pairs: Iterable[tuple[str, str]], metric: Metric) -> list[tuple[str, str]]:
    """Those of the pairs that the library `rouge` can score, where it is the metric's."""
    return [texts for texts in pairs if _library_can(texts, metric.tokenizer)] if metric.library == "rouge" else []


def thinned(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs, or where these are far more than an audit takes, every other of them."""
    return pairs[::2] if len(pairs) > 100 * AUDITED else pairs


def spread(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """As many of the pairs as an audit takes, from first to last."""
    return list(pairs[:: max(1, len(pairs) // AUDITED)][:AUDITED])


def audit_pairs(pairs: Sequence[tuple[str, str]], metric: Metric) -> int:
    """Let the library `rouge` itself score some of the pairs, which it can, and stop if it disagrees; how many."""
    from rouge import Rouge

    library, chosen = Rouge(), spread(pairs)
    for text, reference in chosen:
        (theirs,) = library.get_scores(*(" ".join(morphemes(t, metric.tokenizer)) for t in (text, reference)))
        expected = [theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]
        ours = pair(text, reference, metric.tokenizer, metric.library)
        if max(abs(mine - its) for mine, its in zip(ours, expected, strict=True)) > 1e-9:
            raise UserError(
                f"yoyak scores {ours} where rouge 1.0.1 scores {expected}: a fault of yoyak; report {text!r}, "
                f"{reference!r}"
            )
    return len(chosen)
