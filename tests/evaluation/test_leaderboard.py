"""The leaderboard: ranked, with baselines, intervals, and what was chosen on dev marked as such."""

import csv
import json

import numpy as np
import pandas as pd
import pytest
from project import ROOT

from yoyak.core.errors import UserError
from yoyak.core.records import Prediction
from yoyak.evaluation import baselines, breakdowns, groups
from yoyak.evaluation.leaderboard import (
    Leaderboard,
    ScoringParams,
    align,
    best_deltas,
    cross_validated_choice,
    leaderboard,
    report,
    score,
)
from yoyak.evaluation.summaries import Row

PARAMS = ScoringParams(tokenizer="mecab", library="rouge", references="mean", bootstrap_samples=300, seed=0)
EXTRACTS = {"baseline/lead_1", "baseline/lead_2", "baseline/longest_turn"}


def sample_summaries() -> list[str]:
    with (ROOT / "data/sample/train.csv").open(encoding="utf-8", newline="") as file:
        return [row["summary"] for row in csv.DictReader(file)]


def board(split: str, references: list[tuple[str, ...]], **texts: list[str]) -> Leaderboard:
    rows = [
        Row(
            f"{split}_{row}",
            (f"#Person1#: 물음 {row}", f"#Person2#: 대답은 조금 더 길다 {row}", "#Person1#: 응" + "응" * row),
            expected,
            "날씨" if row % 2 else None,
            said,
        )
        for row, (expected, said) in enumerate(zip(references, zip(*texts.values(), strict=True), strict=True))
    ]
    return leaderboard(split, rows, list(texts), PARAMS)


@pytest.fixture(scope="module")
def dev() -> Leaderboard:
    """Twelve rows: a good model, its twin, a bad one, and one that says nothing."""
    summaries = sample_summaries()[:24]
    good = [text[:30] for text in summaries[:12]]
    references = [(summary,) for summary in summaries[:12]]
    return board("dev", references, bad=summaries[12:], good=good, twin=good, silent=[""] * 12)


@pytest.fixture(scope="module")
def test_board() -> Leaderboard:
    """Eight rows of three references each."""
    texts = sample_summaries()[24:48]
    return board("test", references_of_test(), bad=texts[:8], good=[row[0] for row in references_of_test()])


def references_of_test() -> list[tuple[str, ...]]:
    texts = sample_summaries()[24:48]
    return [tuple(texts[3 * row : 3 * row + 3]) for row in range(8)]


def test_report_has_what_a_score_needs(dev: Leaderboard) -> None:
    content = report(dev, None, PARAMS)
    assert content == json.loads(json.dumps(content))
    assert content["scoring"]["tokenizer"] == "mecab"
    assert content["scoring"]["tokenizer_version"] == "python-mecab-ko 1.3.7"
    assert content["scoring"]["dictionary"] == "python-mecab-ko-dic 2.1.1.post2"
    assert content["scoring"]["library"] == "rouge 1.0.1"
    assert content["scoring"]["references"] == "mean"
    assert content["scoring"]["pairs_that_the_library_scored_too"] == 72, "all but the silent model's"
    assert len(content["scoring"]["commit"].removesuffix("-dirty")) == 40
    assert set(content["models"]) == {"good", "twin", "bad", "silent"} | EXTRACTS
    for name, entry in content["models"].items():
        assert entry["rows"] == 12
        low, high = entry["ci95"]
        assert [low, high] == [entry["ci95_low"], entry["ci95_high"]]
        assert 0 <= low <= entry["rouge_mean"] <= high <= 100
        assert entry["rouge_sum"] == pytest.approx(3 * entry["rouge_mean"], abs=0.02)
        assert entry["rouge_sum"] == pytest.approx(entry["rouge1"] + entry["rouge2"] + entry["rougeL"], abs=0.02)
        assert dev.scores[name].shape == (12, 3)
        assert dev.scores[name].mean() == pytest.approx(entry["rouge_mean"], abs=0.005)


def test_report_is_the_same_twice(dev: Leaderboard) -> None:
    assert report(dev, None, PARAMS) == report(dev, None, PARAMS)
    other = report(dev, None, PARAMS.model_copy(update={"seed": 1}))
    assert other["models"]["good"]["ci95"] != report(dev, None, PARAMS)["models"]["good"]["ci95"]
    assert other["models"]["good"]["rouge_mean"] == report(dev, None, PARAMS)["models"]["good"]["rouge_mean"]


def test_best_model_comes_first_and_is_no_baseline(dev: Leaderboard) -> None:
    means = [scores.mean() for scores in dev.scores.values()]
    assert means == sorted(means, reverse=True)
    assert means[-1] == 0
    assert dev.best == "good"
    only_silent = Leaderboard(dev.split, {"baseline/x": dev.scores["good"], "silent": dev.scores["silent"]})
    assert only_silent.best == "silent"


def test_which_differences_are_noise(dev: Leaderboard) -> None:
    delta = report(dev, None, PARAMS)["best"]["delta"]
    assert "good" not in delta
    assert delta["twin"]["rouge_mean"] == 0
    assert delta["twin"]["ci95"] == [0, 0]
    assert delta["twin"]["p"] == 1
    assert delta["twin"]["noise"]
    assert delta["silent"]["ci95"][0] > 0
    assert not delta["silent"]["noise"]
    assert delta["silent"]["p_holm"] == pytest.approx(21 * delta["silent"]["p"]), "of 7 models' pairs, the smallest"


def test_what_looks_like_a_difference_alone_may_be_noise_among_many() -> None:
    draw = np.random.default_rng(0)
    scores = {"best": np.zeros((40, 3))} | {
        f"m{model}": np.repeat(draw.normal(-0.2 - 0.25 * model, 2, (40, 1)), 3, axis=1) for model in range(7)
    }
    deltas = best_deltas(scores, "best", 7, PARAMS).values()
    assert any(delta["p"] < 0.05 < delta["p_holm"] and delta["noise"] for delta in deltas)
    assert any(delta["p_holm"] < 0.05 and not delta["noise"] for delta in deltas)


def test_baselines_quote_the_dialogue() -> None:
    first, longest, last = "#Person1#: 물음", "#Person2#: 대답은 조금 더 길다", "#Person1#: 응"
    expected = {"lead_1": [first], "lead_2": [f"{first}\n{longest}"], "longest_turn": [longest]}
    assert baselines.extracts([(first, longest, last)]) == {f"baseline/{name}": said for name, said in expected.items()}


def test_one_reference_has_no_ceiling_and_several_have(dev: Leaderboard, test_board: Leaderboard) -> None:
    assert baselines.HUMAN not in dev.scores
    ceiling = test_board.scores[baselines.HUMAN]
    references = references_of_test()
    by_hand = [
        np.mean([score([row[place]], [row[:place] + row[place + 1 :]], PARAMS.metric) for place in range(3)])
        for row in references
    ]
    assert ceiling.mean(axis=1) == pytest.approx(by_hand)


def test_the_model_that_test_is_compared_with_was_chosen_on_dev(dev: Leaderboard, test_board: Leaderboard) -> None:
    content = report(dev, test_board, PARAMS)
    assert content["best"]["chosen_on"] == "dev"
    assert content["test"]["best"]["model"] == "good"
    assert content["test"]["models"]["good"]["rows"] == 8
    assert set(content["test"]["models"]) == {"good", "bad", baselines.HUMAN} | EXTRACTS
    assert baselines.HUMAN in content["test"]["best"]["delta"]


def test_choosing_by_luck_is_seen_through_by_cross_validation(dev: Leaderboard) -> None:
    """Twenty models that differ by chance alone: the best of them owes its lead to the rows that chose it."""
    flattery, honesty = [], []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        scores = {f"m{model}": np.repeat(draw.normal(40, 10, (60, 1)), 3, axis=1) for model in range(20)}
        lucky = Leaderboard(dev.split, dict(sorted(scores.items(), key=lambda item: -item[1].mean())))
        honest = cross_validated_choice(lucky, PARAMS)
        assert honest is not None
        assert honest["folds"] == 5
        flattery.append(lucky.scores[lucky.best].mean() - 40)
        honesty.append(honest["rouge_mean"] - 40)
    assert np.mean(flattery) > 2
    assert abs(np.mean(honesty)) < 0.6


def test_choosing_the_only_model_costs_nothing(dev: Leaderboard) -> None:
    alone = Leaderboard(dev.split, {"good": dev.scores["good"], "baseline/lead_2": dev.scores["baseline/lead_2"]})
    honest = cross_validated_choice(alone, PARAMS)
    assert honest is not None
    assert honest["rouge_mean"] == pytest.approx(dev.scores["good"].mean(), abs=0.005)


def test_order_of_rows_does_not_matter() -> None:
    summaries = sample_summaries()[:40]
    texts, references = summaries[:20], [(reference,) for reference in summaries[20:]]
    order = np.random.default_rng(1).permutation(20)
    scores = score(texts, references, PARAMS.metric)
    shuffled = score([texts[row] for row in order], [references[row] for row in order], PARAMS.metric)
    assert np.array_equal(scores[order], shuffled)


def test_missing_prediction_is_named() -> None:
    with pytest.raises(UserError, match=r"predictions of m: b is missing \(and 1 more\)"):
        align([Prediction(fname="a", text="")], ["a", "b", "c"], "m")


# Groups of rows


def test_every_row_of_every_model_is_kept(dev: Leaderboard) -> None:
    rows = pd.concat(breakdowns.by_row(dev))
    assert len(rows) == 12 * 7
    good = rows[rows["model"] == "good"].set_index("fname")
    assert list(good.index) == dev.split.groups.fnames
    assert good["rouge_mean"].to_numpy() == pytest.approx(dev.scores["good"].mean(axis=1))
    assert good["no_sentence_end"].all()
    assert rows[rows["model"] == "silent"]["empty"].all()
    assert (rows["speakers"] == "2").all()
    assert set(rows["topic"]) == {"날씨", "no topic"}
    assert rows["dialogue_length"].nunique() == 4


def test_groups_hold_all_rows_once(dev: Leaderboard) -> None:
    lines = breakdowns.breakdowns([dev], PARAMS)
    assert set(lines["by"]) == {"dialogue_length", "speakers", "topic", "register", "summary_length"}
    assert (lines.groupby(["by", "model"])["rows"].sum() == 12).all()
    large = lines["rows"] >= breakdowns.FEWEST_ROWS
    assert lines[~large]["ci95_low"].isna().all()
    assert (lines[large]["ci95_low"] <= lines[large]["rouge_mean"] + 1e-9).all()
    assert (lines[large]["rouge_mean"] <= lines[large]["ci95_high"] + 1e-9).all()
    assert large.any()
    plain = lines[(lines["by"] == "topic") & (lines["model"] == "good") & (lines["group"] == "날씨")].iloc[0]
    assert plain["rouge_mean"] == pytest.approx(dev.scores["good"][1::2].mean())


@pytest.mark.parametrize(
    ("summary", "register"),
    [
        ("두 사람은 갑니다.", "니다"),
        ("그것은 아니다.", "다"),
        ("학교에 다니다.", "다"),
        ("간다", "다"),
        ("감.", "other"),
        ("", "other"),
    ],
)
def test_register(summary: str, register: str) -> None:
    assert groups.register(summary) == register


def test_rare_topics_are_one_group() -> None:
    topics = ["날씨"] * 5 + ["여행"] * 4 + [None]
    assert groups.frequent(topics).of(slice(None)) == ["날씨"] * 5 + ["rarer topics"] * 4 + ["no topic"]


def test_summary_lengths_are_ratios_to_the_references() -> None:
    judged = board("dev", [("가" * 10,)] * 4, m=["가" * 4, "가" * 7, "가" * 10, "가" * 30])
    found = pd.concat(breakdowns.by_row(judged))
    mine = found[found["model"] == "m"]
    assert list(mine["length_ratio"]) == [0.4, 0.7, 1, 3]
    assert list(mine["summary_length"]) == ["under half", "half to 0.8", "0.8 to 1.25", "over twice"]


@pytest.mark.parametrize("characters", [[5], [7, 7, 7], [1, 2], list(range(100)), [10, 10, 10, 90]])
def test_quarters_of_any_lengths(characters: list[int]) -> None:
    names = groups.quarters(characters).of(slice(None))
    assert len(names) == len(characters)
    for name, length in zip(names, characters, strict=True):
        low, high = map(int, name.removesuffix(" characters").split(" to "))
        assert low <= length <= high
