"""Weights on the Hugging Face Hub: what a name stands for, and its files, downloaded once into the hub's own cache."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from yoyak.core import disk, progress
from yoyak.core.errors import UserError
from yoyak.core.limits import on_one_disk
from yoyak.core.repository import cache_folder

SMALL_FILES = ["*.json", "*.model", "*.txt", "*.jinja", "additional_chat_templates/*.jinja"]
"""What says which model it is, and its tokenizer; no code."""
FILES = [*SMALL_FILES, "*.safetensors"]
"""Of a model that is loaded."""
BIN = "pytorch_model*.bin"
"""Pickled weights, in whose place FILES has none."""
FILES_AND_BIN = [*FILES, BIN]
PASSED_OVER = [f"*/*.{ending}" for ending in ("json", "model", "txt", "safetensors", "bin")] + ["consolidated*"]
"""The same weights for other programs: gpt-oss has them three times, Mistral twice."""


def revision_of(repository: str, recorded: str | None, key: str) -> str:
    """The commit that a name stands for, `recorded` or today's; `key` is its place in `params.yaml`."""
    from huggingface_hub import HfApi

    if recorded and _in_cache(repository, recorded):
        return recorded
    try:
        return str(HfApi().model_info(repository, revision=recorded, timeout=20).sha)
    except errors() as error:
        raise UserError(
            f"{key}: cannot reach {repository} on the Hugging Face Hub ({reason(error)}); check the name and the "
            f"network, `hf auth login` if the model is gated, or set {key} to a local folder"
        ) from None


def offline() -> str | None:
    """Why the hub does not answer; None where it does."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except errors() as error:
        return reason(error)
    return None


def is_here(repository: str, revision: str) -> bool:
    return _cached_snapshot(repository, revision) is not None


def _in_cache(repository: str, revision: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)


def snapshot(repository: str, revision: str) -> Path:
    """The downloaded repository: its safetensors, or its `.bin` files where it has no others."""
    from huggingface_hub import snapshot_download

    if cached := _cached_snapshot(repository, revision):
        return cached
    gb = sum(_to_download(repository, revision).values()) / 1e9
    before = _cached_gb(repository)
    with (
        _told(repository),
        progress.timed(f"downloading {repository}, {gb:.2f} GB", lambda: f"{_cached_gb(repository) - before:.2f} GB"),
    ):
        patterns = _patterns(repository, revision)
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=PASSED_OVER)
        )


def small_files(repository: str, revision: str) -> tuple[Path, list[str]]:
    """A folder with all files but the weights, downloaded if need be, and the names of all files."""
    from huggingface_hub import snapshot_download

    if cached := _cached_snapshot(repository, revision):
        return cached, [path.name for path in cached.iterdir()]
    with _told(repository), _without_bars():
        names = _names(repository, revision)
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=SMALL_FILES, ignore_patterns=PASSED_OVER
        )
    return Path(folder), names


def _cached_gb(repository: str) -> float:
    """On this disk, of any revision; what has not come whole, too."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}", "blobs")
    return sum(path.stat().st_size for path in blobs.glob("*")) / 1e9


def bytes_to_write(repository: str, revision: str) -> int:
    """What is not downloaded yet, and of `.bin` files their conversion, too.

    A cache on another disk is not this repository's matter.
    """
    from huggingface_hub import constants

    if cached := _cached_snapshot(repository, revision):
        weights = [] if any(cached.glob("*.safetensors")) else list(cached.glob(BIN))
        return sum(path.stat().st_size for path in weights)
    files = _to_download(repository, revision)
    converted = sum(size for name, size in files.items() if name.endswith(".bin"))
    return sum(files.values()) * on_one_disk(Path(constants.HF_HUB_CACHE), cache_folder()) + converted


def _to_download(repository: str, revision: str) -> dict[str, int]:
    """Sizes in bytes by name of what is not in the cache yet."""
    from huggingface_hub import snapshot_download

    with _told(repository), _without_bars():
        files = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_patterns(repository, revision),
            ignore_patterns=PASSED_OVER,
            dry_run=True,
        )
    return {file.filename: file.file_size or 0 for file in files if file.will_download}


@contextmanager
def _without_bars() -> Iterator[None]:
    """They would say that weights are fetched."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        disable_progress_bars,
        enable_progress_bars,
    )

    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _cached_snapshot(repository: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Where a repository has both, only the first were downloaded, and the hub's client misses the others.
    for patterns, kind in ((FILES, "*.safetensors"), (FILES_AND_BIN, BIN)):
        try:
            cached = snapshot_download(
                repository,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=PASSED_OVER,
                local_files_only=True,
            )
        except LocalEntryNotFoundError:
            continue  # Not all of it is here.
        if any(Path(cached).glob(kind)):
            return Path(cached)
    return None


def _patterns(repository: str, revision: str) -> list[str]:
    names = _names(repository, revision)
    return FILES if any(name.endswith(".safetensors") for name in names) else FILES_AND_BIN


def _names(repository: str, revision: str) -> list[str]:
    """Of all files that a model is loaded from; weights are those that transformers takes."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    names = HfApi().list_repo_files(repository, revision=revision)
    return list(filter_repo_objects(names, allow_patterns=FILES_AND_BIN, ignore_patterns=PASSED_OVER))


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """One line of what the hub's client raises."""
    try:
        yield
    except errors() as error:
        if fault := disk.fault_of(error):
            raise UserError(fault) from None
        raise UserError(
            f"{repository} cannot be downloaded ({reason(error)}); `hf auth login` if the model is gated, or try again"
        ) from None


def errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises where the name, the network or the disk is at fault."""
    # `HTTPError`: of whichever HTTP library the client is built on; raised where there is no network.
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        OfflineModeIsEnabled,
    )

    return HfHubHTTPError, HFValidationError, HTTPError, OfflineModeIsEnabled, OSError


def reason(error: Exception) -> str:
    said = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *said])


def convert(snapshot: Path, target: Path) -> None:
    """The weights as safetensors; all else, the tokenizer above all, as it is."""
    from yoyak.modeling.loading import pretrained

    for path in (path for pattern in SMALL_FILES for path in snapshot.glob(pattern)):
        copy = target / path.relative_to(snapshot)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    # What names parts of pickled weights would name none here.
    (target / "pytorch_model.bin.index.json").unlink(missing_ok=True)
    with _faults_of_pickles_told(snapshot):
        model = pretrained(snapshot, dtype="auto", weights_only=True, use_safetensors=False)
    model.save_pretrained(target)


@contextmanager
def _faults_of_pickles_told(folder: Path) -> Iterator[None]:
    """One line of what reading pickled weights raises: damage, or code, which is never run."""
    try:
        yield
    except (UnpicklingError, OSError, ValueError, TypeError, LookupError, RuntimeError, EOFError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{folder}: its pickled weights cannot be read ({reason}); save the model as safetensors, or name another"
        ) from None
