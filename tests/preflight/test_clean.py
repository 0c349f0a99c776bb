"""`yoyak clean` names what nothing needs, deletes it where asked to, and leaves what anything needs."""

import os
from pathlib import Path

import pytest
from filelock import FileLock
from project import Project
from ruamel.yaml import YAML

from yoyak.core import dvc_lock
from yoyak.core.errors import UserError
from yoyak.preflight import clean

PIPELINE = "stages: {a: {cmd: cp params.yaml a, deps: [params.yaml], outs: [a]}}\n"
KEY = "0123456789ab"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A git and DVC repository of one stage, whose output is its `params.yaml`."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    monkeypatch.chdir(project.root)
    for name, value in project.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_ROOT", str(project.root))
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("dvc", "init", "--quiet")
    (project.root / "dvc.yaml").write_text(PIPELINE)
    (project.root / ".gitignore").write_text("/.cache\n")
    _run(project, "first", "base/first")
    project.commit()
    return project


def _run(project: Project, model: str, weights: str) -> bytes:
    """Reproduce with this one model; the stage's output."""
    with (project.root / "params.yaml").open("w") as file:
        YAML().dump({"models": {model: {"weights": weights}}}, file)
    project.run("dvc", "repro", "--quiet")
    return (project.root / "a").read_bytes()


def _make(*folders: str) -> list[Path]:
    """Folders of scratch or weights, 2 KB each, with lock files beside them."""
    made = [Path(os.environ["DVC_ROOT"], ".cache", folder) for folder in folders]
    for folder in made:
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"0" * 2000)
        folder.with_name(f"{folder.name}.lock").touch()
    return made


def _printed(lines: list[object]) -> str:
    from rich.console import Console

    console = Console(width=300)
    with console.capture() as printed:
        console.print(*lines, sep="\n")
    return printed.get()


def test_what_anything_needs_stays_and_the_rest_goes(project: Project) -> None:
    """A branch, a tag, a kept experiment and the workspace each have a model, weights and an output of their own."""
    needed = {"first": "base/first"}
    project.run("git", "checkout", "--quiet", "-b", "side")
    _run(project, "of_branch", "base/of.branch")
    project.commit()
    project.run("git", "checkout", "--quiet", "main")
    _run(project, "of_tag", "base/of_tag")
    project.commit()
    project.run("git", "tag", "kept")
    project.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    _run(project, "of_experiment", "base/of_experiment")
    project.run("dvc", "exp", "save", "--name", "kept_one")
    _run(project, "lost", "base/lost")
    _run(project, "of_workspace", "base/of_workspace")
    needed |= {name: f"base/{name}" for name in ("of_tag", "of_experiment", "of_workspace")}
    needed["of_branch"] = "base/of.branch"

    stays = _make(
        *(f"checkpoints/{name}-{KEY}cdef" for name in needed),
        f"predictions/untuned_of_tag-{KEY}cdef",
        *(f"weights/{weights.replace('/', '--')}-{KEY}" for weights in needed.values()),
        "weights/made by hand",
        "put_away/models/own",
    )
    goes = _make(
        f"checkpoints/lost-{KEY}cdef",
        f"checkpoints/first-{KEY}0000.deleted",
        f"predictions/untuned_lost-{KEY}cdef",
        f"weights/base--lost-{KEY}",
        f"weights/base--first-{KEY}.half",
    )
    objects = {path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}
    locks = list(Path(".cache").rglob("*.lock"))

    told = _printed(clean.clean(delete=False))
    assert all(path.exists() for path in (*stays, *goes, *objects, *locks))
    named = {line.split()[0] for line in told.splitlines() if line.startswith(".cache/")}
    assert named == {str(path.relative_to(project.root)) for path in goes}
    assert "1 files that nothing needs, as `dvc gc` says" in told
    assert "`yoyak clean --yes` deletes this and frees 10.0 KB" in told

    done = _printed(clean.clean(delete=True))
    assert "freed: 10.0 KB" in done
    assert all(path.exists() for path in stays)
    assert not any(path.exists() for path in goes)
    (lost,) = objects - {path for path in Path(".dvc/cache/files").rglob("*") if path.is_file()}
    assert not lost.exists()
    assert {path.parent.parent.name for path in Path(".cache").rglob("*.lock")} <= {"models", ".cache", "put_away"}
    assert "frees 0 bytes" in _printed(clean.clean(delete=False))
    for revision in ("side", "kept"):
        project.run("git", "checkout", "--quiet", "--force", revision)
        project.run("dvc", "checkout", "--quiet")


def test_nothing_is_deleted_while_a_stage_runs(project: Project) -> None:
    (folder,) = _make(f"checkpoints/lost-{KEY}cdef")
    with FileLock(folder.with_name(f"{folder.name}.lock")), pytest.raises(UserError, match=r"^a stage runs \(lock: "):
        clean.clean(delete=True)
    writing = f'{{"write": {{"/models/a": {{"pid": {os.getpid()}, "cmd": "dvc repro"}}}}}}'
    (project.root / ".dvc/tmp/rwlock").write_text(writing)
    with pytest.raises(UserError, match=r"^a stage runs, and writes /models/a: clean when it has ended$"):
        clean.clean(delete=True)
    assert folder.exists()
    assert dvc_lock.written_now(project.root / ".dvc/tmp") == {"/models/a"}


def test_parameters_that_cannot_be_read_keep_all(project: Project) -> None:
    (folder,) = _make(f"checkpoints/lost-{KEY}cdef")
    project.run("git", "checkout", "--quiet", "-b", "broken")
    (project.root / "params.yaml").write_text("models: [")
    project.commit()
    project.run("git", "checkout", "--quiet", "main")
    with pytest.raises(UserError, match="not valid YAML"):
        clean.clean(delete=True)
    assert folder.exists()
