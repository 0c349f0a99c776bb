"""DVC's own file of who writes what is emptied by a kill: it is removed, but not while DVC works."""

import subprocess
from pathlib import Path

import pytest
from project import Project

from yoyak.core import dvc_lock
from yoyak.core.errors import UserError

HELD = "from dvc.repo import Repo\nwith Repo() as repo, repo.lock:\n    print('held', flush=True)\n    input()\n"
"""Holds DVC's lock until it is told to end."""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A DVC repository with a stage."""
    monkeypatch.chdir(tmp_path)
    pipeline = Project(tmp_path)
    pipeline.run("git", "init", "--quiet")
    pipeline.run("dvc", "init", "--quiet")
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: echo a > a, outs: [a]}}\n")
    return pipeline


def test_dvc_runs_again_after_its_file_was_emptied(pipeline: Project, capfd: pytest.CaptureFixture[str]) -> None:
    path = pipeline.root / ".dvc/tmp/rwlock"
    path.write_text("")
    failed = pipeline.run("dvc", "repro", check=False)
    assert "Unable to read RWLock-file '.dvc/tmp/rwlock'" in failed.stdout

    with subprocess.Popen(
        ["python", "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=pipeline.environment()
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(UserError, match=r"^\.dvc/tmp/rwlock is cut off, and DVC is at work: wait"):
            dvc_lock.mend(Path())
        holder.communicate(b"\n")

    dvc_lock.mend(Path())
    assert capfd.readouterr().err == "removed .dvc/tmp/rwlock: DVC was killed over it, and could not read it\n"
    assert not path.exists()
    pipeline.run("dvc", "repro")


@pytest.mark.parametrize(
    ("content", "stays"),
    [("", False), ('{"read"', False), ('{"read": {}} 1', False), ('{"read": {}}', True), ("{}", True), (None, False)],
)
def test_what_is_whole_stays(
    tmp_path: Path, content: str | None, stays: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    dvc_lock.mend(tmp_path)
    assert path.exists() == stays
    assert ("removed" in capfd.readouterr().err) == (not stays and content is not None)
