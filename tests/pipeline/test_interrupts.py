"""Ctrl-C, at any moment of a stage or a command: one line, and no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import Project, new_project
from written_run import NO_ROWS

from yoyak.core.errors import INTERRUPTED


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return new_project(tmp_path_factory.mktemp("interrupts") / "project", NO_ROWS)


IMPORTED = {"errors": "yoyak.core.errors", "an early one": "pydantic", "a late one": "transformers"}
"""What has been imported when Ctrl-C comes; the first is what answers it."""


@pytest.mark.parametrize("moment", IMPORTED.values(), ids=IMPORTED)
def test_a_stage_that_is_interrupted_while_it_imports(fresh: Project, moment: str, tmp_path: Path) -> None:
    interrupt(fresh, ["stages/infer.py", "bart_mini"], moment, tmp_path)


@pytest.mark.parametrize("moment", ["yoyak.core.errors", "typer", "yoyak.commands", "dvc.repo"])
def test_a_command_that_is_interrupted(fresh: Project, moment: str, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("yoyak")
    interrupt(fresh, [str(command), "status"], moment, tmp_path)


def test_make_competition_that_is_interrupted_names_no_other_command(fresh: Project, tmp_path: Path) -> None:
    interrupt(fresh, ["-m", "yoyak.sweeps", "competition", "data/sample"], "yoyak.sweeps.search", tmp_path)
    assert "`dvc repro`" not in INTERRUPTED


def interrupt(project: Project, script: list[str], module: str, folder: Path) -> None:
    """Ctrl-C to a script when it begins to import what follows `module`."""
    log = folder / "imports"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-v", *script],
            cwd=project.root,
            env=project.environment(),
            stdout=subprocess.DEVNULL,
            stderr=file,
            preexec_fn=ctrl_c_works,
        )
    # Not at the end of the import before it: what answers Ctrl-C may be about to be put in place.
    while "# code object from" not in log.read_text(errors="replace").partition(f"import '{module}' #")[2]:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 128 + signal.SIGINT
    said = log.read_text(errors="replace")
    assert "Traceback" not in said
    # Not at the beginning of a line, perhaps: Python was telling what it imports.
    assert INTERRUPTED in said


def test_dvc_goes_on_after_an_interrupted_stage(fresh: Project) -> None:
    """A terminal sends Ctrl-C to DVC, too, which waits for the stage."""
    run = subprocess.Popen(
        ["dvc", "repro", "prepare_prompts"],
        cwd=fresh.root,
        env=fresh.environment() | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=ctrl_c_works,
    )
    assert run.stdout is not None
    said = ""
    while "python stages" not in said:
        said += run.stdout.readline()
        assert run.poll() is None, said
    # Python itself, which starts before any of our code, says it at length.
    time.sleep(1)
    os.killpg(run.pid, signal.SIGINT)
    rest, _ = run.communicate(timeout=10)
    assert INTERRUPTED in rest
    assert "Traceback" not in rest
    assert "Running stage 'prepare_prompts'" in fresh.run("dvc", "repro", "--dry", "prepare_prompts").stdout


def ctrl_c_works() -> None:
    """pytest may ignore Ctrl-C, as whatever a shell runs behind others does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
