"""The commands of README and of the competition's page, typed as they stand there; and which test types which."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from documents import commands, named, typed
from project import ROOT, Project
from ruamel.yaml import YAML
from twins import llama32, save_twin
from virtual_environment import virtual_environment

from yoyak.preflight.check import read_params

TESTS = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "README.ko.md", "docs/competition.md", "docs/competition.ko.md")
CI = ".ci/run"
RUN_BY = {
    "make repro": "test_commands.py: test_make_repro_runs_the_pipeline_and_prints_the_leaderboard",
    "make test": CI,
    "make docs": CI,
    "make setup": CI,
    "make help": "test_documents.py: test_make_help_lists_the_targets",
    "make competition DATA=folder": "test_commands.py: test_make_competition_writes_the_ensemble_s_summaries",
    "source .venv/bin/activate": "test_commands.py: test_from_csv_files_to_the_score_of_a_submission",
    "dvc add data/raw": "test_commands.py: test_from_csv_files_to_the_score_of_a_submission",
    "dvc add": "test_dvc_habits.py: test_data_is_unlinked_before_it_is_edited",
    "dvc unprotect data/raw": "test_dvc_habits.py: test_data_is_unlinked_before_it_is_edited",
    "dvc repro -s prepare_prompts": "test_commands.py: test_from_csv_files_to_the_score_of_a_submission",
    "dvc repro --keep-going": "test_commands.py: test_a_run_that_is_killed_goes_on",
    "dvc checkout": "test_pipeline.py: test_a_misspelt_key_ends_before_any_work_and_loses_nothing",
    "git checkout metrics": "test_pipeline.py: test_a_misspelt_key_ends_before_any_work_and_loses_nothing",
    "yoyak status": "test_dvc_habits.py: test_status_names_what_a_parameter_makes_stale_and_why",
    "yoyak leaderboard": "test_commands.py: test_from_csv_files_to_the_score_of_a_submission",
    "yoyak --lang ko": "test_language.py: test_an_error_stays_as_the_documents_quote_it",
    "yoyak folds kobart 5": "test_commands.py: test_folds_of_a_model_become_entries",
    'yoyak submissions add submission/submission.csv --public 47.1 --note "qwen3, 8 candidates"': (
        "test_commands.py: test_from_csv_files_to_the_score_of_a_submission"
    ),
    "yoyak submissions add submission/submission.csv --private 45.2": (
        "test_commands.py: test_from_csv_files_to_the_score_of_a_submission"
    ),
    "yoyak submissions": "test_commands.py: test_from_csv_files_to_the_score_of_a_submission",
    "yoyak summarize": "test_averaging.py: test_it_is_asked_like_any_model",
    "yoyak serve": "test_web.py: address",
}
"""Each command of these pages, and the test or fixture that types it; or what CI runs."""


# Which test types which


def test_each_command_is_run_by_a_test() -> None:
    """Prose may name a command without what it needs: a test of the whole command will do."""
    pages = [ROOT / document for document in DOCUMENTS]
    blocks = {command for page in pages for command in typed(page)}
    listed = {next(commands(command)): by for command, by in RUN_BY.items()}
    assert set(listed) == blocks | {command for page in pages for command in named(page)}
    for command, by in listed.items():
        assert is_run(command, by, whole=command in blocks), f"{' '.join(command)}: not by {by}"


def is_run(command: tuple[str, ...], by: str, whole: bool) -> bool:
    if by == CI:
        return command in {each for line in (ROOT / CI).read_text().splitlines() for each in lenient(line)}
    file, _, function = by.partition(": ")
    run = commands_of(next(TESTS.rglob(file)), function)
    return any(each == command or (not whole and each[: len(command)] == command) for each in run)


def commands_of(path: Path, name: str) -> set[tuple[str, ...]]:
    """What a function types, or one of the same file that it calls or has as a fixture."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
    assert name in functions, f"{path.name} has no {name}"
    used = {node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)}
    used |= {argument.arg for argument in functions[name].args.args}
    return {
        command
        for each in [name, *used & functions.keys()]
        for statement in functions[each].body[ast.get_docstring(functions[each]) is not None :]
        for node in ast.walk(statement)
        for command in _commands_of(node)
    }


def _commands_of(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Of a text, its own; of a call or a list, the texts that it begins with: `run("dvc", "repro")`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
        yield from lenient(node.value)
    words = node.args if isinstance(node, ast.Call) else node.elts if isinstance(node, ast.List) else []
    texts = [word.value if isinstance(word, ast.Constant) else None for word in words]
    end = next((place for place, text in enumerate(texts) if not isinstance(text, str)), len(texts))
    yield tuple(map(str, texts[:end]))


def lenient(line: str) -> list[tuple[str, ...]]:
    """Of any text: most are no command, and their quotes not of a shell."""
    try:
        return list(commands(line))
    except ValueError:
        return []


def test_a_command_that_no_test_types_is_found() -> None:
    by = "test_pipeline.py: test_a_second_run_runs_nothing"
    assert is_run(("dvc", "repro"), by, whole=True)
    assert not is_run(("dvc", "repro", "--force"), by, whole=True)
    assert not is_run(("dvc",), by, whole=True)
    assert is_run(("dvc",), by, whole=False)
    assert not is_run(("make", "clean"), CI, whole=True)
    with pytest.raises(AssertionError, match=r"test_pipeline.py has no test_gone"):
        is_run(("dvc", "repro"), "test_pipeline.py: test_gone", whole=True)


# Typing them


def set_up(project: Project) -> None:
    """What `make setup` and `make weights` leave: `make` finds both done."""
    for part in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / part, project.root / part)
    shutil.copytree(ROOT / "requirements", project.root / "requirements")
    virtual_environment(project.root / ".venv")
    project.commit("what make reads")
    for ready in (".venv/torch-cpu", ".venv/torch-cuda", ".venv/ready", ".cache/packages/ready"):
        (project.root / ready).parent.mkdir(parents=True, exist_ok=True)
        (project.root / ready).touch()


def type_in(project: Project, *lines: str) -> str:
    """One shell, as it stops at the first line that fails; what it printed."""
    return project.run("bash", "-euo", "pipefail", "-c", "\n".join(lines)).stdout


def running(printed: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':", printed, re.MULTILINE))


def test_make_repro_runs_the_pipeline_and_prints_the_leaderboard(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    set_up(project)
    project.edit(lambda params: params["scoring"].update(bootstrap_samples=500))
    printed = type_in(project, "make repro")
    assert running(printed) == {"prepare_prompts", "score", "ensemble", "submit"}
    for part in ("Leaderboard: ROUGE F1 on dev", "bart_mini", "llama32_3b", "submission/submission.csv"):
        assert part in printed
    for part in ("installing", "download"):
        assert part not in printed


def test_from_csv_files_to_the_score_of_a_submission(project: Project) -> None:
    set_up(project)
    (project.root / "data/raw").mkdir()
    for name in ("train.csv", "dev.csv", "test.csv", "sample_submission.csv"):
        shutil.copyfile(project.root / "data/sample" / name, project.root / "data/raw" / name)
    activate = "source .venv/bin/activate"
    # Before `dvc add`, too, `git add .` must not take somebody's rows.
    assert "data/raw" not in project.run("git", "status", "--short", "--untracked-files").stdout
    assert "data/raw.dvc" in type_in(project, activate, "dvc add data/raw", "git status --short --untracked-files")

    project.edit(lambda params: params["data"].update(dir="data/raw", test_references=None))
    project.edit(lambda params: params["run"].update(models=["llama32_3b", "bart_mini"], untuned=[]))
    assert running(type_in(project, activate, "dvc repro -s prepare_prompts")) == {"prepare_prompts"}
    assert not (project.root / "models").exists()

    printed = type_in(project, activate, "dvc repro --keep-going", "yoyak leaderboard")
    assert running(printed) >= {"train@llama32_3b", "infer@llama32_3b", "train@bart_mini", "submit"}
    assert "Leaderboard: ROUGE F1 on dev" in printed
    assert "Leaderboard: ROUGE F1 on test" not in printed
    submission, sample = (
        pd.read_csv(project.root / path) for path in ("submission/submission.csv", "data/raw/sample_submission.csv")
    )
    assert list(submission["fname"]) == list(sample["fname"])
    assert (project.root / "submission/checklist.md").is_file()

    printed = type_in(
        project,
        activate,
        'yoyak submissions add submission/submission.csv --public 47.1 --note "qwen3, 8 candidates"',
        "yoyak submissions add submission/submission.csv --private 45.2",
        "yoyak submissions",
    )
    for part in ("47.1", "45.2", "plots/submissions.png"):
        assert part in printed
    (row,) = pd.read_csv(project.root / "submissions.csv").to_dict("records")
    assert (row["public"], row["private"], row["note"]) == (47.1, 45.2, "qwen3, 8 candidates")
    assert row["dev"] == json.loads((project.root / "metrics/ensemble.json").read_text())["ensemble"]["rouge_mean"]


def test_a_run_that_is_killed_goes_on(reproduced: Project, tmp_path: Path) -> None:
    """DVC and its stage at once: DVC's lock stays behind, and is not in the way."""
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["run"].update(models=["bart_mini"]))
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(epochs=6, early_stopping_patience=6))
    shutil.rmtree(project.root / ".cache/checkpoints", ignore_errors=True)
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            ["dvc", "repro", "--keep-going"],
            cwd=project.root,
            env=project.environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while not list((project.root / ".cache/checkpoints").glob("*/checkpoint-*/trainer_state.json")):
            assert run.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    # From so few rows no summary is one that could be submitted.
    printed = project.run("dvc", "repro", "--keep-going", check=False).stdout
    assert running(printed) >= {"train@bart_mini", "infer@bart_mini", "score", "ensemble"}
    assert "prepare_prompts" not in running(printed)
    record = json.loads((project.root / "metrics/train/bart_mini.json").read_text())
    assert 0 < record["resumed_at_step"] < record["steps"] == 6


def test_folds_of_a_model_become_entries(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    type_in(project, "yoyak folds kobart 5")
    models = read_params(project.root / "params.yaml").models
    assert {name for name in models if name.startswith("kobart_")} == {f"kobart_f{part}" for part in range(5)}


def test_make_competition_writes_the_ensemble_s_summaries(reproduced: Project, tmp_path: Path) -> None:
    """By a list of one model, a twin; its weights are given, where the real ones are downloaded."""
    project = reproduced.copy(tmp_path / "project")
    set_up(project)
    (project.root / "sweeps").mkdir()
    _write_a_list_of_one(project.root / "sweeps/final.yaml", tmp_path / "weights/twin")
    shutil.copytree(project.root / "data/sample", project.root / "folder")
    save_twin(llama32, tmp_path / "weights/twin")
    weights = f"WEIGHTS={tmp_path / 'weights'}"
    printed = project.run("make", "competition", "DATA=folder", weights).stdout
    assert "submission/final.csv: written; used: best of q15_a" in printed
    written = pd.read_csv(project.root / "submission/final.csv")
    assert list(written["fname"]) == list(pd.read_csv(project.root / "folder/test.csv")["fname"])


def _write_a_list_of_one(path: Path, weights: Path) -> None:
    """The final models' list with the first of its models alone, shrunk."""
    content: Any = YAML(typ="safe").load((ROOT / "sweeps/final.yaml").read_text(encoding="utf-8"))
    params = content["params"]
    params["training"].update(epochs=1)
    params["generation"].update(candidates=2, max_new_tokens=24)
    params["models"] = {"q15_a": params["models"]["q15_a"] | {"weights": str(weights), "dtype": "fp32"}}
    content["set"] = ["run.untuned=[]"]
    content["experiments"] = {"q15_a": ["run.models=[q15_a]"], "ensemble": ["run.models=[q15_a]"]}
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(content, file)
