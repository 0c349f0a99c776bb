"""All pairs at once score as pair by pair."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample import sample_texts

from yoyak.ensembling import all_pairs
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes

WORDS = st.sampled_from(
    ["가", "나", "비가", "온다", "우산", "다.", ".", "..", ". .", "…", "#Person1#", "a.b", "3.5", "ㅋㅋ"]
)
TEXT = st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=12).map("".join) | st.text(max_size=20)
FEW = st.lists(st.sampled_from(["가", "나", "다", "."]), max_size=150).map(" ".join)
"""Of so few words there are many longest common subsequences, and long sentences need several machine words."""


def pair_by_pair(texts: list[str]) -> np.ndarray:
    tokenizer, library, _ = rouge.COMPETITION
    return np.array([[rouge.pair(text, other, tokenizer, library).mean for other in texts] for text in texts])


def agree(texts: list[str]) -> bool:
    return np.allclose(all_pairs.mean_f1(texts), pair_by_pair(texts), rtol=0, atol=1e-14)


@settings(max_examples=300)
@given(st.lists(TEXT, min_size=1, max_size=6))
def test_any_texts(texts: list[str]) -> None:
    assert agree(texts)


@settings(max_examples=150)
@given(st.lists(FEW, min_size=1, max_size=4))
def test_few_words_in_long_sentences(texts: list[str]) -> None:
    assert agree(texts)


def test_texts_of_the_sample() -> None:
    """Summaries, and dialogues of many sentences and more different words than a machine word has bits."""
    texts = random.Random(0).sample(sample_texts(), 60)
    assert max(len(set(morphemes(text))) for text in texts) > 128
    assert agree(texts)


def test_a_sentence_of_a_thousand_words() -> None:
    draw = random.Random(0)
    words = [f"말{number}" for number in range(400)]
    texts = [" ".join(draw.choices(words, k=length)) for length in (1, 64, 65, 500)]
    assert max(len(sentence) for text in texts for sentence in rouge._document(text, "mecab").sentences) == 1000
    assert agree(texts)


def test_a_text_and_its_reference_may_not_be_exchanged() -> None:
    """Of two longest common subsequences, `가 나` and `가 가`, each side has the library find another."""
    texts = ["가 가 나", "가 나 가"]
    assert [morphemes(text) for text in texts] == [("가", "가", "나"), ("가", "나", "가")]
    scores = all_pairs.mean_f1(texts)
    assert scores[0, 1] - scores[1, 0] == pytest.approx(-1 / 6, abs=1e-7)
    assert agree(texts)


def test_nothing_and_full_stops() -> None:
    """Which are like themselves at most: neither library nor table has a sentence there."""
    texts = ["", " ", ".", "..", "비가 온다."]
    scores = all_pairs.mean_f1(texts)
    assert scores[:2].max() == scores[:, :2].max() == 0
    assert scores[2, 2] == scores[4, 2] + rouge.pair(".", ".", "mecab", "rouge").mean
    assert agree(texts)


def test_no_texts() -> None:
    assert all_pairs.mean_f1([]).shape == (0, 0)
