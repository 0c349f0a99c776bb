"""DVC's own files that a kill has cut off are mended, but not while DVC works."""

import subprocess
from pathlib import Path

import pytest
from dvc.dvcfile import Lockfile
from dvc.repo import Repo
from project import Project

from yoyak.core import cut_off
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
            cut_off.mend(Path())
        holder.communicate(b"\n")

    cut_off.mend(Path())
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
    cut_off.mend(tmp_path)
    assert path.exists() == stays
    assert ("removed" in capfd.readouterr().err) == (not stays and content is not None)


@pytest.mark.parametrize("committed", [True, False])
def test_a_lock_file_that_is_cut_off_costs_no_result(
    pipeline: Project, committed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever it ends: DVC reads it again, and finds what the stages made in its cache."""
    stages = ", ".join(f"s{i}: {{cmd: echo {i} >> ran; cp given o{i}, deps: [given], outs: [o{i}]}}" for i in range(3))
    (pipeline.root / "given").write_text("data")
    (pipeline.root / "dvc.yaml").write_text(f"stages: {{{stages}}}\n")
    pipeline.run("dvc", "repro")
    path, ran = pipeline.root / "dvc.lock", pipeline.root / "ran"
    whole, lines = path.read_text(), ran.read_text()
    if committed:
        pipeline.run("git", "add", "--all")
        pipeline.run("git", "commit", "--quiet", "--message", "run")
    mended = set()
    repo = Repo()
    for end in range(0, len(whole), 7):
        path.write_text(whole[:end])
        cut_off.mend(Path())
        said = capfd.readouterr().err
        mended.add(said)
        if path.exists():
            Lockfile(repo, str(path)).load()
        assert cut_off.cut_off(Path()) == []
        if committed and said:
            assert path.read_text() == whole
    because = "DVC was killed over it, and could not read it"
    how = ["took dvc.lock from the commit"] if committed else ["removed dvc.lock", "shortened dvc.lock"]
    assert mended == {"", *(f"{each}: {because}\n" for each in how)}
    path.write_text(whole[: len(whole) // 2])
    assert "dvc.lock" in pipeline.run("dvc", "repro", check=False).stdout
    cut_off.mend(Path())
    pipeline.run("dvc", "repro")
    assert (path.read_text(), ran.read_text()) == (whole, lines)


@pytest.mark.parametrize(
    "fault",
    [
        "<<<<<<< HEAD\n",
        "  a:\n    cmd: echo\n<<<<<<< HEAD\n",
        "schema: '2.0'\nstages: [\n",
        "ㅋ",
        "schema: '2.0'\nstage: {}\n",
    ],
)
def test_a_lock_file_that_is_wrong_in_another_way_is_left_alone(pipeline: Project, fault: str) -> None:
    """What a user or a merge has written, no kill has."""
    path = pipeline.root / "dvc.lock"
    for content in (fault, cut_off.HEADER + fault):
        path.write_text(content)
        cut_off.mend(Path())
        assert path.read_text() == content
