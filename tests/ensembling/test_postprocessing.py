"""Post-processing mends what it says and nothing else; what each rule is worth is measured, on or off."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project

from yoyak.core.records import Candidate, Prediction, read_json, read_records, write_records
from yoyak.core.text import TAG
from yoyak.ensembling import postprocessing
from yoyak.ensembling.postprocessing import (
    RULES,
    PostprocessingParams,
    drop_repeated_sentences,
    normalise_spaces,
    trim_unfinished_sentence,
)
from yoyak.evaluation.leaderboard import ScoringParams, Split
from yoyak.metrics import rouge

PIECES = ["#Person1#", "#Person2#", "#은#", "#", " ", "  ", "\n", "은", "에게", "는", "이유", "간다", "간다."]
PIECES += [
    "Mr.",
    "3.",
    "A.",
    "OK.",
    "%",
    "#Person1#.",
    "℃",
    ".",
    "!",
    "…",
    ",",
    "'",
    "”",
    "(",
    "OK",
    "\u3000",
    "\x1c",
    "Person1#",
]
TEXT = st.one_of(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.text())
ALL_ON = PostprocessingParams(**dict.fromkeys(RULES, True))
PARAMS = st.builds(PostprocessingParams, **dict.fromkeys(RULES, st.booleans()))
JUDGING = ScoringParams(tokenizer="char", library="rouge", references="mean", bootstrap_samples=100, seed=0)


def prediction(text: str, *others: str, fname: str = "dev_0") -> Prediction:
    candidates = tuple(Candidate(text=each, log_probability=-1.0, finished=True) for each in (text, *others))
    return Prediction(fname=fname, text=text, candidates=candidates)


def applied(params: PostprocessingParams, text: str) -> str:
    (row,) = postprocessing.apply(params, [prediction(text)])
    return row.text


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("#Person1# 은 간다.", "#Person1#은 간다."),
        ("#Person1# 이 #Person2# 에게는  말한다 .", "#Person1#이 #Person2#에게는 말한다."),
        ("그리고#Person2#는\n웃는다 !", "그리고 #Person2#는 웃는다!"),
        ("#Person1##Person2#는 간다.", "#Person1##Person2#는 간다."),
        (" '#Person1# 과의' 약속 ", "'#Person1#과의' 약속"),
        # Words that only begin as a particle does.
        ("#Person1# 이유를 묻는다.", "#Person1# 이유를 묻는다."),
        ("#Person1# 가게에 간다.", "#Person1# 가게에 간다."),
        ("#Person1# 모두 간다.", "#Person1# 모두 간다."),
    ],
)
def test_spaces(text: str, mended: str) -> None:
    assert normalise_spaces(text) == mended


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("비가 온다. 우산을", "비가 온다."),
        ("비가 온다! 빵을 산다. 그리고 #Person1#은", "비가 온다! 빵을 산다."),
        ("'비가 온다.' 우산을", "'비가 온다.'"),
        ("우산을", "우산을"),
        ("비가 온다. 우산을 산다.", "비가 온다. 우산을 산다."),
        ("발표자는 #Person1#. #Person2#는 자료를 늦", "발표자는 #Person1#."),
        ("회의실은 A. 두 사람은", "회의실은 A."),
        ("오늘은 OK. 내일은", "오늘은 OK."),
        ("할인은 30%. 그래서", "할인은 30%."),
        ("기온은 30℃. 그래서", "기온은 30℃."),
        ("방은 302. 그래서", "방은 302."),
        ("값은 1.5. 그래서", "값은 1.5."),
        ("'담당은 #Person1#.' 그래서", "'담당은 #Person1#.'"),
        ("그것은 Yahoo! 그래서", "그것은 Yahoo!"),
        ("비가 온다.우산을", "비가 온다."),
        ("비가 온다.#Person1#은", "비가 온다."),
        # These full stops end no sentence.
        ("#Person1#은 Mr. Kim과", "#Person1#은 Mr. Kim과"),
        ("모두 1.5 킬로를", "모두 1.5 킬로를"),
        ("그는 Dr. 김과", "그는 Dr. 김과"),
        ("작가 J. K. 롤링의", "작가 J. K. 롤링의"),
        ("작가 J. Smith의", "작가 J. Smith의"),
        ("만나는 날은 2024. 3. 1. 금요일로", "만나는 날은 2024. 3. 1. 금요일로"),
        ("3. 빵을", "3. 빵을"),
        ("A. 빵을", "A. 빵을"),
        ("오후 5 p.m. 에 만나", "오후 5 p.m. 에 만나"),
        ("그것은 #. 그래서", "그것은 #. 그래서"),
    ],
)
def test_unfinished_sentence(text: str, mended: str) -> None:
    assert trim_unfinished_sentence(text) == mended


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("비가 온다. 비가 온다.", "비가 온다."),
        ("비가 온다. 빵을 산다.\n비가 온다. 끝이다.", "비가 온다. 빵을 산다. 끝이다."),
        ("비가  온다. 빵을 산다.", "비가  온다. 빵을 산다."),
        ("Mr. 김이 온다. Mr. 이도 온다.", "Mr. 김이 온다. Mr. 이도 온다."),
        ("회의실은 A. 회의실은 A.", "회의실은 A."),
        ("담당은 #Person1#. 담당은 #Person1#.", "담당은 #Person1#."),
        ("할인은 5%! 할인은 5%!", "할인은 5%!"),
        ("방은 3. 방은 3.", "방은 3."),
        ("비가 온다.비가 온다.", "비가 온다."),
    ],
)
def test_repeated_sentences(text: str, mended: str) -> None:
    assert drop_repeated_sentences(text) == mended


@given(PARAMS, TEXT)
def test_a_second_time_changes_nothing(params: PostprocessingParams, text: str) -> None:
    once = applied(params, text)
    assert applied(params, once) == once


@given(PARAMS, TEXT)
def test_no_text_is_emptied(params: PostprocessingParams, text: str) -> None:
    assert bool(applied(params, text).strip()) == bool(text.strip())


@given(PARAMS, TEXT)
def test_nothing_but_blanks_comes_in_and_no_tag_is_changed(params: PostprocessingParams, text: str) -> None:
    mended = applied(params, text)
    letters = iter("".join(text.split()))
    assert all(letter in letters for letter in "".join(mended.split()))
    assert set(TAG.findall(mended)) <= set(TAG.findall(text))


@given(TEXT)
def test_spaces_leave_every_tag_and_every_letter(text: str) -> None:
    mended = normalise_spaces(text)
    assert TAG.findall(mended) == TAG.findall(text)
    assert "".join(mended.split()) == "".join(text.split())


@given(TEXT)
def test_no_sentence_is_lost_by_dropping_repeated_ones(text: str) -> None:
    assert set(TAG.findall(drop_repeated_sentences(text))) == set(TAG.findall(text))


@given(TEXT)
def test_off_is_unchanged(text: str) -> None:
    rows = [prediction(text)]
    assert postprocessing.apply(PostprocessingParams(), rows) == rows


def test_the_text_stays_the_first_candidates() -> None:
    (row,) = postprocessing.apply(ALL_ON, [prediction("비가 온다. 우산을", "빵을")])
    assert [candidate.text for candidate in row.candidates] == ["비가 온다.", "빵을"]
    assert row.text == "비가 온다."


def test_rules_and_parameters_are_the_same_and_off_by_default() -> None:
    assert PostprocessingParams().model_dump() == dict.fromkeys(RULES, False)


def test_delta_of_each_rule_whether_on_or_off() -> None:
    texts = ["가나다. 가나다.", "가나다. 라마", "가나다."]
    fnames = [f"dev_{row}" for row in range(3)]
    rows = [prediction(text, fname=fname) for text, fname in zip(texts, fnames, strict=True)]
    split = Split("dev", fnames, [("#Person1#: 가",)] * 3, [("가나다.",)] * 3, [None] * 3)
    params = PostprocessingParams(drop_repeated_sentences=True)
    report = postprocessing.report(rows[::-1], split, params, JUDGING)
    assert (report["split"], report["rows"], report["scoring"]["library"]) == ("dev", 3, "rouge 1.0.1")
    rules = report["rules"]
    assert [(name, rule["on"], rule["rows_changed"]) for name, rule in rules.items()] == [
        ("normalise_spaces", False, 0),
        ("trim_unfinished_sentence", False, 1),
        ("drop_repeated_sentences", True, 1),
    ]
    assert rules["normalise_spaces"]["delta"]["rouge_mean"] == 0
    assert rules["normalise_spaces"]["delta"]["ci95"] == [0, 0]
    before, after = (
        100 * rouge.score([text], [("가나다.",)], JUDGING.metric)[0].mean for text in ("가나다. 라마", "가나다.")
    )
    assert after > before
    assert rules["trim_unfinished_sentence"]["delta"]["rouge_mean"] == pytest.approx((after - before) / 3, abs=0.005)
    assert 0 <= rules["trim_unfinished_sentence"]["delta"]["ci95_high"] <= after - before + 0.01


@pytest.mark.parametrize("on", [False, True])
def test_the_stage_repairs_what_the_ensemble_says_and_measures_either_way(
    reproduced: Project, tmp_path: Path, on: bool
) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["postprocessing"].update(drop_repeated_sentences=on))
    for path in project.root.glob("predictions/*/*.jsonl"):
        said = [prediction("비가 온다. 비가 온다.", fname=row.fname) for row in read_records(path, Prediction)]
        write_records(path, said)
    project.stage("ensemble")
    for split in ("dev", "test"):
        texts = {row.text for row in read_records(project.root / f"ensemble/{split}.jsonl", Prediction)}
        assert texts == {"비가 온다." if on else "비가 온다. 비가 온다."}
    measured = read_json(project.root / "metrics/postprocessing.json")
    changed = {name: (rule["on"], rule["rows_changed"]) for name, rule in measured["rules"].items()}
    assert changed == {
        "normalise_spaces": (False, 0),
        "trim_unfinished_sentence": (False, 0),
        "drop_repeated_sentences": (on, 4),
    }
    # Both sides are repaired: what the repairs gain is no difference of theirs.
    assert read_json(project.root / "metrics/ensemble.json")["delta"]["rouge_mean"] == 0


def test_particles_are_those_that_the_sample_glues() -> None:
    """Nothing in the project's own references is parted from its tag, so nothing there is changed."""
    summaries = pd.read_csv(ROOT / "data/sample/train.csv")["summary"]
    assert all(normalise_spaces(text) == text for text in summaries)
    parted = summaries.str.replace(r"(#\w+#)(?=[가-힣])", r"\1 ", regex=True)
    mended = [normalise_spaces(text) == text_before for text, text_before in zip(parted, summaries, strict=True)]
    assert np.mean(mended) > 0.95
    assert any(re.search(r"# [가-힣]", text) for text in parted)
