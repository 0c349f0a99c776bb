"""Where base weights come from, what exactly they are, and the folder they can be loaded from.

A source is a hub name, a local folder, or `package:NAME==VERSION`, a package that carries a GGUF file. It is pinned
once, to a hub revision or a sha256, in `weights.lock.yaml`, and enforced afterwards. Weights are data: nothing of a
package is imported, no remote code runs, and no pickle is read but through `weights_only=True`.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open

from yoyak.core import progress
from yoyak.core.errors import UserError
from yoyak.core.files import sha256
from yoyak.core.params import read_yaml, write_yaml
from yoyak.core.repository import cache_folder, repository_root
from yoyak.modeling import gguf, hub
from yoyak.modeling.spec import is_folder

LOCK_FILE = Path("weights.lock.yaml")
CONFIG_KEYS = {
    "config.json": ("model_type",),
    "adapter_config.json": ("peft_type", "base_model_name_or_path", "revision"),
}
"""What the configuration of a model, or of adapters, cannot be without."""
INDEX = "model.safetensors.index.json"
BIN_INDEX = "pytorch_model.bin.index.json"
TOKENIZER = "tokenizer.json"
JSON_FILES = (INDEX, BIN_INDEX, TOKENIZER, "tokenizer_config.json", "generation_config.json")
"""What else transformers reads, where it is there."""
TOKENIZERS = (TOKENIZER, "*.model", "vocab.*")
"""Any of these is a tokenizer."""


def pin(source: str, key: str) -> str | None:
    """What `source` is, to the byte, having made sure that it can be reached; nothing large is downloaded.

    `key` is the entry's place in `params.yaml`, for the error message. A local folder's pin is its content; what comes
    from elsewhere is recorded at the first call, and must be the same at each later one.
    """
    if source == "scratch":
        return None
    if is_folder(source):
        return _digest_of_sound(Path(source).expanduser(), key)
    recorded = _recorded(source)
    found = gguf.digest_of(source, key) if _is_package(source) else hub.revision_of(source, recorded, key)
    if recorded is None:
        _record(source, found)
    elif found != recorded:
        raise UserError(
            f"{key}: {source} is {found}, but {LOCK_FILE} has {recorded}; if you want the change, delete its line"
        )
    return found


def fetch(source: str, pinned: str | None) -> Path:
    """The folder to load `source` from, downloaded or converted if need be, once."""
    assert pinned is not None, f"{source} was not pinned"
    converted = _converted_folder(source, pinned)
    if _is_package(source):
        return _converted(converted, lambda target: gguf.convert(source, target))
    folder = Path(source).expanduser()
    snapshot = _unchanged(folder, pinned) if is_folder(source) else hub.snapshot(source, pinned)
    if any(snapshot.glob("*.safetensors")):
        return snapshot
    return _converted(converted, lambda target: hub.convert(snapshot, target))


def name_for_others(source: str, pinned: str | None) -> str:
    """What PEFT, or whoever else opens adapters, can load the base by; the same on every machine, for the adapters'
    hash: of a package, where it lies in this repository once it is converted."""
    if not _is_package(source):
        return source
    assert pinned is not None, f"{source} was not pinned"
    return _converted_folder(source, pinned).relative_to(repository_root()).as_posix()


def to_write_gb(source: str, pinned: str | None) -> float:
    """How much `fetch` would write, in GB (10^9 bytes), on the disk of this repository; nothing large is downloaded."""
    if source == "scratch":
        return 0
    assert pinned is not None, f"{source} was not pinned"
    if _converted_folder(source, pinned).exists():
        return 0
    if is_folder(source):
        return sum(path.stat().st_size for path in _pickled(Path(source).expanduser())) / 1e9
    in_bytes = gguf.bytes_to_write(source, source) if _is_package(source) else hub.bytes_to_write(source, pinned)
    return in_bytes / 1e9


def is_here(source: str) -> bool:
    """Whether these weights were pinned, and `fetch` would neither download nor convert them."""
    pinned = _recorded(source)
    return pinned is not None and (_converted_folder(source, pinned).exists() or hub.is_here(source, pinned))


def still_to_write_gb(source: str, key: str) -> float:
    """How much a run would write of them, in GB (10^9 bytes), having made sure that they can be reached.

    Unlike `pin` it records nothing, and takes no sha256 of a package, which may be gigabytes.
    """
    if is_folder(source) and (fault := fault_of(Path(source).expanduser())):
        raise UserError(f"{key}: {source}: {fault}; give the folder of a model as `save_pretrained` leaves it")
    recorded = _recorded(source)
    if source == "scratch" or is_folder(source) or (recorded and _converted_folder(source, recorded).exists()):
        return 0
    if _is_package(source):
        return gguf.bytes_to_write(source, key) / 1e9
    return hub.bytes_to_write(source, hub.revision_of(source, recorded, key)) / 1e9


def small_files(source: str, pinned: str | None, key: str) -> Path | None:
    """A folder with all of a model's files but its weights, having looked whether those are there, too.

    None where nothing tells more before the weights are read: packages, and models from scratch.
    """
    if source == "scratch" or _is_package(source):
        return None
    if is_folder(source):
        return Path(source).expanduser()
    assert pinned is not None, f"{source} was not pinned"
    folder, names = hub.small_files(source, pinned)
    if fault := next(_faults(folder, "config.json", names), None):
        raise UserError(f"{key}: {source}: {fault}; name a model that transformers can load")
    return folder


def _converted_folder(source: str, pinned: str) -> Path:
    """Where weights lie that are no safetensors where they come from."""
    return cache_folder() / "weights" / f"{converted_name(source)}-{pinned.removeprefix('sha256:')[:12]}"


def converted_name(source: str) -> str:
    """The name of that folder, without the twelve digits of the pin behind it."""
    if _is_package(source):
        return gguf.name_and_version(source)[0]
    return Path(source).expanduser().name if is_folder(source) else source.replace("/", "--")


def _is_package(source: str) -> bool:
    return source.startswith("package:")


def _recorded(source: str) -> str | None:
    return _known().get(source)


def _record(source: str, found: str) -> None:
    write_yaml(LOCK_FILE, dict(sorted({**_known(), source: found}.items())))


def _known() -> dict[str, str]:
    """Every pin; the file may have been written by hand."""
    known = read_yaml(LOCK_FILE) if LOCK_FILE.exists() else {}
    for source, found in known.items():
        if not (isinstance(source, str) and isinstance(found, str)):
            raise UserError(f"{LOCK_FILE}: {source}: a source and its pin are text (got {found!r}); delete the line")
    return known


def _converted(folder: Path, convert: Callable[[Path], None]) -> Path:
    """The folder, made by `convert` if it is not there; never left half made."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = folder.with_name(f"{folder.name}.half")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        # Another process may have made it meanwhile, or have been killed over it.
        if not folder.exists():
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            with progress.timed(f"converting {folder.name} to safetensors, once"):
                convert(half)
            half.rename(folder)
    return folder


def _unchanged(folder: Path, pinned: str | None) -> Path:
    """DVC does not watch such a folder, and an adapter must not meet other weights than it was trained on."""
    if _folder_digest(folder) != pinned:
        raise UserError(
            f"{folder} has changed since the preflight; run `dvc repro --force -s prepare_prompts`, then `dvc repro`"
        )
    return folder


def _digest_of_sound(folder: Path, key: str) -> str:
    if fault := fault_of(folder):
        raise UserError(f"{key}: {folder}: {fault}; give the folder of a model as `save_pretrained` leaves it")
    return _folder_digest(folder)


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    with progress.waiting(f"reading {folder} for its sha256"):
        for path in _files(folder):
            digest.update(path.name.encode())
            digest.update(bytes.fromhex(sha256(path)))
    return f"sha256:{digest.hexdigest()}"


def _files(folder: Path) -> list[Path]:
    files = [path for pattern in hub.FILES for path in folder.glob(pattern) if path.is_file()]
    return sorted([*files, *_pickled(folder)])


def _pickled(folder: Path) -> list[Path]:
    """Weights that are converted: those of a folder that has no others."""
    return [] if any(folder.glob("*.safetensors")) else [path for path in folder.glob(hub.BIN) if path.is_file()]


def fault_of(folder: Path, config: str = "config.json", unread: Collection[str] = ()) -> str | None:
    """The first that is missing or damaged of a saved model, or of adapters; of weights, headers and sizes are read.

    Files named in `unread` must be there, too, but are not read.
    """
    return next(_faults(folder, config, [path.name for path in _files(folder)], unread), None)


def _faults(folder: Path, config: str, names: list[str], unread: Collection[str] = ()) -> Iterator[str]:
    """`names`: of all files; those that are not in the folder are not read."""
    if config not in names:
        of_adapters = config == "config.json" and "adapter_config.json" in names
        yield f"{config} is missing" + (" (these are adapters; name the model they were trained on)" * of_adapters)
    pickled = [name for name in names if fnmatch(name, hub.BIN)]
    safe = [name for name in names if name.endswith(".safetensors")]
    if not pickled and not safe:
        yield "*.safetensors is missing"
    if config == "config.json" and safe and not {"model.safetensors", INDEX} & set(names):
        yield f"model.safetensors is missing (transformers does not load {safe[0]})"
    contents: dict[str, Any] = {}
    for name in names:
        try:
            if name in unread:
                continue
            if name in (config, *JSON_FILES):
                contents[name] = _json_object(folder / name)
            elif (name.endswith(".safetensors") or name in pickled) and (folder / name).exists():
                _read_header(folder / name)
        except (OSError, ValueError, SafetensorError) as error:
            yield f"{name} is damaged ({error})"
    for key in CONFIG_KEYS[config]:
        if key not in contents[config]:
            yield f"{config} is damaged (it has no {key})"
    for index, whole in ((INDEX, "model.safetensors"), (BIN_INDEX, "pytorch_model.bin")):
        if index in names and whole not in names and (index == INDEX or pickled):
            parts = contents[index].get("weight_map")
            if not isinstance(parts, dict):
                yield f"{index} is damaged (it has no weight_map)"
            yield from (f"{name} is missing" for name in parts.values() if name not in names)
    # ByT5's tokens are bytes: it saves no vocabulary.
    of_bytes = contents.get("tokenizer_config.json", {}).get("tokenizer_class") == "ByT5Tokenizer"
    if not of_bytes and not any(fnmatch(name, pattern) for name in names for pattern in TOKENIZERS):
        yield f"the tokenizer is missing ({', '.join(TOKENIZERS)})"


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None
    if not isinstance(content, dict):
        raise ValueError("a JSON object is expected")
    return content


def _read_header(path: Path) -> None:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy"):
            return
    with path.open("rb") as file:
        begin = file.read(2)
    # An archive, or before PyTorch 1.6 a pickle.
    if begin not in (b"PK", b"\x80\x02"):
        raise ValueError("it does not begin as PyTorch writes weights")
