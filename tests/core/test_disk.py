"""A full disk is told in one line, by whichever library it is met; and nothing that was there is damaged."""

import errno
import hashlib
import os
import re
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import Project
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from yoyak.core.disk import fault_of, in_words
from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.limits import LimitsParams, check_disk
from yoyak.core.records import read_json
from yoyak.evaluation.plots import picture

MOST = 20_000
"""Bytes that a file may have in these tests."""
NUMBERS = {"numbers": torch.zeros(MOST)}


@contextmanager
def small_files() -> Iterator[None]:
    """What `ulimit -f` does: like a disk that becomes full, in the midst of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _tokenizer(path: Path) -> None:
    words = Tokenizer(models.WordLevel({str(number): number for number in range(MOST)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(path.parent)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "model.safetensors": lambda path: save_file(NUMBERS, str(path)),
    "optimizer.pt": lambda path: torch.save(NUMBERS, path),
    "tokenizer.json": _tokenizer,
    "rows.csv": lambda path: pd.DataFrame({"a": range(MOST)}).to_csv(path),
    "part.jsonl": lambda path: path.write_text("a" * 2 * MOST),
}


@pytest.mark.parametrize("name", WRITERS)
def test_each_library_s_full_disk_is_told_with_the_path(name: str, tmp_path: Path) -> None:
    with small_files(), pytest.raises(Exception) as raised:
        WRITERS[name](tmp_path / name)
    fault = fault_of(raised.value)
    assert fault is not None, repr(raised.value)
    where, _, why = fault.partition(": cannot be written: ")
    # Of a tokenizer it is the folder that transformers was given.
    assert where in (str(tmp_path / name), str(tmp_path)), fault
    assert "are free there, a stage wants limits.free_gb; `yoyak clean`" in why
    assert "\n" not in fault


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "plots/a.png"
    path.parent.mkdir()
    path.write_text("old")
    with (
        small_files(),
        pytest.raises(UserError, match=r"plots/a.png: cannot be written: File too large; "),
        picture(path, (9, 9)) as (axes,),
    ):
        axes.imshow(torch.rand(99, 99))
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied"), RuntimeError("shape"), Exception("(os error 13)"), KeyError("a/b")],
)
def test_another_fault_is_none_of_a_full_disk(error: Exception) -> None:
    assert fault_of(error) is None


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_file_that_is_not_this_user_s_ends_in_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """As in somebody else's checkout; libraries wrap its error."""

    @exits_with_one_line
    def main() -> None:
        try:
            raise OSError(number, os.strerror(number), ".dvc/tmp/lock")
        except OSError as error:
            raise RuntimeError("cannot work") from error

    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == (
        f"error: .dvc/tmp/lock: {os.strerror(number)}; get the right to it, or work in a clone of your own\n"
    )


@given(st.integers(min_value=0, max_value=10**15))
def test_no_amount_is_told_as_none_of_a_unit(size: int) -> None:
    number, _ = in_words(size).split()
    assert number == "0" if size == 0 else float(number) >= 1
    assert "-" not in number


def test_a_small_need_is_told_in_mb() -> None:
    with pytest.raises(UserError, match=r"^training a needs 40\.0 MB of the [\d.]+ .B that are free on "):
        check_disk(LimitsParams(free_gb=1e6), 0.04, "training a")


def test_a_disk_that_cannot_be_looked_at_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"gone: how full its disk is cannot be told: No such file or directory$"):
        check_disk(LimitsParams(), 1, "training a")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """An empty disk of that size in place of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("folder", "size", "stage"),
    [
        pytest.param(".cache/checkpoints", "500k", ["train", "bart_mini"], id="an optimizer in a checkpoint"),
        pytest.param("models", "24k", ["train", "bart_mini"], id="a trained model"),
        pytest.param(".cache/predictions", "4k", ["infer", "bart_mini"], id="a part of an inference"),
    ],
)
def test_a_full_disk_ends_a_stage_in_one_line(
    reproduced: Project, tmp_path: Path, folder: str, size: str, stage: list[str]
) -> None:
    project = reproduced.copy(tmp_path / "project")
    with small_disk(project.root / folder, size):
        done = project.stage(*stage, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    line = done.stdout.splitlines()[-1]
    assert line.startswith("error: "), done.stdout
    assert folder in line, line
    assert ": cannot be written: " in line


@pytest.mark.parametrize(
    ("stage", "folder"),
    [("score", "plots"), ("score", "metrics"), ("ensemble", "ensemble"), ("ensemble", "metrics")],
)
def test_a_full_disk_leaves_outputs_of_before_whole(
    reproduced: Project, tmp_path: Path, stage: str, folder: str
) -> None:
    """They would be other ones: of another seed."""
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["scoring"].update(seed=7))
    if stage == "ensemble":
        # So are its members then.
        project.edit(lambda params: params["run"].update(models=["bart_mini"]))
    before = _contents(project.root / folder)
    with small_disk(project.root / folder, "1m"):
        for path, content in before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _fill(project.root / folder)
        done = project.stage(stage, check=False)
        assert {path: path.read_bytes() for path in before} == before
        (project.root / folder / "filling").unlink()
        assert _contents(project.root / folder) == before
    assert done.returncode == 1, done.stdout
    line = done.stdout.splitlines()[-1]
    assert re.fullmatch(rf"error: {folder}/.*: cannot be written: No space left on device; 0 bytes are .*", line), line
    assert "Traceback" not in done.stdout


def test_a_full_cache_of_dvc_costs_no_training(reproduced: Project, tmp_path: Path) -> None:
    """It is full when the stage has ended and DVC saves the model."""
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(learning_rate=0.011))
    cache, train = project.root / ".dvc/cache", ("dvc", "repro", "--single-item", "train@bart_mini")
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    project.stage("prepare_prompts")
    with small_disk(cache, "16m"):
        for path, content in before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # Room for the small files of a model, and not for its weights.
        _fill(cache, but=100_000)
        failed = project.run(*train, check=False)
        assert failed.returncode != 0
        assert "bart_mini: trained to step 1 of 1" in failed.stdout
        assert "No space left on device" in failed.stdout
        assert "Traceback" not in failed.stdout
        assert {path: path.read_bytes() for path in before} == before
        trained = (project.root / "models/bart_mini/model.safetensors").read_bytes()

        (cache / "filling").unlink()
        project.run(*train)
        record = read_json(project.root / "metrics/train/bart_mini.json")
        assert record["resumed_at_step"] == record["steps"] == 1
        assert (project.root / "models/bart_mini/model.safetensors").read_bytes() == trained
        # Files of whole length alone bear the name of what is in them.
        for path in (path for path in cache.glob("files/md5/??/*") if path.suffix != ".tmp"):
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            assert f"{path.parent.name}{path.name.removesuffix('.dir')}" == digest
        # What DVC had begun to write can go; an empty file of its own stays.
        project.run("yoyak", "clean", "--yes")
        assert sum(path.stat().st_size for path in cache.rglob("*.tmp")) == 0


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _fill(disk: Path, but: int = 0) -> None:
    """Leave no room on it, or `but` bytes."""
    path = disk / "filling"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - but))


def test_a_full_disk_keeps_the_last_good_submission(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    folder = project.root / "submission"
    kept = (folder / "last_good.csv").read_bytes()
    # Room for the submission, and not for its copy beside the old one.
    with small_disk(folder, "20k"):
        (folder / "last_good.csv").write_bytes(kept)
        (folder / "filling").write_bytes(b"0" * 4096)
        done = project.stage("submit", check=False)
        assert (folder / "last_good.csv").read_bytes() == kept
    assert done.returncode == 1, done.stdout
    assert re.fullmatch(r"error: submission/last_good.* are free there, .* were wanted; .*", done.stdout.strip())
