"""Folds of a model: entries like any other, each judged on the rows of train that it has not seen."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project
from typer.testing import CliRunner

from yoyak import commands
from yoyak.core.errors import UserError
from yoyak.core.folds import Fold, held_out, seen
from yoyak.core.params import read_yaml
from yoyak.core.records import Candidate, Prediction, Prompt, read_json, read_records
from yoyak.ensembling.mbr import Pool
from yoyak.ensembling.weighting import EnsembleParams, ScoredPools, plan_by_folds
from yoyak.preflight.add_folds import add_entries
from yoyak.preflight.check import read_params
from yoyak.preflight.resolve import resolve


def prompt(fname: str, *turns: str) -> Prompt:
    return Prompt(fname=fname, system="", turns=turns, question="")


@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=12), st.integers(2, 6))
def test_each_row_is_held_out_once_and_twins_together(dialogues: list[list[str]], parts: int) -> None:
    prompts = [prompt(f"train_{row}", *turns) for row, turns in enumerate(dialogues)]
    folds = [Fold(part=part, of=parts) for part in range(parts)]
    assert Counter(row.fname for fold in folds for row in held_out(prompts, fold)) == Counter(
        row.fname for row in prompts
    )
    for fold in folds:
        assert [row for row in prompts if row in held_out(prompts, fold) or row in seen(prompts, fold)] == prompts
        assert not {row.turns for row in held_out(prompts, fold)} & {row.turns for row in seen(prompts, fold)}
    assert (seen(prompts, None), held_out(prompts, None)) == (prompts, [])


def test_about_as_many_rows_in_each() -> None:
    prompts = [prompt(f"train_{row}", f"#Person1#: {row}번째 말이다.") for row in range(1000)]
    assert all(150 < len(held_out(prompts, Fold(part=part, of=5))) < 250 for part in range(5))


# yoyak folds


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path / "params.yaml"


@pytest.mark.parametrize("name", ["kobart", "bart_mini", "llama3_8b"])
def test_entries_are_the_model_s_own_and_nothing_else_changes(params: Path, name: str) -> None:
    before = params.read_text()
    done = CliRunner().invoke(commands.app, ["folds", name, "3"])
    assert done.exit_code == 0, done.output
    added = [line for line in params.read_text().splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in added if line.startswith("  ") and line.endswith(":")][:1] == [f"{name}_f0:"]
    content = read_params(params)
    original = resolve(content, name, None)
    for part in range(3):
        configs = resolve(content, f"{name}_f{part}", None)
        assert configs.training == original.training.model_copy(update={"fold": Fold(part=part, of=3)})
        assert configs.generation == original.generation.model_copy(update={"fold": Fold(part=part, of=3)})
    kept = params.read_text()
    for part in range(3):
        start = kept.index(f"\n  {name}_f{part}:")
        end = kept.index(f"fold: {{part: {part}, of: 3}}\n") + len(f"fold: {{part: {part}, of: 3}}\n")
        kept = kept[:start] + kept[end:]
    assert kept == before


@pytest.mark.parametrize(
    "entry",
    [
        "  kobart:\n    weights: a\n    generation: {x: 8}",
        "  kobart:\n\n    # why\n    weights: a\n    generation: {x: 8}\n\n",
        "  'kobart':\n    weights: a\n    generation: {x: 8}\n",
        '  "kobart" : # mine\n      weights: a\n      generation:\n        x: 8\n  # next\n  other: {weights: b}\n',
    ],
)
def test_entries_are_written_however_the_file_is(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"models:\n{entry}", encoding="utf-8")
    before = read_yaml(path)["models"]
    added = {
        name: {"weights": "a", "generation": {"x": 8}, "fold": {"part": part, "of": 2}}
        for part, name in enumerate(add_entries(path, "kobart", 2))
    }
    assert read_yaml(path)["models"] == before | added


@pytest.mark.parametrize(
    "entries",
    [
        "  kobart: &base\n    weights: a\n  other: *base\n",
        "  ? kobart\n  :\n    weights: a\n",
        "  kobart:\n    {weights: a,\n     method: full}\n",
        "  - kobart\n",
        "  kobart: 3\n",
        "  kobart:\n",
    ],
)
def test_what_cannot_be_copied_stays_as_it_is(tmp_path: Path, entries: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"models:\n{entries}", encoding="utf-8")
    with pytest.raises(UserError, match=r"^\S*params\.yaml: models"):
        add_entries(path, "kobart", 2)
    assert path.read_text(encoding="utf-8") == f"models:\n{entries}"


@pytest.mark.parametrize(
    ("name", "parts", "says"),
    [
        ("gpt", 5, "no model 'gpt'; there are gemma3_270m, bart_mini"),
        ("kobart", 1, "1 folds: at least 2 are needed"),
        ("kobart_f0", 2, "params.yaml: models.kobart_f0 is a fold itself"),
        ("kobart", 2, "params.yaml: models.kobart_f0 is there already; take it out first"),
        ("average", 2, "params.yaml: models.average has members in place of weights, and is never trained"),
    ],
)
def test_what_cannot_be_folded(params: Path, name: str, parts: int, says: str) -> None:
    params.write_text(params.read_text() + "\n  average: {members: [kobart, bart_mini]}\n")
    if "kobart" in name and parts == 2:
        add_entries(Path("params.yaml"), "kobart", 2)
    with pytest.raises(UserError, match=says):
        add_entries(Path("params.yaml"), name, parts)


def test_a_part_that_is_none(params: Path) -> None:
    add_entries(params, "kobart", 2)
    params.write_text(params.read_text().replace("{part: 1, of: 2}", "{part: 2, of: 2}"))
    with pytest.raises(UserError, match=r"models.kobart_f1.fold: parts are counted from 0: the last of 2 is 1"):
        read_params(params)


# What they are for


def test_a_family_s_weight_is_shared_among_its_folds() -> None:
    candidate = Candidate(text="요약", log_probability=-1.0, finished=True)
    pool = Pool("r0", (candidate, candidate), np.arange(2), np.eye(2))
    train = ScoredPools({"a": np.array([50.0]), "b": np.array([20.0])}, [pool], [np.array([50.0, 20.0])])
    plan = plan_by_folds(EnsembleParams(strategy="mbr"), train, ["a_f0", "a_f1", "b_f0", "b_f1"])
    assert sum(plan.weights.values()) == pytest.approx(1)
    assert plan.weights["a_f0"] == plan.weights["a_f1"] >= plan.weights["b_f0"] == plan.weights["b_f1"]
    only_a = plan_by_folds(EnsembleParams(strategy="mbr", members=1), train, ["a_f0", "a_f1", "b_f0", "b_f1"])
    assert only_a.weights == {"a_f0": 0.5, "a_f1": 0.5}


def test_folds_are_stages_like_any_other(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.run("yoyak", "folds", "bart_mini", "2")
    names = ["bart_mini_f0", "bart_mini_f1"]
    project.edit(lambda params: params["run"].update(models=names))
    # From so few rows no summary is one that could be submitted.
    project.run("dvc", "repro", "ensemble")
    train = [row.fname for row in read_records(project.root / "data/prompts/train.jsonl", Prompt)]
    parts = [
        {row.fname for row in read_records(project.root / f"predictions/{name}/train.jsonl", Prediction)}
        for name in names
    ]
    assert parts[0] | parts[1] == set(train)
    assert not parts[0] & parts[1]
    report = read_json(project.root / "metrics/ensemble.json")
    assert report["learned_on"] == "train, out of fold"
    assert report["members"] == names
    models = [(project.root / f"models/{name}/model.safetensors").read_bytes() for name in names]
    assert models[0] != models[1]
