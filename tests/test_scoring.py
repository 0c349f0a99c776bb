"""Scores are the competition's: MeCab's morphemes, `rouge` 1.0.1, and intervals that can be repeated."""

import csv
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mecab import MeCab
from project import ROOT
from rouge import Rouge

from yoyak import rouge, scoring
from yoyak.errors import UserError
from yoyak.records import Prediction, Prompt
from yoyak.rouge import RowScore, morphemes
from yoyak.scoring import ScoringParams, align, interval, leaderboard, sheet

PARAMS = ScoringParams(tokenizer="mecab", library="rouge", references="mean", bootstrap_samples=300, seed=0)

WORDS = st.sampled_from(["가", "나", "비가", "온다", "우산", ".", "..", "…", "?", "#Person1#", "a.b", "3.5", "ㅋㅋ"])
TEXT = st.lists(WORDS, max_size=12).map(" ".join) | st.lists(WORDS, max_size=12).map("".join) | st.text()
ANYTHING = (
    TEXT | st.text(st.characters(exclude_categories=())) | st.sampled_from(["", " ", ".", "\0", "\ud800", "\x1c"])
)
"""Lone surrogates included."""


def sample_summaries() -> list[str]:
    with (ROOT / "data/sample/train.csv").open(encoding="utf-8", newline="") as file:
        return [row["summary"] for row in csv.DictReader(file)]


def one(text: str, *references: str, rule: rouge.ReferenceRule = "mean") -> RowScore:
    (score,) = rouge.score([text], [references], rule)
    return score


# Morphemes and ROUGE


def test_morphemes_of_the_organisers_example() -> None:
    text = "호킨스 의사는 매년 건강검진을 받는 것을 권장합니다."
    assert " ".join(morphemes(text)) == "호킨스 의사 는 매년 건강 검진 을 받 는 것 을 권장 합니다 ."


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), (" \n", ""), ("비가\0온다", "비 가 온다"), ("비가\ud800 온다", "비 가 온다"), ("\ud800", "")],
)
def test_morphemes_of_odd_text(text: str, expected: str) -> None:
    assert " ".join(morphemes(text)) == expected


def test_equal_to_the_library_called_directly() -> None:
    summaries = sample_summaries()
    draw = random.Random(0)
    pairs = [(draw.choice(summaries), draw.choice(summaries)) for _ in range(250)]
    # Half of a summary against the whole: pairs that are much alike.
    pairs += [(text[: len(text) // 2], text) for text in draw.sample(summaries, 50)]
    mecab, library = MeCab(), Rouge()
    ours = rouge.score([text for text, _ in pairs], [(reference,) for _, reference in pairs], "mean")
    for (text, reference), score in zip(pairs, ours, strict=True):
        (theirs,) = library.get_scores(" ".join(mecab.morphs(text)), " ".join(mecab.morphs(reference)))
        expected = [theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]
        assert list(score) == pytest.approx(expected, abs=1e-9)
    assert len({score.rouge1 for score in ours}) > 100


def test_figures_of_a_pair_by_hand() -> None:
    """Three of 3 and 4 words, one of 2 and 3 pairs of words, and three in the same order."""
    text, reference = "비 가 온다", "비 가 안 온다"
    assert morphemes(text) == ("비", "가", "온다")
    assert morphemes(reference) == ("비", "가", "안", "온다")
    assert list(one(text, reference)) == pytest.approx([6 / 7, 2 / 5, 6 / 7], abs=1e-7)


@settings(max_examples=300)
@given(ANYTHING, ANYTHING)
def test_any_text_gets_a_number(text: str, reference: str) -> None:
    for figure in one(text, reference):
        assert 0 <= figure <= 1 + 1e-9


@settings(max_examples=300)
@given(TEXT)
def test_a_text_against_itself(text: str) -> None:
    """`rouge` adds 1e-8 under the fraction, and a text of one word has no pair of words: ROUGE-2 is 0."""
    words = " ".join(morphemes(text)).replace(".", " ").split()
    score = one(text, text)
    assert score.rouge1 == score.rougeL
    assert (score.rouge1 >= 1 - 1e-8) == (len(words) >= 1)
    if len(words) >= 2:
        assert score.rouge2 >= 1 - 1e-8


@pytest.mark.parametrize("empty", ["", " ", ".", ". . .", "\0", "\ud800", "\u3000"])
def test_a_side_without_words_scores_zero(empty: str) -> None:
    assert one(empty, "비가 온다") == one("비가 온다", empty) == one(empty, empty) == (0, 0, 0)


@settings(max_examples=300)
@given(TEXT, st.lists(TEXT, min_size=1, max_size=3), TEXT)
def test_one_more_reference_never_lowers_the_maximum(text: str, references: list[str], more: str) -> None:
    before, after = one(text, *references, rule="max"), one(text, *references, more, rule="max")
    assert all(new >= old for old, new in zip(before, after, strict=True))


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3))
def test_mean_and_maximum_are_of_the_single_references(text: str, references: list[str]) -> None:
    singles = np.array([one(text, reference) for reference in references])
    assert one(text, *references, rule="mean") == pytest.approx(singles.mean(axis=0))
    assert one(text, *references, rule="max") == pytest.approx(singles.max(axis=0))
    assert one(text, *reversed(references)) == pytest.approx(one(text, *references))


def test_order_of_rows_does_not_matter() -> None:
    summaries = sample_summaries()[:40]
    texts, references = summaries[:20], [(reference,) for reference in summaries[20:]]
    order = random.Random(1).sample(range(20), 20)
    scores = scoring.score(texts, references, PARAMS)
    shuffled = scoring.score([texts[row] for row in order], [references[row] for row in order], PARAMS)
    assert np.array_equal(scores[order], shuffled)
    assert scoring.summarise(scores, PARAMS)["rouge_mean"] == scoring.summarise(shuffled, PARAMS)["rouge_mean"]


def test_long_texts() -> None:
    """`rouge` alone ends in a RecursionError: one frame a token of both sides."""
    text, other = " ".join(["가"] * 1500), " ".join([*["나"] * 499, "가"])
    assert (len(morphemes(text)), len(morphemes(other))) == (1500, 500)
    assert list(one(text, other)) == pytest.approx([2 / 3, 0, 2 / 3])


# The leaderboard


def prompt(row: int, summary: str) -> Prompt:
    turns = (f"#Person1#: 물음 {row}", f"#Person2#: 대답은 조금 더 길다 {row}", "#Person1#: 응")
    return Prompt(fname=f"dev_{row}", system="", turns=turns, question="", summary=summary)


@pytest.fixture(scope="module")
def said() -> scoring.Sheet:
    """Twelve rows: a good model, its twin, a bad one, and one that says nothing."""
    summaries = sample_summaries()[:24]
    prompts = [prompt(row, summary) for row, summary in enumerate(summaries[:12])]
    texts = {
        "bad": summaries[12:],
        "good": [text[:30] for text in summaries[:12]],
        "twin": [text[:30] for text in summaries[:12]],
        "silent": [""] * 12,
    }
    predictions = {
        # Rows in any order: they are found by their names.
        name: [Prediction(fname=f"dev_{row}", text=text) for row, text in reversed(list(enumerate(rows)))]
        for name, rows in texts.items()
    }
    return sheet(prompts, predictions)


def test_leaderboard_has_what_a_score_needs(said: scoring.Sheet) -> None:
    report, rows = leaderboard(said, PARAMS)
    assert report == json.loads(json.dumps(report))
    assert set(report["scoring"]) >= {"tokenizer", "tokenizer_version", "dictionary", "library", "references"}
    assert report["scoring"]["library"] == "rouge 1.0.1"
    assert set(report["models"]) == {"good", "twin", "bad", "silent", "baseline/lead_2", "baseline/longest_turn"}
    for name, entry in report["models"].items():
        assert list(entry) == ["rouge1", "rouge2", "rougeL", "rouge_mean", "rouge_sum", "ci95", "rows"]
        assert entry["rows"] == 12
        low, high = entry["ci95"]
        assert 0 <= low <= entry["rouge_mean"] <= high <= 100
        assert entry["rouge_sum"] == pytest.approx(3 * entry["rouge_mean"], abs=0.02)
        assert rows[name].shape == (12, 3)
        assert rows[name].mean() == pytest.approx(entry["rouge_mean"], abs=0.005)


def test_leaderboard_is_ranked_and_best_is_no_baseline(said: scoring.Sheet) -> None:
    report, _ = leaderboard(said, PARAMS)
    means = [entry["rouge_mean"] for entry in report["models"].values()]
    assert means == sorted(means, reverse=True)
    assert means[-1] == 0
    assert report["best"]["model"] == "good"
    without = scoring.Sheet(
        said.fnames, said.references, {"silent": said.texts["silent"], "baseline/x": said.texts["good"]}
    )
    assert leaderboard(without, PARAMS)[0]["best"]["model"] == "silent"


def test_difference_from_a_twin_is_nothing(said: scoring.Sheet) -> None:
    minus = leaderboard(said, PARAMS)[0]["best"]["minus"]
    assert minus["twin"] == {"rouge_mean": 0, "ci95": [0, 0]}
    assert "good" not in minus
    assert minus["bad"]["ci95"][0] > 0


def test_baselines_are_the_first_turns_and_the_longest(said: scoring.Sheet) -> None:
    assert said.texts["baseline/lead_2"][3] == "#Person1#: 물음 3\n#Person2#: 대답은 조금 더 길다 3"
    assert said.texts["baseline/longest_turn"][3] == "#Person2#: 대답은 조금 더 길다 3"


def test_missing_prediction_is_named() -> None:
    with pytest.raises(UserError, match=r"predictions of m: b is missing \(and 1 more\)"):
        align([Prediction(fname="a", text="")], ["a", "b", "c"], "m")


def test_interval_is_seeded_and_paired() -> None:
    values = np.random.default_rng(3).normal(40, 10, 60)
    first = interval(values, PARAMS)
    assert first == interval(values, PARAMS)
    assert first != interval(values, PARAMS.model_copy(update={"seed": 1}))
    assert interval(values - values, PARAMS) == [0, 0]
    # A constant lead stands fast whatever rows are drawn.
    assert interval((values + 1) - values, PARAMS) == [1, 1]


def test_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(4).normal(40, 10, 400)
    low, high = interval(values, PARAMS.model_copy(update={"bootstrap_samples": 4000}))
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.05)
    assert (high + low) / 2 == pytest.approx(values.mean(), abs=0.1)
