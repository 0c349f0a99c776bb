"""A copy of the project for each run: its own parameters and data, DVC's cache and the weights shared.

The project is the one in the working folder.
"""

import contextlib
import io
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from dvc.config import Config
from dvc.utils.collections import merge_dicts
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from yoyak.core import cut_off
from yoyak.core.errors import UserError
from yoyak.core.repository import cache_folder
from yoyak.sweeps.data_folder import REFERENCES

PARTS = (
    *("src", "stages", "dvc.yaml", "params.yaml", "weights.lock.yaml"),
    *(".dvcignore", ".dvc/config", ".dvc/plots_page.html"),
)
DATA = Path("data/raw")
WITHOUT_GIT = "[cache]\n    dir = {cache}\n[core]\n    no_scm = true\n"
REMOTE = "    remote = {name}\n['remote \"{name}\"']\n"
SHARED = ("packages", "weights")
"""Of `.cache`: what is downloaded and converted once for all."""
KILLED_SECONDS = 10
"""Most that is waited for what was killed."""
WATCH = 'read -r _; kill -KILL -- "-$0"'
"""Of a shell: once nobody is left who could write to it, end a group of processes."""


def make(
    folder: Path, cache: Path, data: Path, changes: dict[str, Any], overrides: list[str], remote: str = ""
) -> None:
    """Copy the project to `folder`, its parameters changed first by the mapping, then by overrides as `-S` takes them.

    `cache` is DVC's for all copies, `data` a folder of CSV files; `remote` has the `remote_settings` of what it
    shares with copies that have another. A copy that is there already is brought up to date, and what it has computed
    stays.
    """
    for part in PARTS:
        replace(Path(part), folder / part)
    replace(data, folder / DATA)
    local = WITHOUT_GIT.format(cache=cache.resolve())
    (folder / ".dvc/config.local").write_text(local + remote, encoding="utf-8")
    for name in SHARED:
        _link(folder / ".cache" / name, cache_folder() / name)
    write_params(folder / "params.yaml", data, changes, overrides)


def remote_settings(name: str) -> str:
    """The project's remote of DVC as a copy's settings have it; a `UserError` where it has none of that name."""
    remotes = Config.from_cwd()["remote"]
    if name not in remotes:
        raise UserError(f"--remote {name}: DVC has {', '.join(remotes) or 'none'}; `dvc remote add` names one")
    return REMOTE.format(name=name) + "".join(f"    {key} = {value}\n" for key, value in remotes[name].items())


def pack(cache: Path, data: Path, changes: dict[str, Any], overrides: list[str], remote: str = "") -> bytes:
    """What `make` would write, as an archive for `unpack` on any machine that has this project's folder."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        make(Path(folder), cache, data, changes, overrides, remote)
        archive.add(folder, ".")
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """As `make`: what the copy has computed stays."""
    for part in (*PARTS, str(DATA)):
        if (folder / part).is_dir():
            shutil.rmtree(folder / part)
    for name in SHARED:
        (folder / ".cache" / name).unlink(missing_ok=True)
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        # Links to the project's own folders, which lie outside.
        archive.extractall(folder, filter="fully_trusted")
    for name in SHARED:
        (folder / ".cache" / name).resolve().mkdir(parents=True, exist_ok=True)


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
    folder: Path,
    log: Path,
    environment: dict[str, str],
    last: str = "ensemble",
    seconds: float = math.inf,
    shared: bool = False,
    watched: bool = False,
) -> bool:
    """Run `dvc repro` up to the stage `last` in a copy; whether it ended well, within so many seconds.

    What it prints goes to `log`. Where a remote is `shared`, what others have pushed to it is not computed again, and
    what is computed is pushed.
    """
    log.write_text("", encoding="utf-8")
    cut_off.mend(folder)
    within = {**of_copy(folder), **environment}
    pull = ["--pull"] if shared else []
    if not python(["-m", "dvc", "repro", *pull, last], log, within, folder, seconds, watched):
        return False
    push = ["-m", "yoyak.sweeps.push"]
    return not shared or python(push, log, with_its_code(folder, within), folder, seconds, watched)


def with_its_code(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """The environment in which `yoyak` is the copy's own, whatever this machine's is."""
    path = os.pathsep.join([str(folder / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**environment, "PYTHONPATH": path}


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
    watched: bool = False,
) -> bool:
    """Run this Python in `folder`; whether it ended well, and within so many seconds: it is killed after them.

    What it prints is added to `log`. Where it is `watched`, it does not outlive this process.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={**inherited, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            # A lock that is to be held by what outlives this process is inheritable; no other file of ours is. Ray's
            # connections are, too, by whose end it learns of a worker's death.
            close_fds=watched,
            start_new_session=watched,
        )
        try:
            with _watch(process.pid) if watched else contextlib.nullcontext():
                return process.wait(None if seconds == math.inf else max(0, seconds)) == 0
        except subprocess.TimeoutExpired:
            _kill(process.pid)
            process.wait()
            file.write("killed: its time was up\n")
            return False


@contextlib.contextmanager
def _watch(group: int) -> Iterator[None]:
    """End a group of processes with this one, even if it is killed: a stage outlives the `dvc repro` that it is of."""
    # A pipe that nobody but this process can write to is at its end with it.
    watching = subprocess.Popen(["sh", "-c", WATCH, str(group)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield
    finally:
        watching.kill()
        watching.communicate()


def _kill(pid: int) -> None:
    """With all that it has started: a stage outlives the `dvc repro` that it is of."""
    parent = psutil.Process(pid)
    started = parent.children(recursive=True)
    for process in [parent, *started]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    # They have memory until they have ended, which the next trial needs.
    psutil.wait_procs(started, timeout=KILLED_SECONDS)
