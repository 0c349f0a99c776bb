"""The choice that is learned: from rows that no member has seen, of features, and only where it is worth more."""

import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project import ROOT
from world import MEMBERS, ROWS, World, write_world

from yoyak.core.errors import UserError
from yoyak.core.records import (
    Candidate,
    Likelihood,
    Prediction,
    Prompt,
    Rescored,
    read_json,
    read_records,
    write_records,
)
from yoyak.ensembling import families, features
from yoyak.ensembling.features import OWN, SHARPNESS, evidence
from yoyak.ensembling.weighting import family_of, read_plan
from yoyak.evaluation import leaderboard
from yoyak.metrics import rouge


def run_stage() -> Any:
    runpy.run_path(str(ROOT / "stages/ensemble.py"), run_name="__main__")
    return read_json(Path("metrics/ensemble.json"))


def candidates_of_dev() -> list[list[Candidate]]:
    """Of each row, all members'."""
    members = [read_records(Path(f"predictions/{name}/dev.jsonl"), Prediction) for name in MEMBERS]
    return [[each for member in row for each in member.candidates] for row in zip(*members, strict=True)]


def test_what_rescorers_hear_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(0, hear=True), ["a", "b"])
    report = run_stage()
    learned = report["learned"]
    assert report["used"] == "learned"
    assert learned["delta_over_mbr"]["ci95_low"] > 0
    assert learned["rescorers"] == ["a", "b"]
    assert learned["rows"] == ROWS
    of_fold = learned["out_of_fold"]
    assert of_fold["best"] < of_fold["mbr"] < of_fold["learned"] < of_fold["oracle"]
    assert learned["worth_it"]
    # The best of all candidates, whoever wrote them.
    references = leaderboard.read_split("dev").references
    best = [
        max(score.mean for score in rouge.score([each.text for each in row], [reference] * len(row)))
        for row, reference in zip(candidates_of_dev(), references, strict=True)
    ]
    assert report["oracle"] == {"dev": pytest.approx(100 * np.mean(best), abs=0.006)}
    assert learned["gap_closed"] == pytest.approx(
        (of_fold["learned"] - of_fold["mbr"]) / (of_fold["oracle"] - of_fold["mbr"]), abs=0.002
    )
    # What was reached on rows that it was not learned on comes true.
    assert report["ensemble"]["rouge_mean"] == pytest.approx(of_fold["learned"], abs=6)
    plan = read_plan()
    assert plan.learned is not None
    assert plan.learned.coefficients["likelihood_utility"] > 0
    for split in ("dev", "test"):
        chosen = read_records(Path(f"ensemble/{split}.jsonl"), Prediction)
        assert [row.fname for row in chosen] == [f"{split}_{row}" for row in range(ROWS)]


def test_what_tells_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(1, hear=False), ["a"])
    report = run_stage()
    assert report["used"] == "mbr"
    assert report["learned"]["delta_over_mbr"]["noise"]
    assert read_plan().learned is None


def test_without_rescorers_there_are_fewer_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(2, hear=True), [])
    report = run_stage()
    assert report["learned"]["rescorers"] == []
    assert report["used"] in ("mbr", "learned")


def test_so_many_members_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(0, hear=True), ["a"], members=2)
    assert len(run_stage()["weights"]) == 2


def test_members_that_have_seen_all_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(0, hear=True), [])
    Path("predictions/b/train.jsonl").unlink()
    with pytest.raises(SystemExit):
        run_stage()
    told = capsys.readouterr().err
    assert told.startswith("error: params.yaml: ensemble.strategy: learned learns on rows of train")
    assert "and b has seen all; " in told


# Families


def prediction(fname: str, *texts: str) -> Prediction:
    candidates = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in texts)
    return Prediction(fname=fname, text=texts[0], candidates=candidates)


def test_a_fold_is_of_a_family_tuned_or_not() -> None:
    names = ["a_f0", "a_f12", "a", "a_f0_tuned", "a_tuned", "b_fold"]
    assert [family_of(name) for name in names] == ["a", "a", "a", "a_tuned", "a_tuned", "b_fold"]


def test_rows_are_unseen_where_one_fold_of_each_family_has_left_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = [Prompt(fname=f"r{row}", system="", turns=("네",), question="") for row in range(4)]

    def write_rows(**names: str) -> None:
        for name, rows in names.items():
            write_records(Path(f"predictions/{name}/train.jsonl"), [prediction(f"r{row}", name) for row in rows])

    def found(*names: str, rescorers: Sequence[str] = ()) -> dict[str, list[str]]:
        _, rows = families.unseen(names, prompts, rescorers)
        return {family: [f"{row.fname} {row.text}" for row in of_family] for family, of_family in rows.items()}

    write_rows(a_f0="20", a_f1="13", b="012", c_f0="0", c_f1="01")
    assert found("a_f0", "a_f1") == {"a": ["r0 a_f0", "r1 a_f1", "r2 a_f0", "r3 a_f1"]}
    # A fifth that all leave out is as good as folds.
    assert found("a_f0", "b") == {"a": ["r0 a_f0", "r2 a_f0"], "b": ["r0 b", "r2 b"]}
    # Nor may whoever judges them have seen it.
    assert found("a_f0", "b", rescorers=["c_f0"]) == {"a": ["r0 a_f0"], "b": ["r0 b"]}
    assert found("a_f0", "b", rescorers=["c_f0", "nobody"]) == {"a": [], "b": []}
    # Who has left a row out twice has not seen it at all, but which is its summary?
    assert found("c_f0", "c_f1") == {"c": ["r1 c_f1"]}
    assert found("a_f0", "nobody") == {"a": [], "nobody": []}


def test_folds_of_a_rescorer_are_heard_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def write_rescored(name: str, split: str, **rows: float) -> None:
        write_records(
            Path(f"rescored/{name}/{split}.jsonl"),
            [
                Rescored(fname=fname, texts=(Likelihood(text="네", log_probability=value, tokens=4),))
                for fname, value in rows.items()
            ],
        )

    write_rescored("a_f0", "dev", r0=-2.0)
    write_rescored("a_f1", "dev", r0=-4.0)
    write_rescored("a_f0", "train", t0=-2.0)
    write_rescored("a_f1", "train", t1=-4.0)
    assert families.likelihoods(["a_f0", "a_f1"], "dev", ["r0"])["a"][0]["네"].log_probability == -3.0
    of_train = families.likelihoods(["a_f0", "a_f1"], "train", ["t0", "t1"])["a"]
    assert [row["네"].log_probability for row in of_train] == [-2.0, -4.0]


# Features


def test_features_by_hand() -> None:
    texts = {"a": ["비가 온다.", "비가 온다."], "b": ["우산을 산다."]}
    said = {name: [prediction("r0", *of_member)] for name, of_member in texts.items()}
    heard = {
        name: [{text: Likelihood(text=text, log_probability=value, tokens=2) for text, value in of_text.items()}]
        for name, of_text in {
            "a": {"비가 온다.": -2.0, "우산을 산다.": -8.0},
            "b": {"비가 온다.": -4.0, "우산을 산다.": -6.0},
        }.items()
    }
    (found,) = evidence(said, ["#Person1#: 비가 온다."], heard)
    of = dict(zip(OWN, found.own.T.tolist(), strict=True))
    assert of["own_utility"] == pytest.approx([1, 1, 1], abs=1e-6)
    assert of["log_probability"] == [-1.5, -1.5, -3.5]
    assert of["lowest_log_probability"] == [-2, -2, -4]
    assert of["others_log_probability"] == [-2, -2, -4]
    assert of["total_log_probability"] == [-3, -3, -7]
    assert of["copies"] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    assert of["from_dialogue"][0] == 1 > of["from_dialogue"][2]
    # Copies share a text's weight.
    between = rouge.score(["비가 온다."], [("우산을 산다.",)])[0].mean
    for column, sharpness in enumerate(SHARPNESS):
        likely = np.exp(sharpness * -1.5) / (np.exp(sharpness * -1.5) + np.exp(sharpness * -3.5))
        expected = likely + (1 - likely) * between
        assert found.by_likelihood[:2, column] == pytest.approx([expected] * 2, abs=1e-6)


def test_a_row_without_candidates_has_no_features() -> None:
    empty = Prediction(fname="r0", text="", candidates=(Candidate(text="", log_probability=-1, finished=True),))
    (found,) = evidence({"a": [empty]}, [""], {"a": [{}]})
    assert found.own.shape == (0, len(features.OWN))


def test_a_candidate_that_nobody_was_asked_about_is_told() -> None:
    with pytest.raises(UserError, match=r"rescored/a…: no log-probability of a candidate of r0, '네'; run `dvc repro`"):
        evidence({"a": [prediction("r0", "네")]}, [""], {"a": [{}]})
