"""One run that is killed, or interrupted, and goes on: what it lost, and how what it ends with differs."""

import hashlib
import json
import random
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills import Duration, Reproduction
from project import Project
from sameness import differences, dvc_leftovers, leftovers

from yoyak.training.checkpoints import last_checkpoint

TWICE = 0.25
"""Of the killed runs, how many are killed again when they go on."""
AT_ONCE = 0.5
"""Where DVC alone is killed, how often the next one starts while the stage still works."""
TOO_LATE = 6
"""Attempts to meet a stage before it has ended."""
RWLOCK = "JSON structure is corrupted"
"""DVC's message where it was killed between emptying its rwlock and writing it."""
REFUSED = "another process works on"
"""The stage's, where one of the same work is alive."""
CTRL_C = 10.0
"""Seconds within which an interrupted run ends."""


@dataclass
class Trial:
    """A copy of the project whose stage was killed while it ran."""

    stage: str
    how: str
    kills: list[dict[str, Any]] = field(default_factory=list)
    """Of each: who was killed, when (seconds from the stage's start, or its end), what had been done and saved."""
    resumed_at: dict[str, int] | None = None
    """Where the last run took it up: training's step, inference's row of each split; None: it did not run again."""
    lost: int | None = None
    """Steps or rows that were computed again."""
    refused: bool = False
    """DVC's next run met the stage of the one before, and ended in one line."""
    rwlock_emptied: int = 0
    seconds: float | None = None
    """From Ctrl-C until no process was left."""
    faults: list[str] = field(default_factory=list)
    of_dvc: list[str] = field(default_factory=list)
    """What DVC itself has left behind."""


def killed(project: Project, folder: Path, stage: str, how: str, took: Duration, draw: random.Random) -> Trial:
    """Kill, perhaps twice, go on to the end and compare."""
    trial, work = Trial(stage, how), _without(project, folder, stage)
    for _ in range(2 if draw.random() < TWICE else 1):
        _kill_once(work, trial, took, draw)
    _go_on(work, trial)
    _compare(work, project, trial)
    return trial


def interrupted(
    project: Project, folder: Path, stage: str, command: tuple[str, ...], took: Duration, draw: random.Random
) -> Trial:
    """Ctrl-C in the midst of the stage, then on to the end and compare."""
    trial, work = Trial(stage, f"Ctrl-C, {' '.join(command)}"), _without(project, folder, stage)
    # What the environment needs is there: it is this very one.
    run = Reproduction(work, *command, *(("--old-file=setup", "--old-file=weights") if command[0] == "make" else ()))
    run.wait_for_stage(stage, saving=False)
    moment = draw.uniform(0, took.working)
    time.sleep(moment)
    trial.kills.append(
        {"target": "Ctrl-C", "moment": round(moment, 2), "phase": _phase(run), **_done(work.root, stage)}
    )
    trial.seconds = round(run.interrupt(), 1)
    if trial.seconds > CTRL_C:
        trial.faults.append(f"Ctrl-C: it ended after {trial.seconds} s")
    if "Traceback" in run.printed:
        trial.faults.append("Ctrl-C: a traceback")
    _go_on(work, trial)
    _compare(work, project, trial)
    return trial


def _without(project: Project, folder: Path, stage: str) -> Project:
    """A copy in which the stage has not run yet, nor is anything of it in DVC's cache."""
    folder.mkdir()
    # Hard links into DVC's cache stay hard links.
    subprocess.run(["cp", "-a", str(project.root), str(folder / "project")], check=True)
    work = Project(folder / "project")
    removed: list[Any] = []
    work.edit(lambda lock: removed.extend(lock["stages"].pop(stage)["outs"]), "dvc.lock")
    for entry in removed:
        path = work.root / entry["path"]
        for file in path.rglob("*") if path.is_dir() else (path,):
            if file.is_file():
                _cached(work.root, hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()).unlink(
                    missing_ok=True
                )
        _cached(work.root, entry["md5"]).unlink(missing_ok=True)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(work.root / ".dvc/cache/runs")
    return work


def _cached(root: Path, md5: str) -> Path:
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def _kill_once(work: Project, trial: Trial, took: Duration, draw: random.Random) -> None:
    """At a random moment of the stage; earlier, where it had ended by then."""
    saving = trial.how == "saving"
    target = draw.choice(("group", "dvc")) if saving else trial.how
    longest = took.saving if saving else took.working
    for _ in range(TOO_LATE):
        run, moment = Reproduction(work), draw.uniform(0, longest)
        if run.wait_for_stage(trial.stage, saving):
            time.sleep(moment)
            phase = _phase(run)
            if run.kill(target):
                at_once = target == "dvc" and draw.random() < AT_ONCE
                _after_the_kill(run, work, trial, target, moment, phase, at_once)
                return
        if run.wait():
            _not_ended_well(run, work, trial)
        elif f"Running stage '{trial.stage}'" not in run.printed:
            # The run before had all but ended: there is nothing left to kill.
            return
        longest = moment
        _forget(work, trial.stage)


def _forget(work: Project, stage: str) -> None:
    """What ended before it was killed has not run yet."""
    work.edit(lambda lock: lock["stages"].pop(stage, None), "dvc.lock")
    shutil.rmtree(work.root / ".dvc/cache/runs", ignore_errors=True)


def _phase(run: Reproduction) -> str:
    return "working" if run.stages() else "saving"


def _after_the_kill(
    run: Reproduction, work: Project, trial: Trial, target: str, moment: float, phase: str, at_once: bool
) -> None:
    if at_once:
        run.process.wait()
    else:
        run.wait()
    trial.kills.append(
        {
            "target": target,
            "moment": round(moment, 2),
            "phase": phase,
            "at_once": at_once,
            **_done(work.root, trial.stage),
        }
    )


def _done(root: Path, stage: str) -> dict[str, Any]:
    """What a killed stage has written down: `did` steps of `saved` ones; rows of each split."""
    kind, _, model = stage.partition("@")
    if kind == "train":
        folder = next((root / ".cache/checkpoints").glob(f"{model}-*/"), None)
        checkpoint = last_checkpoint(folder) if folder else None
        curve = next((root / "plots/training" / model).rglob("metrics/loss.tsv"), None)
        did = curve.read_text().splitlines()[-1:] if curve else []
        step = did[0].split("\t")[0] if did else "0"
        saved = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
        return {"saved": {"step": saved}, "did": int(step) if step.isdigit() else saved}
    if kind == "infer":
        rows = {
            file.parent.name: file.read_bytes().count(b"\n")
            for file in (root / ".cache/predictions").glob(f"{model}-*/*/first.jsonl")
        }
        return {"saved": rows}
    return {}


def _go_on(work: Project, trial: Trial) -> None:
    """`dvc repro` until it ends with 0; in between, what it says is noted."""
    before = trial.kills[-1] if trial.kills else {}
    for _ in range(3):
        run = Reproduction(work)
        code = run.wait()
        ran = f"Running stage '{trial.stage}'" in run.printed
        if code == 0:
            _note_resumed(work.root, trial, before, ran)
            return
        _not_ended_well(run, work, trial)
    trial.faults.append("dvc repro does not end with 0")


def _not_ended_well(run: Reproduction, work: Project, trial: Trial) -> None:
    if RWLOCK in run.printed:
        trial.rwlock_emptied += 1
        (work.root / ".dvc/tmp/rwlock").unlink()
    elif REFUSED in run.printed:
        trial.refused = True
    else:
        print(run.printed, flush=True)
        trial.faults.append(f"dvc repro ended with {run.process.returncode}: {run.printed.strip().splitlines()[-1]}")


def _note_resumed(root: Path, trial: Trial, before: dict[str, Any], ran: bool) -> None:
    kind, _, model = trial.stage.partition("@")
    if not ran or kind not in ("train", "infer"):
        return
    record = json.loads((root / f"metrics/{kind}/{model}.json").read_text())
    saved = before.get("saved", {})
    if kind == "train":
        trial.resumed_at = {"step": record["resumed_at_step"]}
        trial.lost = max(0, before.get("did", 0) - record["resumed_at_step"])
    else:
        trial.resumed_at = {split: record[split]["resumed_at_row"] for split in ("dev", "test")}
        trial.lost = sum(max(0, rows - trial.resumed_at[split]) for split, rows in saved.items())
    for what, done in saved.items():
        if trial.resumed_at[what] < done:
            trial.faults.append(f"{what}: {done} were saved, and it went on at {trial.resumed_at[what]}")


def _compare(work: Project, project: Project, trial: Trial) -> None:
    trial.faults += differences(work.root, project.root) + leftovers(work.root)
    trial.of_dvc += dvc_leftovers(work.root)
