"""The chosen candidate is the one most like all of them; and what is not worth it is left."""

import math
import random
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml, write_yaml
from yoyak.core.records import Candidate, Prediction, Prompt, Reference, read_json, read_records, write_records
from yoyak.ensembling import mbr
from yoyak.ensembling.weighting import (
    EnsembleParams,
    Plan,
    _sharpened,
    candidates_for_membership,
    combine,
    combine_studied,
    cross_validated,
    oracle,
    oracle_of_studied,
    plan_of_mbr,
    read_plan,
    study,
)
from yoyak.metrics import rouge

DEFAULTS = Path(__file__).parents[2] / "params.yaml"
STAGE = Path(__file__).parents[2] / "stages/ensemble.py"
RAIN = "#Person1#은 비가 와서 우산을 샀다."
RAIN_TOO = "#Person1#은 비가 와서 우산을 빌렸다."
RAIN_ALSO = "#Person1#은 비가 많이 와서 우산을 샀다."
BREAD = "두 사람은 빵집 앞에서 만난다."

TEXT = st.sampled_from([RAIN, RAIN_TOO, RAIN_ALSO, BREAD, "", "우산", "비가 온다."])
ROW = st.lists(TEXT, max_size=3)


def prediction(*texts: str, fname: str = "dev_0") -> Prediction:
    candidates = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in texts)
    return Prediction(fname=fname, text=texts[0] if texts else "", candidates=candidates)


def consensus(rows: list[Prediction], weights: list[float]) -> Prediction:
    (pool,) = mbr.pools({str(member): [row] for member, row in enumerate(rows)})
    return mbr.prediction(pool, np.array(weights, dtype=float))


def test_the_candidate_most_like_the_others_is_chosen() -> None:
    assert consensus([prediction(BREAD), prediction(RAIN), prediction(RAIN_TOO)], [1, 1, 1]).text in (RAIN, RAIN_TOO)
    assert consensus([prediction(BREAD, RAIN_TOO, RAIN, RAIN_ALSO)], [1]).text == RAIN


def test_all_candidates_are_kept_the_chosen_one_first() -> None:
    chosen = consensus([prediction(BREAD, RAIN), prediction(RAIN, RAIN_TOO)], [1, 1])
    assert [candidate.text for candidate in chosen.candidates] == [RAIN, BREAD, RAIN, RAIN_TOO]


def by_hand(rows: list[list[str]], weights: list[float]) -> str:
    """The definition, loop by loop."""
    best, best_score = "", -1.0
    for row in (row for row, weight in zip(rows, weights, strict=True) if weight):
        for text in row:
            expected = 0.0
            for other_row, weight in zip(rows, weights, strict=True):
                for other in other_row:
                    expected += weight / len(other_row) * rouge.score([text], [[other]])[0].mean
            # What differs behind the tenth digit differs by rounding.
            if text and expected > best_score + 1e-10:
                best, best_score = text, expected
    return best


@settings(max_examples=300)
@given(st.lists(st.tuples(ROW, st.sampled_from([0.0, 1.0, 2.5, 40.0])), min_size=1, max_size=4))
def test_equal_to_a_plain_loop(members: list[tuple[list[str], float]]) -> None:
    rows, weights = [row for row, _ in members], [weight for _, weight in members]
    assert consensus([prediction(*row) for row in rows], weights).text == by_hand(rows, weights)


def test_first_candidate_wins_a_tie() -> None:
    assert consensus([prediction(RAIN), prediction(BREAD)], [1, 1]).text == RAIN
    assert consensus([prediction(BREAD), prediction(RAIN)], [1, 1]).text == BREAD


def test_the_heavier_member_is_heard() -> None:
    assert consensus([prediction(RAIN), prediction(BREAD)], [1, 2]).text == BREAD
    assert consensus([prediction(RAIN), prediction(BREAD)], [2, 1]).text == RAIN


def test_many_candidates_are_no_more_votes() -> None:
    """A member's weight is shared: four copies of one text weigh as much as one."""
    many, one = prediction(RAIN, RAIN, RAIN, RAIN), prediction(BREAD)
    assert consensus([many, one], [1, 1.1]).text == BREAD
    assert consensus([many, one], [1.1, 1]).text == RAIN


def test_empty_candidates_are_passed_over() -> None:
    assert consensus([prediction("", ""), prediction("", BREAD)], [9, 1]).text == BREAD


@pytest.mark.parametrize("rows", [[prediction("")], [prediction("", ""), prediction("")], [prediction()]])
def test_row_without_any_text_stays_empty(rows: list[Prediction]) -> None:
    assert consensus(rows, [1.0] * len(rows)) == Prediction(fname="dev_0", text="")


def said_by(**members: list[str]) -> dict[str, list[Prediction]]:
    return {
        name: [prediction(text, fname=f"dev_{row}") for row, text in enumerate(texts)]
        for name, texts in members.items()
    }


def test_rows_are_combined_in_order() -> None:
    plan = Plan(strategy="mbr", weights={"a": 0.7, "b": 0.3})
    combined = combine(said_by(a=[RAIN, BREAD], b=[BREAD, RAIN], c=["", ""]), plan)
    assert [(row.fname, row.text) for row in combined] == [("dev_0", RAIN), ("dev_1", BREAD)]


def test_the_best_alone_says_what_it_said() -> None:
    said = said_by(a=[RAIN, BREAD], b=[BREAD, RAIN])
    assert combine(said, Plan(strategy="best", weights={"b": 1.0})) == said["b"]


def test_members_of_different_rows_are_refused() -> None:
    with pytest.raises(UserError, match=r"different rows \(dev_0, dev_1\)"):
        mbr.pools({"a": [prediction(RAIN)], "b": [prediction(RAIN, fname="dev_1")]})


def test_members_are_all_models_or_those_named() -> None:
    models = ["a", "b"]
    assert candidates_for_membership(EnsembleParams(strategy="mbr"), models) == models
    assert candidates_for_membership(EnsembleParams(strategy="mbr", members=1), models) == models
    assert candidates_for_membership(EnsembleParams(strategy="mbr", members=["b"]), models) == ["b"]
    with pytest.raises(UserError, match=r"ensemble.members: c is not in the run \(a, b\)"):
        candidates_for_membership(EnsembleParams(strategy="mbr", members=["c"]), models)


WORDS = [
    "비",
    "우산",
    "학교",
    "친구",
    "내일",
    "점심",
    "병원",
    "회의",
    "기차",
    "책",
    "영화",
    "주말",
    "버스",
    "빵",
    "커피",
    "약속",
    "전화",
    "시험",
    "여행",
    "선물",
]
ROWS = 80


def references(seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=14)) for _ in range(ROWS)]


def with_errors(texts: list[str], seed: int, share: float | None = None) -> list[str]:
    """A share of the words is another; of each text its own where none is given."""
    draw = random.Random(seed)
    worse = []
    for text in texts:
        wrong = draw.uniform(0, 0.8) if share is None else share
        worse.append(" ".join(draw.choice(WORDS) if draw.random() < wrong else word for word in text.split()))
    return worse


def run_stage(folder: Path, said: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch, **params: Any) -> Any:
    """The stage `ensemble` on dev rows whose references are `references()`, and test rows that are the same."""
    monkeypatch.chdir(folder)
    expected = references()
    fnames = [f"dev_{row}" for row in range(ROWS)]
    write_yaml(
        Path("params.yaml"),
        read_yaml(DEFAULTS)
        | {
            "run": {"models": list(said), "tuned": [], "untuned": [], "averaged": [], "seed": 42},
            "ensemble": {"strategy": "mbr"} | params,
        },
    )
    prompts = [Prompt(fname=fname, system="", turns=("#Person1#: 네.",), question="") for fname in fnames]
    scored = {name: rouge.score(texts, [(text,) for text in expected]) for name, texts in said.items()}
    for split in ("dev", "test"):
        write_records(Path(f"data/prompts/{split}.jsonl"), prompts)
        for name, rows in said_by(**said).items():
            write_records(Path(f"predictions/{name}/{split}.jsonl"), rows)
    write_records(
        Path("data/references/dev.jsonl"),
        [Reference(fname=fname, summaries=(text,)) for fname, text in zip(fnames, expected, strict=True)],
    )
    Path("scores").mkdir()
    pd.DataFrame(
        [
            {"split": "dev", "model": name, "fname": fname, "rouge_mean": 100 * score.mean}
            for name, scores in scored.items()
            for fname, score in zip(fnames, scores, strict=True)
        ]
    ).to_csv("scores/rows.csv", index=False)
    runpy.run_path(str(STAGE), run_name="__main__")
    return read_json(Path("metrics/ensemble.json"))


def test_a_known_gain_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that err on different rows: what most agree on is right more often than any of them."""
    members = {name: with_errors(references(), seed) for seed, name in enumerate("abc")}
    report = run_stage(tmp_path, members, monkeypatch)
    assert report["used"] == "mbr"
    assert report["delta"]["ci95_low"] > 0
    assert report["cross_validated"]["rouge_mean"] == pytest.approx(report["ensemble"]["rouge_mean"], abs=3)
    scores = np.array(
        [[score.mean for score in rouge.score(texts, [(text,) for text in references()])] for texts in members.values()]
    )
    assert report["oracle"] == {"dev": pytest.approx(100 * scores.max(axis=0).mean(), abs=0.006)}
    assert report["oracle"]["dev"] > report["ensemble"]["rouge_mean"]
    assert sum(report["weights"].values()) == pytest.approx(1)
    plan = read_plan(Path("ensemble/plan.json"))
    assert plan == Plan(strategy="mbr", weights=report["weights"])
    written = read_records(Path("ensemble/test.jsonl"), Prediction)
    assert written == combine(said_by(**members), plan)


@pytest.mark.parametrize("kind", ["one good, two bad alike", "all alike"])
def test_where_there_is_no_gain_the_best_member_speaks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bad = with_errors(references(), 1, share=0.8)
    good = with_errors(references(), 2, share=0.1) if kind == "one good, two bad alike" else bad
    report = run_stage(tmp_path, {"a": bad, "b": good, "c": bad}, monkeypatch)
    assert report["used"] == "best"
    assert report["delta"]["noise"]
    best = "b" if good is not bad else "a"
    assert report["weights"] == {best: 1.0}
    assert [row.text for row in read_records(Path("ensemble/dev.jsonl"), Prediction)] == good


def test_the_best_alone_can_be_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {name: with_errors(references(), seed) for seed, name in enumerate("abc")}
    report = run_stage(tmp_path, members, monkeypatch, strategy="best")
    assert (report["used"], report["delta"]) == ("best", None)
    assert "cross_validated" not in report


def test_as_many_members_as_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {name: with_errors(references(), seed) for seed, name in enumerate("abc")}
    members["worst"] = with_errors(references(), 9, share=0.95)
    assert "worst" not in run_stage(tmp_path, members, monkeypatch, members=3)["weights"]


def test_no_row_weighs_on_what_it_is_judged_by() -> None:
    """A member that is best on a single row by far, and worst on all others: that row is judged without it."""
    expected = references()[:10]
    good, bad = with_errors(expected, 1, share=0.3), with_errors(expected, 2, share=0.9)
    members = said_by(good=good, lucky=[expected[0], *bad[1:]])
    scores = {
        name: np.array(
            [100 * score.mean for score in rouge.score([row.text for row in rows], [(t,) for t in expected])]
        )
        for name, rows in members.items()
    }
    dev = study(members, scores, [(text,) for text in expected], rouge.COMPETITION)
    fold = np.arange(10)
    combined, best = cross_validated(EnsembleParams(strategy="mbr", members=1), dev, members, fold)
    assert [row.text for row in best] == good
    assert [row.text for row in combined] == good


def test_who_is_no_member_says_nothing() -> None:
    """The candidate that is most like all others is of a model that does not take part."""
    alone = prediction("사과 배", "감 귤", "포도 자두")
    rows = {"a": [alone] * 6, "b": [prediction("사과 배 감 귤 포도 자두")] * 6}
    scores = {"a": np.full(6, 60.0), "b": np.full(6, 50.0)}
    params = EnsembleParams(strategy="mbr", members=1)
    dev = study(rows, scores, [("사과 배 감 귤",)] * 6, rouge.COMPETITION)
    judged, _ = cross_validated(params, dev, rows, np.arange(6) % 5)
    assert judged == combine(rows, plan_of_mbr(params, dev)) == [alone] * 6


DISTINCT_MEMBERS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True)


@settings(max_examples=100)
@given(st.lists(st.tuples(ROW, ROW, ROW), min_size=1, max_size=4), DISTINCT_MEMBERS, st.data())
def test_what_has_been_compared_is_chosen_from_as_if_it_were_compared_again(
    rows: list[tuple[list[str], ...]], names: list[str], data: st.DataObject
) -> None:
    """Of some members, in another order and of other weights, ties and empty candidates among them."""
    members = {
        name: [prediction(*texts) for texts in column]
        for name, column in zip("abc", zip(*rows, strict=True), strict=True)
    }
    shares = [data.draw(st.sampled_from([1.0, 1.0, 3.0])) for _ in names]
    plan = Plan(strategy="mbr", weights={name: s / sum(shares) for name, s in zip(names, shares, strict=True)})
    expected = [(RAIN,)] * len(rows)
    scored = study(members, dict.fromkeys("abc", np.zeros(len(rows))), expected, rouge.COMPETITION)
    assert combine_studied(scored, plan) == combine(members, plan)
    assert (oracle_of_studied(scored) == oracle(members, expected, rouge.COMPETITION)).all()


def test_each_split_is_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    compare = mbr._utilities_of_row

    def counted(members: Any) -> Any:
        nonlocal compared
        compared += 1
        return compare(members)

    monkeypatch.setattr(mbr, "_utilities_of_row", counted)
    members = {name: with_errors(references(), seed) for seed, name in enumerate("abc")}
    report = run_stage(tmp_path, members, monkeypatch)
    assert report["used"] == "mbr"
    assert compared == 2 * ROWS
    dev, test = (read_records(Path(f"ensemble/{split}.jsonl"), Prediction) for split in ("dev", "test"))
    assert dev == test


def test_weights_fall_with_the_distance_to_the_best() -> None:
    assert _sharpened({"a": 40.0, "b": 39.0}, 0.0) == {"a": 0.5, "b": 0.5}
    sharp = _sharpened({"a": 40.0, "b": 39.0}, 2.0)
    assert sharp["a"] / sharp["b"] == pytest.approx(math.e**2)
