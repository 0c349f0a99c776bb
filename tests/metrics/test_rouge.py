"""ROUGE is that of the two libraries, figure by figure, and gives a number for any text."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from sample import sample_texts

from yoyak.core.errors import UserError
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes
from yoyak.metrics.rouge import COMPETITION, Library, Metric, ReferenceRule, RowScore

LIBRARIES = ("rouge", "rouge_score")
WORDS = st.sampled_from(["가", "나", "비가", "온다", "우산", ".", "..", "…", "?", "#Person1#", "a.b", "3.5", "ㅋㅋ"])
TEXT = st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=12).map("".join) | st.text()
ANYTHING = (
    TEXT | st.text(st.characters(exclude_categories=())) | st.sampled_from(["", " ", ".", "\0", "\ud800", "\x1c"])
)
"""Lone surrogates included."""
library = pytest.mark.parametrize("library", LIBRARIES)


def one(text: str, *references: str, library: Library = "rouge", rule: ReferenceRule = "mean") -> RowScore:
    (score,) = rouge.score([text], [references], Metric("mecab", library, rule))
    return score


def pairs(count: int) -> list[tuple[str, str]]:
    """Texts of the sample data: unlike each other, nearly alike, short against long, and of several sentences."""
    texts = sample_texts()
    draw = random.Random(0)
    unlike = [(draw.choice(texts), draw.choice(texts)) for _ in range(count // 2)]
    alike = [(text[: len(text) * 2 // 3], text) for text in draw.choices(texts, k=count // 4)]
    shuffled = []
    for text in draw.choices(texts, k=count - len(unlike) - len(alike)):
        words = text.replace(",", ".").split()
        shuffled.append((" ".join(draw.sample(words, len(words))), text))
    return [*unlike, *alike, *shuffled]


def joined(text: str) -> str:
    return " ".join(morphemes(text))


class Morphemes:
    """A tokenizer as `rouge_score` wants it."""

    def tokenize(self, text: str) -> list[str]:
        return list(morphemes(text))


def by_rouge(text: str, reference: str) -> list[float]:
    (scores,) = Rouge().get_scores(joined(text), joined(reference))
    return [scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]


def by_rouge_score(text: str, reference: str) -> list[float]:
    scores = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Morphemes()).score(reference, text)
    return [scores[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")]


def by_hand(text: str, reference: str) -> list[float]:
    """The rule of `rouge_score` from its definition: clipped counts, and the longest common subsequence by a table."""

    def f1(shared: int, ours: int, theirs: int) -> float:
        return 2 * shared / (ours + theirs) if shared else 0.0

    def counts(words: tuple[str, ...], length: int) -> Counter[tuple[str, ...]]:
        return Counter(words[start : start + length] for start in range(len(words) - length + 1))

    words, target = morphemes(text), morphemes(reference)
    figures = []
    for length in (1, 2):
        ours, theirs = counts(words, length), counts(target, length)
        figures.append(f1((ours & theirs).total(), ours.total(), theirs.total()))
    table = np.zeros((len(words) + 1, len(target) + 1), dtype=int)
    for row, word in enumerate(words, start=1):
        for column, other in enumerate(target, start=1):
            same = table[row - 1, column - 1] + 1
            table[row, column] = same if word == other else max(table[row - 1, column], table[row, column - 1])
    return [*figures, f1(int(table[-1, -1]), len(words), len(target))]


def test_a_thousand_pairs_as_by_the_library_rouge() -> None:
    """To the last bit. Texts of more tokens than its recursion bears are left to `test_long_texts`."""
    chosen = [pair for pair in pairs(1200) if sum(len(morphemes(text)) for text in pair) < 600][:1000]
    assert len(chosen) == 1000
    ours = rouge.score([text for text, _ in chosen], [(reference,) for _, reference in chosen])
    assert [list(score) for score in ours] == [by_rouge(*pair) for pair in chosen]
    assert len({score.rougeL for score in ours}) > 300


def test_a_thousand_pairs_as_by_the_library_rouge_score() -> None:
    chosen = [tuple(text[:160] for text in pair) for pair in pairs(1000)]
    metric = Metric("mecab", "rouge_score", "mean")
    ours = rouge.score([text for text, _ in chosen], [(reference,) for _, reference in chosen], metric)
    for score, pair in zip(ours, chosen, strict=True):
        assert list(score) == pytest.approx(by_rouge_score(*pair), abs=1e-9)
        assert list(score) == pytest.approx(by_hand(*pair), abs=1e-9)


@settings(max_examples=500)
@given(TEXT, TEXT)
def test_any_score_that_rouge_can_give_is_its_score(text: str, reference: str) -> None:
    try:
        expected = by_rouge(text, reference)
    except ValueError:
        assert one(text, reference) in (RowScore(0, 0, 0), RowScore(1, 0, 1), RowScore(1, 1, 1))
    else:
        assert list(one(text, reference)) == expected


@settings(max_examples=300)
@given(TEXT, TEXT)
def test_rouge_score_by_its_definition(text: str, reference: str) -> None:
    assert list(one(text, reference, library="rouge_score")) == pytest.approx(by_hand(text, reference), abs=1e-9)


def test_sets_and_counts_differ() -> None:
    """Three of three words, of which the reference has one twice."""
    assert one("비 가 온다", "비 가 비 온다").rouge1 == pytest.approx(1, abs=1e-7)
    assert one("비 가 온다", "비 가 비 온다", library="rouge_score").rouge1 == pytest.approx(6 / 7)


def test_figures_of_a_pair_by_hand() -> None:
    """Three of 3 and 4 words, one of 2 and 3 pairs of words, and three in the same order."""
    text, reference = "비 가 온다", "비 가 안 온다"
    assert morphemes(text) == ("비", "가", "온다")
    assert morphemes(reference) == ("비", "가", "안", "온다")
    assert list(one(text, reference)) == pytest.approx([6 / 7, 2 / 5, 6 / 7], abs=1e-7)


@library
@settings(max_examples=300)
@given(text=ANYTHING, reference=ANYTHING)
def test_any_text_gets_a_number(library: Library, text: str, reference: str) -> None:
    for figure in one(text, reference, library=library):
        assert 0 <= figure <= 1


@library
@settings(max_examples=300)
@given(text=ANYTHING)
def test_a_text_against_itself(library: Library, text: str) -> None:
    """A text of one token has no pair of them: its ROUGE-2 is 0."""
    tokens = morphemes(text)
    score = one(text, text, library=library)
    assert min(score.rouge1, score.rougeL) >= 1 - 1e-8 if tokens else score == (0, 0, 0)
    if len(" ".join(tokens).replace(".", " ").split()) >= 2:
        assert score.rouge2 >= 1 - 1e-8


@library
@pytest.mark.parametrize("empty", ["", " ", "\0", "\ud800", "\u3000"])
def test_nothing_scores_zero(empty: str, library: Library) -> None:
    assert one(empty, "비가 온다", library=library) == one("비가 온다", empty, library=library) == (0, 0, 0)
    assert one(empty, empty, library=library) == (0, 0, 0)


def test_full_stops_alone() -> None:
    """On which `rouge` raises: they are like themselves, and like nothing else."""
    assert one(".", "비가 온다.") == one("비가 온다.", ".") == (0, 0, 0)
    assert one(".", ".") == (1, 0, 1)


@library
@settings(max_examples=300)
@given(text=TEXT, references=st.lists(TEXT, min_size=1, max_size=3), more=TEXT)
def test_one_more_reference_never_lowers_the_maximum(
    library: Library, text: str, references: list[str], more: str
) -> None:
    before = one(text, *references, rule="max", library=library)
    after = one(text, *references, more, rule="max", library=library)
    assert all(new >= old for old, new in zip(before, after, strict=True))


@library
@given(text=TEXT, references=st.lists(TEXT, min_size=1, max_size=3))
def test_mean_and_maximum_are_of_the_single_references(library: Library, text: str, references: list[str]) -> None:
    singles = np.array([one(text, reference, library=library) for reference in references])
    assert one(text, *references, rule="mean", library=library) == pytest.approx(singles.mean(axis=0))
    assert one(text, *references, rule="max", library=library) == pytest.approx(singles.max(axis=0))
    assert one(text, *reversed(references)) == pytest.approx(one(text, *references))


def test_long_texts() -> None:
    """`rouge` alone ends in a RecursionError: one frame a token of both sides."""
    text, other = " ".join(["가"] * 1500), " ".join([*["나"] * 499, "가"])
    assert (len(morphemes(text)), len(morphemes(other))) == (1500, 500)
    with pytest.raises(RecursionError):
        by_rouge(text, other)
    assert list(one(text, other)) == pytest.approx([2 / 3, 0, 2 / 3])


def test_many_rows_on_all_cores_score_as_one_by_one() -> None:
    chosen = [tuple(text[:60] for text in pair) for pair in pairs(rouge.PARALLEL_FROM)]
    texts, references = [text for text, _ in chosen], [(reference,) for _, reference in chosen]
    alone = [score for pair in zip(texts, references, strict=True) for score in rouge.score([pair[0]], [pair[1]])]
    assert rouge.score(texts, references) == alone


def test_tokens_matter() -> None:
    text, reference = "비가 오면 우산을 삽니다.", "비가 와서 우산을 샀습니다."
    scores = {name: rouge.score([text], [(reference,)], Metric(name, "rouge", "mean"))[0] for name in ("mecab", "char")}
    assert scores["mecab"].mean != scores["char"].mean


def test_the_library_is_asked_whether_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text[:80] for text in sample_texts()[:300]]
    references = [(text[10:],) for text in texts]
    assert rouge.audit(texts, references, COMPETITION) == rouge.AUDITED
    assert rouge.audit(["", "."], [("",), (".",)], COMPETITION) == 0
    monkeypatch.setattr(rouge, "pair", lambda *_: RowScore(0.5, 0.5, 0.5))
    with pytest.raises(UserError, match=r"where rouge 1.0.1 scores"):
        rouge.audit(texts, references, COMPETITION)
