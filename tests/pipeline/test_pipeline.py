"""The commands that a user types, in temporary git and DVC repositories."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dependencies import imported_files
from project import ROOT, Project
from ruamel.yaml import YAML

TRAININGS = {f"train@{model}" for model in ("llama32_3b", "bart_mini")}
INFERENCES = {f"infer@{model}" for model in ("llama32_3b", "bart_mini")}
BEFORE_THE_SCORES = TRAININGS | INFERENCES
EXTRACTS = {f"baseline/{name}" for name in ("lead_1", "lead_2", "longest_turn")}
AFTER_THEM = {"score", "ensemble", "submit"}
NAMES_AND_SCORES = ("--drop", ".*", "--keep", r"Experiment|lora\.r$|run\.models|ensemble\.(rouge_mean|ci95)")
"""What a leaderboard of experiments needs of the hundred columns that `dvc exp show` has."""


def running(output: str) -> set[str]:
    """The stages that a command ran, or would run."""
    return set(re.findall(r"^Running stage '(.+)':", output, re.MULTILINE))


def after_preflight(project: Project) -> set[str]:
    """What a change leaves to do, once the first stage, which sees every change, has looked at it."""
    project.run("dvc", "repro", "--single-item", "prepare_prompts")
    return running(project.run("dvc", "repro", "--dry").stdout)


def models_in_scores(project: Project) -> set[str]:
    return set(_json(project, "metrics/scores.json")["models"])


def pulled_clone(project: Project, root: Path) -> Project:
    """What somebody else gets: the committed files, and from the pushed storage the rest."""
    project.run("dvc", "push")
    clone = project.clone(root)
    shutil.copytree(project.root / "dvc-storage", root / "dvc-storage")
    clone.run("dvc", "pull")
    return clone


def _lock(project: Project) -> Any:
    return YAML(typ="safe").load((project.root / "dvc.lock").read_text())["stages"]


def _json(project: Project, path: str) -> Any:
    return json.loads((project.root / path).read_text())


# A run


def test_a_run_makes_models_predictions_scores_plots_and_submission(reproduced: Project) -> None:
    assert models_in_scores(reproduced) == {"bart_mini", "llama32_3b"} | EXTRACTS
    assert set(_json(reproduced, "metrics/ensemble.json")["members"]) == {"llama32_3b", "bart_mini"}
    made = [
        *(f"data/prompts/{split}.jsonl" for split in ("train", "dev", "test")),
        *(f"metrics/{name}.json" for name in ("data", "postprocessing", "submission")),
        *(
            path
            for model in ("llama32_3b", "bart_mini")
            for path in (
                f"models/{model}/tokenizer.json",
                f"metrics/train/{model}.json",
                f"metrics/infer/{model}.json",
                f"plots/training/{model}/metrics.json",
                f"predictions/{model}/dev.jsonl",
                f"predictions/{model}/test.jsonl",
            )
        ),
        "models/llama32_3b/adapter_model.safetensors",
        "models/bart_mini/model.safetensors",
        "plots/leaderboard.png",
        "plots/learning_curves.png",
        "plots/score_by_length.png",
        "scores/breakdowns.csv",
        "scores/rows.csv",
        "submission/checklist.json",
        "submission/checklist.md",
    ]
    assert [path for path in made if not (reproduced.root / path).is_file()] == []


def test_test_rows_are_scored_against_all_their_references(reproduced: Project) -> None:
    """Three a row in the sample, so that `mean` and `max` differ, and people can be scored against each other."""
    scores = _json(reproduced, "metrics/scores.json")
    assert set(scores["test"]["models"]) == {"bart_mini", "llama32_3b", "baseline/human"} | EXTRACTS
    assert scores["test"]["best"]["model"] == scores["best"]["model"]
    assert _json(reproduced, "metrics/ensemble.json")["test"]["rows"] == 4
    rows = pd.read_csv(reproduced.root / "scores/rows.csv")
    human = rows[rows["model"] == "baseline/human"]["rouge_mean"].mean()
    assert human == pytest.approx(scores["test"]["models"]["baseline/human"]["rouge_mean"], abs=0.01)


def test_without_references_test_is_not_scored_and_the_rule_changes_scores(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    mean = _json(project, "metrics/scores.json")
    project.edit(lambda params: params["scoring"].update(references="max"))
    assert running(project.run("dvc", "repro").stdout) == {"prepare_prompts", *AFTER_THEM}
    best = _json(project, "metrics/scores.json")
    assert best["scoring"]["references"] == "max"
    assert best["models"]["baseline/lead_2"] == mean["models"]["baseline/lead_2"]
    for name in ("baseline/lead_2", "baseline/human"):
        assert best["test"]["models"][name]["rouge_mean"] > mean["test"]["models"][name]["rouge_mean"] + 1
    project.edit(lambda params: params["data"].update(test_references=None))
    project.run("dvc", "repro")
    assert "test" not in _json(project, "metrics/scores.json")
    assert "test" not in _json(project, "metrics/ensemble.json")
    assert "Leaderboard: ROUGE F1 on test" not in project.run("yoyak", "leaderboard").stdout


def test_submission_has_the_rows_order_and_columns_of_the_sample(reproduced: Project) -> None:
    sample, submission = (
        pd.read_csv(reproduced.root / path, dtype=str, keep_default_na=False)
        for path in ("data/sample/sample_submission.csv", "submission/submission.csv")
    )
    assert list(submission.columns) == list(sample.columns)
    assert submission.drop(columns="summary").equals(sample.drop(columns="summary"))
    assert submission["summary"].str.strip().all()


def test_a_second_run_runs_nothing(reproduced: Project) -> None:
    assert running(reproduced.run("dvc", "repro").stdout) == set()
    assert reproduced.run("git", "status", "--short").stdout == ""


def test_a_fresh_clone_has_nothing_to_run(reproduced: Project, tmp_path: Path) -> None:
    clone = reproduced.clone(tmp_path / "clone")
    assert "Running stage" not in clone.run("dvc", "repro", "--dry", "--allow-missing").stdout


def test_pull_brings_what_was_pushed(reproduced: Project, tmp_path: Path) -> None:
    pushed = reproduced.copy(tmp_path / "pushed")
    clone = pulled_clone(pushed, tmp_path / "clone")
    for path in (
        "models/llama32_3b/adapter_model.safetensors",
        "models/bart_mini/model.safetensors",
        "predictions/bart_mini/test.jsonl",
        "submission/submission.csv",
    ):
        assert (clone.root / path).read_bytes() == (pushed.root / path).read_bytes()
    assert running(clone.run("dvc", "repro").stdout) == set()


def test_leaderboard_names_the_models_and_the_submission(reproduced: Project) -> None:
    printed = reproduced.run("yoyak", "leaderboard").stdout
    for part in (
        "bart_mini",
        "llama32_3b",
        "ensemble",
        "lead_2",
        "drop_repeated_sentences",
        "submission/submission.csv",
    ):
        assert part in printed
    assert "…" not in printed, "cut off at 80 columns"


# Experiments


@dataclass(frozen=True)
class Experiments:
    """Two, as a user runs them: `alone` in a temporary copy (`--temp`), then `rank8` in the repository itself."""

    project: Project
    alone: str
    rank8: str

    def columns(self, name: str) -> Any:
        """What `dvc exp show --json` says of one."""
        (commit,) = [
            row for row in json.loads(self.project.run("dvc", "exp", "show", "--json").stdout) if row["experiments"]
        ]
        (found,) = [experiment for experiment in commit["experiments"] if experiment["name"] == name]
        return found["revs"][0]["data"]


@pytest.fixture(scope="module")
def experiments(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Experiments:
    project = reproduced.copy(tmp_path_factory.mktemp("experiments") / "project")
    alone = project.run("dvc", "exp", "run", "--temp", "--name", "alone", "-S", "run.models=[bart_mini]").stdout
    rank8 = project.run("dvc", "exp", "run", "--name", "rank8", "-S", "lora.r=8").stdout
    return Experiments(project, alone, rank8)


def test_another_lora_rank_retrains_the_lora_model_alone(experiments: Experiments) -> None:
    ran = running(experiments.rank8)
    assert ran | AFTER_THEM == {"prepare_prompts", "train@llama32_3b", "infer@llama32_3b", *AFTER_THEM}
    # A submission is made anew where its summaries are other ones.
    assert ran >= {"score", "ensemble"}
    assert _json(experiments.project, "models/llama32_3b/adapter_config.json")["r"] == 8


def test_a_model_taken_out_leaves_scores_and_ensemble(experiments: Experiments) -> None:
    ran = running(experiments.alone)
    assert ran | AFTER_THEM == {"prepare_prompts", *AFTER_THEM}
    assert ran >= {"score", "ensemble"}
    metrics = {path: file["data"] for path, file in experiments.columns("alone")["metrics"].items()}
    assert set(metrics["metrics/scores.json"]["models"]) == {"bart_mini"} | EXTRACTS
    assert set(metrics["metrics/ensemble.json"]["weights"]) == {"bart_mini"}


def test_exp_show_compares_experiments(experiments: Experiments) -> None:
    table = experiments.project.run("dvc", "exp", "show", "--md", *NAMES_AND_SCORES).stdout
    (rank8,) = [line for line in table.splitlines() if "[rank8]" in line]
    (alone,) = [line for line in table.splitlines() if "[alone]" in line]
    assert "ensemble.rouge_mean" in table
    assert "ensemble.ci95_low" in table
    assert rank8.split("|")[-2].strip() == "8"
    assert "['bart_mini']" in alone
    assert experiments.columns("rank8")["params"]["params.yaml"]["data"]["lora"]["r"] == 8


def test_metrics_diff_compares_the_run_with_the_commit_and_with_an_experiment(experiments: Experiments) -> None:
    since_commit = experiments.project.run("dvc", "metrics", "diff").stdout
    assert re.search(r"metrics/train/llama32_3b.json +best.eval_loss", since_commit)
    assert "metrics/train/bart_mini.json" not in since_commit
    scores = ("--targets", "metrics/scores.json", "metrics/ensemble.json")
    between = experiments.project.run("dvc", "metrics", "diff", "HEAD", "alone", *scores).stdout
    for figure in ("rouge_mean", "ci95_low", "ci95_high"):
        assert re.search(rf"metrics/scores.json +models.llama32_3b.{figure} +\S+ +-", between)


def test_plots_show_learning_curves_and_leaderboard(experiments: Experiments) -> None:
    experiments.project.run("dvc", "plots", "show")
    page = (experiments.project.root / "dvc_plots/index.html").read_text()
    for model in ("llama32_3b", "bart_mini"):
        assert f"plots/training/{model}" in page
    assert "leaderboard.png" in page
    experiments.project.run("dvc", "plots", "diff", "HEAD", "rank8")
    assert "rank8" in (experiments.project.root / "dvc_plots/index.html").read_text()


# What a change reruns


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda params: params["models"]["bart_mini"]["training"].update(learning_rate=0.003),
            {"train@bart_mini"},
            id="one model's learning rate",
        ),
        pytest.param(
            lambda params: params["models"]["llama32_3b"].update(generation={"candidates": 5}),
            {"infer@llama32_3b"},
            id="one model's beams",
        ),
        pytest.param(
            lambda params: params["lora"].update(dropout=0.1),
            {"train@llama32_3b"},
            id="LoRA",
        ),
        pytest.param(
            lambda params: params["scoring"].update(bootstrap_samples=500),
            {"score", "ensemble"},
            id="scoring",
        ),
        pytest.param(
            lambda params: params["postprocessing"].update(normalise_spaces=True), {"ensemble"}, id="post-processing"
        ),
        pytest.param(lambda params: params["limits"].update(free_gb=0.2), set(), id="a limit of the machine"),
        pytest.param(lambda params: params["models"]["kot5"].update(dtype="fp32"), set(), id="a model not in the run"),
    ],
)
def test_a_parameter_reruns_its_own_stages(
    reproduced: Project, tmp_path: Path, change: Callable[[Any], None], expected: set[str]
) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.edit(change)
    assert after_preflight(project) == expected


def test_editing_the_scorer_retrains_nothing(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    with (project.root / "src/yoyak/evaluation/leaderboard.py").open("a") as file:
        file.write("\n# edited\n")
    assert after_preflight(project) == AFTER_THEM


@pytest.fixture(scope="module")
def edited(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """To edit a file of, and to take the edit back."""
    return reproduced.copy(tmp_path_factory.mktemp("edited") / "project")


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("inference/loading.py", {"prepare_prompts", *INFERENCES}),
        ("inference/decoding.py", {"prepare_prompts", *INFERENCES}),
        ("inference/averaging.py", {"prepare_prompts", *INFERENCES}),
        ("data/tables.py", {"prepare_prompts", "submit"}),
        ("data/prompts.py", {"prepare_prompts", "submit"}),
        ("preflight/add_folds.py", {"prepare_prompts"}),
        ("evaluation/leaderboard.py", {"prepare_prompts", *AFTER_THEM}),
        ("ensembling/weighting.py", {"prepare_prompts", "ensemble"}),
        ("submission/checklist.py", {"prepare_prompts", "submit"}),
        ("reporting/html.py", set()),
        ("sweeps/run.py", set()),
        ("training/qlora.py", {"prepare_prompts", *TRAININGS}),
    ],
)
def test_an_edit_is_of_the_stages_that_import_its_package(edited: Project, file: str, expected: set[str]) -> None:
    """`prepare_prompts` sees all parameters, and so their packages. What it writes stays the same."""
    path = edited.root / "src/yoyak" / file
    before = path.read_text()
    path.write_text(f"{before}\n# edited\n")
    changed = json.loads(edited.run("dvc", "status", "--json").stdout)
    path.write_text(before)
    assert set(changed) == expected


@pytest.mark.parametrize("stage", list(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]))
def test_a_stage_declares_what_it_imports(stage: str) -> None:
    declared = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    (script,) = re.findall(r"stages/\w+\.py", declared["cmd"])
    code = [path.replace("${src}", "src/yoyak") for path in declared["deps"] if path.startswith(("${src}", "stages/"))]
    imported = {script, *imported_files(ROOT / script)}
    assert {file for file in imported if not any(Path(file).is_relative_to(path) for path in code)} == set()
    assert [path for path in code if not any(Path(file).is_relative_to(path) for file in imported)] == []


# The untuned model


def test_untuned_models_come_to_the_leaderboard_and_leave_it(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["run"].update(untuned=["llama32_3b"]))
    ran = running(project.run("dvc", "repro").stdout)
    assert "infer_untuned@llama32_3b" in ran
    assert ran.isdisjoint(BEFORE_THE_SCORES)
    assert "baseline/untuned_llama32_3b" in models_in_scores(project)
    project.edit(lambda params: params["run"].update(untuned=[]))
    project.run("dvc", "repro")
    assert "baseline/untuned_llama32_3b" not in models_in_scores(project)
    # As if it had never been there: with leftovers in it, `predictions` would have another hash than in a fresh clone.
    assert _lock(project)["score"]["deps"] == _lock(reproduced)["score"]["deps"]


# Failures


def test_a_failing_model_stops_no_other_and_the_run_ends_without_it(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    # Which only the loaded model can tell.
    project.edit(lambda params: params["models"]["llama32_3b"].update(lora={"target_modules": ["no_such_layer"]}))
    project.edit(lambda params: params["run"].update(seed=7))
    failed = project.run("dvc", "repro", "--keep-going", check=False)
    assert failed.returncode != 0
    assert "failed to reproduce 'train@llama32_3b'" in failed.stdout
    assert running(failed.stdout) == {"prepare_prompts", "train@llama32_3b", "train@bart_mini", "infer@bart_mini"}

    project.edit(lambda params: params["run"].update(models=["bart_mini"]))
    assert running(project.run("dvc", "repro").stdout) == {"prepare_prompts", *AFTER_THEM}
    assert "llama32_3b" not in models_in_scores(project)
    assert set(_json(project, "metrics/ensemble.json")["members"]) == {"bart_mini"}
    # The failed model's old predictions are not in the way of whoever clones the result.
    project.commit("without it")
    clone = pulled_clone(project, tmp_path / "clone")
    assert running(clone.run("dvc", "repro").stdout) == set()


def test_a_misspelt_key_ends_before_any_work_and_loses_nothing(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    kept = ("data/prompts/train.jsonl", "data/resolved/bart_mini/training.yaml", "submission/submission.csv")
    before = [(project.root / path).read_bytes() for path in kept]
    project.edit(lambda params: params["training"].update(learning_rte=0.001))
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode != 0
    assert running(failed.stdout) == {"prepare_prompts"}
    (told,) = [line for line in failed.stdout.splitlines() if line.startswith("error:")]
    assert "training.learning_rte: unknown key; did you mean 'learning_rate'?" in told
    assert "Traceback" not in failed.stdout

    project.run("git", "checkout", "params.yaml")
    project.run("dvc", "checkout")
    project.run("git", "checkout", "metrics")
    assert [(project.root / path).read_bytes() for path in kept] == before
    assert "up to date" in project.run("dvc", "status").stdout
