"""Bounds of disk and patience past which a stage stops."""

import shutil
from pathlib import Path

from pydantic import Field

from yoyak.core.disk import HOW_TO_FREE, in_words
from yoyak.core.errors import UserError
from yoyak.core.params import Section
from yoyak.core.repository import repository_root
from yoyak.core.run import entry_of


class LimitsParams(Section):
    """Bounds past which a stage stops instead of going on."""

    disk_gb: float | None = Field(default=None, gt=0)
    """Most that may be in use on the disk, in GB (10^9 bytes); none where the key is empty."""
    free_gb: float = Field(default=5, ge=0)
    """Least that must stay free on the disk, in GB."""
    gpu_gib: float | None = Field(default=None, gt=0)
    """Most GPU memory that a stage may take, in GiB, of each GPU; all that is free where the key is empty."""
    gpus: int = Field(default=1, ge=1)
    """Most GPUs of this machine, the first ones, among which a training shares each step's rows and an inference its
    dialogues. A tuning has one."""
    sharded: bool = False
    """Whether these GPUs share a base model's weights in training, each holding a part, for adapters over a model that
    fits on no single one. An inference has a whole copy on each all the same."""
    checkpoint_minutes: float = Field(default=20, ge=0)
    """Most minutes of training that a kill may cost: a checkpoint is written each so many, and after each epoch."""
    shortened_percent: float = Field(default=5, ge=0, le=100)
    """Most prompts, in percent, that may lose turns to fit a model's token budget."""
    empty_percent: float = Field(default=0, ge=0, le=100)
    """Most summaries, in percent, that a model may leave empty."""


def on_one_disk(*folders: Path) -> bool:
    """Whether all folders, some of which may not exist yet, are on one file system."""
    lines = ((folder.resolve(), *folder.resolve().parents) for folder in folders)
    return len({next(path for path in line if path.exists()).stat().st_dev for line in lines}) == 1


def check_disk(limits: LimitsParams, writes_gb: float, purpose: str) -> None:
    """Stop before `purpose` writes `writes_gb` GB that the disk has no room for."""
    try:
        disk = shutil.disk_usage(repository_root())
    except OSError as error:
        raise UserError(f"{repository_root()}: how full its disk is cannot be told: {error.strerror}") from None
    writes = writes_gb * 1e9
    if disk.free - writes < limits.free_gb * 1e9:
        raise UserError(
            f"{purpose} needs {in_words(writes)} of the {in_words(disk.free)} that are free on {repository_root()}; "
            f"limits.free_gb is to stay free, {in_words(limits.free_gb * 1e9)}: {HOW_TO_FREE}, or lower it"
        )
    if limits.disk_gb is not None and disk.used + writes > limits.disk_gb * 1e9:
        raise UserError(
            f"{purpose} needs {in_words(writes)} and would bring the disk to {in_words(disk.used + writes)} in use; "
            f"limits.disk_gb is {limits.disk_gb:g}: {HOW_TO_FREE}, or raise it"
        )


def check_shortened(shortened: int, rows: int, limits: LimitsParams, model: str) -> None:
    """Stop where more dialogues lose turns than the user allows."""
    percent = 100 * shortened / rows
    if percent > limits.shortened_percent:
        raise UserError(
            f"{model}: {shortened} of {rows} dialogues ({percent:.1f} %) lose turns to fit its max_prompt_tokens; "
            f"raise models.{entry_of(model)}.max_prompt_tokens, or limits.shortened_percent "
            f"({limits.shortened_percent:g})"
        )
