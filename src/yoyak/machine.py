"""What this machine is, and whether it has room."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import Field

from yoyak.errors import UserError
from yoyak.parameters import Section

GIB = 2**30
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""x86's two names of them, and ARM's, as `torch.cpu.get_capabilities` has them."""
HOW_TO_FREE = "`dvc gc -w` drops old outputs, .cache/checkpoints holds trainings that never ended"


class LimitsParams(Section):
    """Bounds past which a stage stops instead of going on."""

    disk_gb: float | None = Field(default=None, gt=0)
    """Most that may be in use on the disk, in GB (10^9 bytes); none where the key is empty."""
    free_gb: float = Field(default=5, ge=0)
    """Least that must stay free on the disk, in GB."""
    gpu_gib: float | None = Field(default=None, gt=0)
    """Most GPU memory that a stage may take, in GiB; all that is free where the key is empty."""
    shortened_percent: float = Field(default=5, ge=0, le=100)
    """Most prompts, in percent, that may lose turns to fit a model's token budget."""
    empty_percent: float = Field(default=0, ge=0, le=100)
    """Most summaries, in percent, that a model may leave empty."""


def repository_root() -> Path:
    """The repository that holds scratch and cache, also from within a DVC experiment's temporary copy.

    DVC sets `DVC_ROOT` to the original repository in `repro`, `exp run`, `--temp` and the queue alike.
    """
    return Path(os.environ.get("DVC_ROOT", Path.cwd()))


def cache_folder() -> Path:
    """Git-ignored: packages, converted weights, and training's scratch."""
    return repository_root() / ".cache"


def on_one_disk(*folders: Path) -> bool:
    """Also of folders that are not there yet."""
    lines = ((folder.resolve(), *folder.resolve().parents) for folder in folders)
    return len({next(path for path in line if path.exists()).stat().st_dev for line in lines}) == 1


def check_disk(limits: LimitsParams, writes_gb: float, purpose: str) -> None:
    """Stop before `purpose` writes `writes_gb` GB that the disk has no room for."""
    disk = shutil.disk_usage(repository_root())
    free = disk.free / 1e9 - writes_gb
    used = disk.used / 1e9 + writes_gb
    if free < limits.free_gb:
        raise UserError(
            f"{purpose} needs {writes_gb:.1f} GB and would leave {free:.1f} GB free on {repository_root()}; "
            f"limits.free_gb is {limits.free_gb:g}: {HOW_TO_FREE}, or lower it"
        )
    if limits.disk_gb is not None and used > limits.disk_gb:
        raise UserError(
            f"{purpose} needs {writes_gb:.1f} GB and would bring the disk to {used:.1f} GB in use; "
            f"limits.disk_gb is {limits.disk_gb:g}: {HOW_TO_FREE}, or raise it"
        )


def check_shortened(shortened: int, rows: int, limits: LimitsParams, model: str) -> None:
    """Stop where more dialogues lose turns than the user allows."""
    percent = 100 * shortened / rows
    if percent > limits.shortened_percent:
        raise UserError(
            f"{model}: {shortened} of {rows} dialogues ({percent:.1f} %) lose turns to fit its max_prompt_tokens; "
            f"raise models.{model}.max_prompt_tokens, or limits.shortened_percent ({limits.shortened_percent:g})"
        )


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 by instructions of its own, which PyTorch reaches through oneDNN alone.

    Elsewhere PyTorch's plain loops do it: at gemma3_270m's shapes a layer's forward pass takes 5 times as long as in
    fp32, its backward pass 20 times and more (torch 2.13, AVX2).
    """
    import torch

    has = torch.cpu.get_capabilities()
    through_onednn = torch.backends.mkldnn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(through_onednn) and any(has.get(instruction) for instruction in BF16_INSTRUCTIONS)


def describe() -> dict[str, Any]:
    """Device and versions, to stand beside each figure."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or _describe_cpu(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "trl", "bitsandbytes")},
    }


def _describe_cpu() -> str:
    """With its kind and whether it has bf16: scores differ a little from one sort to the other."""
    import torch

    kind, bf16 = torch.backends.cpu.get_cpu_capability(), "with" if cpu_has_bf16() else "without"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {kind} {bf16} bf16"


def commit() -> str:
    """The commit that is checked out; what was changed since is in `dvc.lock`'s hashes."""
    if shutil.which("git") is None:
        return "no commit"
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"
