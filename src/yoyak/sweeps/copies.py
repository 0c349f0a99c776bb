"""A copy of the project for each run: its own parameters and data, DVC's cache and the weights shared.

The project is the one in the working folder.
"""

import contextlib
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from dvc.utils.collections import merge_dicts
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from yoyak.core.repository import cache_folder
from yoyak.sweeps.data_folder import REFERENCES

PARTS = ("src", "stages", "dvc.yaml", "params.yaml", "weights.lock.yaml", ".dvcignore", ".dvc/config")
DATA = Path("data/raw")
WITHOUT_GIT = "[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n"
SHARED = ("packages", "weights")
"""Of `.cache`: what is downloaded and converted once for all."""
KILLED_SECONDS = 10
"""Most that is waited for what was killed."""


def make(folder: Path, cache: Path, data: Path, changes: dict[str, Any], overrides: list[str]) -> None:
    """Copy the project to `folder`, its parameters changed first by the mapping, then by overrides as `-S` takes them.

    `cache` is DVC's for all copies, `data` a folder of CSV files. A copy that is there already is brought up to date,
    and what it has computed stays.
    """
    for part in PARTS:
        replace(Path(part), folder / part)
    replace(data, folder / DATA)
    (folder / ".dvc/config.local").write_text(WITHOUT_GIT.format(cache=cache.resolve()), encoding="utf-8")
    for name in SHARED:
        _link(folder / ".cache" / name, cache_folder() / name)
    write_params(folder / "params.yaml", data, changes, overrides)


def replace(source: Path, target: Path) -> None:
    """Copy a file or a folder, and keep nothing that was there: a module that was renamed must not be imported."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))


def write_params(path: Path, data: Path, changes: dict[str, Any], overrides: list[str]) -> None:
    """Write the project's `params.yaml` with the changes of an experiment on that data folder.

    Raises DVC's `InvalidArgumentError`, or `ValueError`, for an override that cannot be applied.
    """
    references = REFERENCES if (data / REFERENCES).exists() else "null"
    yaml = YAML()
    content = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    merge_dicts(content, changes)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    apply_overrides(path, [f"data.dir={DATA}", f"data.test_references={references}", *overrides])


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target.resolve())


def repro(
    folder: Path, log: Path, environment: dict[str, str], last: str = "ensemble", seconds: float = math.inf
) -> bool:
    """Run `dvc repro` up to the stage `last` in a copy; whether it ended well, within so many seconds.

    What it prints goes to `log`.
    """
    log.write_text("", encoding="utf-8")
    return python(["-m", "dvc", "repro", last], log, {**of_copy(folder), **environment}, folder, seconds)


def of_copy(folder: Path) -> dict[str, str]:
    """Environment of DVC in a copy."""
    return {
        "PATH": _path(Path(sys.executable).parent, os.environ["PATH"]),
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / ".dvc/site"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _path(own: Path, given: str) -> str:
    """With this Python's folder; where the environment is active, it is there."""
    return given if str(own) in given.split(os.pathsep) else f"{own}{os.pathsep}{given}"


def python(
    arguments: list[str],
    log: Path,
    environment: dict[str, str],
    folder: Path | None = None,
    seconds: float = math.inf,
) -> bool:
    """Run this Python in `folder`; whether it ended well, and within so many seconds: it is killed after them.

    What it prints is added to `log`.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**inherited, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            # A lock that is to be held by what outlives this process is inheritable; no other file is.
            close_fds=False,
        )
        try:
            return process.wait(None if seconds == math.inf else max(0, seconds)) == 0
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            process.wait()
            file.write("killed: its time was up\n")
            return False


def _kill(pid: int) -> None:
    """With all that it has started: a stage outlives the `dvc repro` that it is of."""
    parent = psutil.Process(pid)
    started = parent.children(recursive=True)
    for process in [parent, *started]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # They have memory until they have ended, which the next trial needs.
    psutil.wait_procs(started, timeout=KILLED_SECONDS)
