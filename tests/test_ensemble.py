"""The consensus of candidates is the one most like all of them."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoyak import rouge
from yoyak.ensemble import EnsembleParams, combine, consensus, members
from yoyak.errors import UserError
from yoyak.records import Candidate, Prediction

RAIN = "#Person1#은 비가 와서 우산을 샀다."
RAIN_TOO = "#Person1#은 비가 와서 우산을 빌렸다."
RAIN_ALSO = "#Person1#은 비가 많이 와서 우산을 샀다."
BREAD = "두 사람은 빵집 앞에서 만난다."

TEXT = st.sampled_from([RAIN, RAIN_TOO, RAIN_ALSO, BREAD, "", "우산", "비가 온다."])
ROW = st.lists(TEXT, max_size=3)


def prediction(*texts: str, fname: str = "dev_0") -> Prediction:
    candidates = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in texts)
    return Prediction(fname=fname, text=texts[0] if texts else "", candidates=candidates)


def test_the_candidate_most_like_the_others_is_chosen() -> None:
    assert consensus([prediction(BREAD), prediction(RAIN), prediction(RAIN_TOO)], [1, 1, 1]).text in (RAIN, RAIN_TOO)
    assert consensus([prediction(BREAD, RAIN_TOO, RAIN, RAIN_ALSO)], [1]).text == RAIN


def test_all_candidates_are_kept_the_chosen_one_first() -> None:
    chosen = consensus([prediction(BREAD, RAIN), prediction(RAIN, RAIN_TOO)], [1, 1])
    assert [candidate.text for candidate in chosen.candidates] == [RAIN, BREAD, RAIN, RAIN_TOO]


def by_hand(rows: list[list[str]], weights: list[float]) -> str:
    """The definition, loop by loop."""
    best, best_score = "", -1.0
    for row in rows:
        for text in row:
            terms = []
            for other_row, weight in zip(rows, weights, strict=True):
                for other in other_row:
                    terms.append(
                        weight
                        / len(other_row)
                        * rouge.score(
                            [text],
                            [[other]],
                        )[0].mean
                    )
            if text and math.fsum(terms) > best_score:
                best, best_score = text, math.fsum(terms)
    return best


@settings(max_examples=300)
@given(st.lists(st.tuples(ROW, st.sampled_from([0.0, 1.0, 2.5, 40.0])), min_size=1, max_size=4))
def test_equal_to_a_plain_loop(members: list[tuple[list[str], float]]) -> None:
    rows, weights = [row for row, _ in members], [weight for _, weight in members]
    assert consensus([prediction(*row) for row in rows], weights).text == by_hand(rows, weights)


def test_first_candidate_wins_a_tie() -> None:
    assert consensus([prediction(RAIN), prediction(BREAD)], [1, 1]).text == RAIN
    assert consensus([prediction(BREAD), prediction(RAIN)], [1, 1]).text == BREAD
    assert consensus([prediction(BREAD), prediction(RAIN)], [0, 0]).text == BREAD


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


def test_rows_are_combined_in_order() -> None:
    fnames = ("dev_7", "dev_1")
    said = {name: [prediction(text, fname=fname) for fname in fnames] for name, text in (("a", RAIN), ("b", BREAD))}
    assert [(row.fname, row.text) for row in combine(said, {"a": 2, "b": 1})] == [("dev_7", RAIN), ("dev_1", RAIN)]


def test_members_of_different_rows_are_refused() -> None:
    with pytest.raises(UserError, match=r"different rows \(dev_0, dev_1\)"):
        combine({"a": [prediction(RAIN)], "b": [prediction(RAIN, fname="dev_1")]}, {"a": 1, "b": 1})


def test_members_are_all_models_or_those_named() -> None:
    weights = {"a": 40.0, "b": 41.0}
    assert members(EnsembleParams(strategy="consensus"), ["a", "b"], weights) == weights
    assert members(EnsembleParams(strategy="consensus", members=["b"]), ["a", "b"], weights) == {"b": 41.0}
    with pytest.raises(UserError, match=r"ensemble.members: c is not in run.models \(a, b\)"):
        members(EnsembleParams(strategy="consensus", members=["c"]), ["a", "b"], weights)
