"""`ensemble.strategy: learned`, from `dvc repro` to what people ask of the result."""

import weakref
from pathlib import Path
from typing import Any

import pytest
from project import Project

from yoyak.core import folds
from yoyak.core.errors import UserError
from yoyak.core.folds import Fold
from yoyak.core.records import Dialogue, Prediction, Prompt, Rescored, read_json, read_records, write_json
from yoyak.ensembling import decide_learned, families
from yoyak.ensembling.features import OWN
from yoyak.ensembling.learned import FEATURES
from yoyak.ensembling.weighting import PLAN, read_plan
from yoyak.evaluation.written import Learned
from yoyak.modeling.loading import Loaded
from yoyak.serving import inputs, summarizer
from yoyak.sweeps.collect import collect

MODELS = ["llama32_3b", "bart_mini"]
FOLD = {"part": 0, "of": 2}


def learn(params: Any) -> None:
    """Both models leave out one half of train, and judge each other's candidates."""
    params["run"].update(rescorers=MODELS)
    params["ensemble"].update(strategy="learned")
    for name in MODELS:
        params["models"][name]["fold"] = FOLD


@pytest.fixture(scope="module")
def project(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    copied = reproduced.copy(tmp_path_factory.mktemp("learned") / "project")
    copied.edit(learn)
    # From so few rows no summary is one that could be submitted.
    copied.run("dvc", "repro", "ensemble")
    return copied


@pytest.fixture(scope="module")
def joined(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """As if it had been found worth it to take what the rescorers find likeliest; on so few rows nothing is."""
    copied = project.copy(tmp_path_factory.mktemp("joined") / "project")
    plan = copied.root / PLAN
    plan.unlink()
    choice = {
        "rescorers": MODELS,
        "weights": dict.fromkeys(MODELS, 0.5),
        "sharpness": 1.0,
        "member_scores": dict.fromkeys(MODELS, 10.0),
        "coefficients": dict.fromkeys(FEATURES, 0.0) | {"log_probability": 1.0},
    }
    write_json(plan, {"strategy": "learned", "weights": dict.fromkeys(MODELS, 0.5), "learned": choice})
    return copied


def read(project: Project, path: str, kind: Any) -> Any:
    return read_records(project.root / path, kind)


def test_it_is_learned_on_rows_that_nobody_has_seen(project: Project) -> None:
    train = read(project, "data/prompts/train.jsonl", Prompt)
    unseen = {row.fname for row in folds.held_out(train, Fold(**FOLD))}
    assert 0 < len(unseen) < len(train)
    for name in MODELS:
        assert {row.fname for row in read(project, f"predictions/{name}/train.jsonl", Prediction)} == unseen
        assert {row.fname for row in read(project, f"rescored/{name}/train.jsonl", Rescored)} == unseen
    report = read_json(project.root / "metrics/ensemble.json")
    known = Learned.model_validate(report["learned"])
    assert known.rows == len(unseen)
    assert known.rescorers == MODELS
    assert set(known.points_a_deviation) == set(FEATURES) > set(OWN)
    reached = known.out_of_fold
    assert max(reached.learned, reached.mbr, reached.best) <= reached.oracle
    assert report["used"] == read_plan(project.root / PLAN).strategy


def test_commands_tell_of_it(project: Project) -> None:
    told = " ".join(project.run("yoyak", "leaderboard").stdout.split())
    assert "What the choice goes by" in told
    assert f"rescorers: {', '.join(MODELS)}." in told
    table = project.run("yoyak", "status").stdout.splitlines()
    assert all(line.count("up to date") == 5 for line in table[1:3])


def test_sweeps_collect_it(project: Project) -> None:
    result = collect(project.root)
    assert result["ensemble"]["learned"]["rescorers"] == MODELS
    assert {name: figures["dev"]["rows"] for name, figures in result["rescore"].items()} == dict.fromkeys(MODELS, 4)


def test_who_asks_the_ensemble_asks_members_and_rescorers_one_at_a_time(
    joined: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(joined.root)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    loaded: list[weakref.ref[Any]] = []
    asked: list[str] = []

    def load(name: str) -> Loaded:
        assert [model for model in loaded if model() is not None] == []
        asked.append(name)
        found = summarizer.load(name)
        loaded.append(weakref.ref(found.model))
        return found

    params = summarizer.open_project()
    assert summarizer.offered(params) == [*MODELS, "ensemble"]
    # Dialogues of somebody's may share a name.
    dialogues = [Dialogue(fname="a", dialogue=row.dialogue) for row in inputs.read("data/sample/test.csv").dialogues]
    (made,) = summarizer.summarize(params, ["ensemble"], dialogues, load)
    assert asked == [*MODELS, *MODELS]
    assert [row.text for row in made.predictions] == [row.text for row in of_the_stages()]


def of_the_stages() -> list[Prediction]:
    """The choice for test by what they have written."""
    plan = read_plan()
    prompts = read_records(Path("data/prompts/test.jsonl"), Prompt)
    members = {name: read_records(Path(f"predictions/{name}/test.jsonl"), Prediction) for name in plan.weights}
    said = families.likelihoods(MODELS, "test", [row.fname for row in prompts])
    chosen = decide_learned.combine(members, plan, prompts, said)
    for row, of_members in zip(chosen, zip(*members.values(), strict=True), strict=True):
        assert row.text in {each.text for member in of_members for each in member.candidates}
    return chosen


def test_a_rescorer_that_is_not_here_is_named(joined: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = joined.copy(tmp_path / "project")
    monkeypatch.chdir(copied.root)
    plan = read_json(PLAN)
    plan["learned"]["rescorers"] = ["llama32_3b", "kobart"]
    write_json(PLAN, plan)
    params = summarizer.open_project()
    assert "ensemble" not in summarizer.offered(params)
    with pytest.raises(UserError, match=r"^the ensemble's rescorer kobart is not here \(models/kobart is missing\); "):
        summarizer.check_name(params, "ensemble")


def test_what_nothing_could_be_learned_from_is_told_before_training(project: Project, tmp_path: Path) -> None:
    copied = project.copy(tmp_path / "project")
    copied.edit(lambda params: params["models"]["bart_mini"].pop("fold"))
    said = copied.stage("prepare_prompts", check=False)
    assert said.returncode == 1
    assert (
        "error: params.yaml: ensemble.strategy: learned learns on rows of train that no member has seen" in said.stdout
    )
    assert "bart_mini has seen all of train; `yoyak folds MODEL 5` writes entries" in said.stdout
