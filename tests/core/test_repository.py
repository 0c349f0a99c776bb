"""A repository that git does not read is told, and the run goes on."""

import subprocess
from pathlib import Path

import pytest
from pygit2 import GitError

from yoyak.core import repository
from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError

MEND = "`git config --global --add safe.directory "


@pytest.fixture
def of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is entered, as git sees one whose files are another user's."""
    folder = tmp_path / "larger repository/project"
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", folder.parent], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    repository._note.cache_clear()
    return folder


def test_no_commit_is_recorded_only_with_a_note(of_another_user: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repository.commit() == repository.NO_COMMIT
    assert repository.commit() == repository.NO_COMMIT
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: git does not read this repository, which belongs to another user: ")
    assert MEND in note
    assert str(of_another_user.parent) in note


def test_what_needs_git_says_how_it_reads(of_another_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=MEND), in_one_line("workspace"):
        raise GitError(f"repository path '{of_another_user}' is not owned by current user")
    monkeypatch.delenv("GIT_TEST_ASSUME_DIFFERENT_OWNER")
    assert repository.refusal() is None
    with pytest.raises(GitError), in_one_line("workspace"):
        raise GitError("another fault")


def test_a_folder_without_git_needs_no_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert repository.commit() == repository.NO_COMMIT
    assert capsys.readouterr().err == ""


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was started with a number of its host's."""
    with pytest.raises(UserError, match="export USER="), in_one_line("workspace"):
        raise KeyError("getpwuid(): uid not found: 12345")
    with pytest.raises(KeyError), in_one_line("workspace"):
        raise KeyError("another")
