"""A repository of experiments that no model made: texts are written by a stage, and the rest is the pipeline's own."""

import shutil
from pathlib import Path
from typing import Any

import written_texts
from project import Project, new_project
from written_run import NO_ROWS

MODELS = {"alpha": {"right": 0.5}, "beta": {"right": 0.45}}
FIRST = {
    "cmd": "${python} stages/write_texts.py",
    "deps": ["stages/write_texts.py"],
    "outs": ["data/prompts", "data/references", "predictions", "plots/training"],
}


def repository_of_experiments(root: Path, rows: int, models: dict[str, Any] = MODELS) -> Project:
    """The first run, committed; `try_out` makes an experiment of it."""
    project = new_project(root, NO_ROWS)
    shutil.copyfile(written_texts.__file__, root / "stages/write_texts.py")

    def shrink(pipeline: Any) -> None:
        stages = pipeline["stages"]
        first = {**FIRST, "params": stages["prepare_prompts"]["params"]}
        pipeline["stages"] = {"prepare_prompts": first, **{name: stages[name] for name in ("score", "ensemble")}}
        del pipeline["artifacts"]

    def set_up(params: Any) -> None:
        params["run"].update(models=list(models), untuned=[])
        params["data"]["dev"] = rows
        params["models"] = models

    project.edit(shrink, "dvc.yaml")
    project.edit(set_up)
    project.commit("texts in the place of models")
    project.run("dvc", "repro", "--quiet")
    project.commit("the first run")
    return project


def try_out(project: Project, name: str, *changes: str) -> None:
    """An experiment that begins at the commit, as a user runs it; the folder is as the commit again."""
    settings = [part for change in changes for part in ("-S", change)]
    project.run("dvc", "exp", "run", "--quiet", "--name", name, *settings)
    project.run("git", "checkout", "--quiet", ".")


def back_to_the_commit(project: Project) -> None:
    project.run("dvc", "checkout", "--quiet")
