"""A training that is killed goes on from its last epoch and ends as if it had not been; memory that runs out is met."""

import hashlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from project import Project
from trainers import full_trainer_of, trainer_of
from transformers import EarlyStoppingCallback, TrainerCallback
from twins import Family, bart, llama32, save_twin

from yoyak.core import ended_work, resume
from yoyak.core.errors import UserError
from yoyak.core.limits import LimitsParams
from yoyak.core.records import read_json
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.curves import mean_loss
from yoyak.training.params import TrainingConfig
from yoyak.training.resume import go_on
from yoyak.training.saving import KeepBudget, RoomToSave, SaveWithinEpochs


@pytest.fixture
def epochs(project: Project) -> Project:
    """The project with enough epochs to be killed in."""
    project.edit(lambda params: params["training"].update(epochs=6, early_stopping_patience=6))
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(epochs=6, early_stopping_patience=6))
    project.stage("prepare_prompts")
    return project


@pytest.mark.parametrize(
    ("model", "weights"), [("bart_mini", "model.safetensors"), ("llama32_3b", "adapter_model.safetensors")]
)
def test_a_killed_training_ends_as_if_it_had_not_been(
    epochs: Project, tmp_path: Path, model: str, weights: str
) -> None:
    undisturbed = epochs.copy(tmp_path / "undisturbed")
    undisturbed.stage("train", model)

    _kill_after_a_checkpoint(epochs, model)
    epochs.stage("train", model)

    records = [read_json(one.root / f"metrics/train/{model}.json") for one in (epochs, undisturbed)]
    assert 0 < records[0].pop("resumed_at_step") < records[0]["steps"] == 6
    for record in records:
        for key in ("resumed_at_step", "seconds", "tokens_per_second", "peak_memory_gib"):
            record.pop(key, None)
    assert records[0] == records[1]
    folder = Path("models", model)
    for name in (folder / weights, folder / "tokenizer.json", *_curves(undisturbed, model)):
        assert (epochs.root / name).read_bytes() == (undisturbed.root / name).read_bytes(), name


@pytest.mark.parametrize("model", ["bart_mini", "llama32_3b"])
def test_a_training_that_dvc_did_not_save_is_not_trained_again(epochs: Project, model: str) -> None:
    """DVC dies after the stage's end, and deletes the outputs before it runs the stage again."""
    epochs.stage("train", model)
    folder = epochs.root / "models" / model
    trained = {path.name: path.read_bytes() for path in folder.iterdir()}

    epochs.run("dvc", "repro", "--single-item", f"train@{model}")
    record = read_json(epochs.root / f"metrics/train/{model}.json")
    assert record["resumed_at_step"] == record["steps"] == 6
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == trained
    assert list((epochs.root / ".cache/checkpoints").glob(f"{model}-*/{ended_work.ENDED}"))

    # It is saved now, and whoever forces it again wants it trained.
    epochs.run("dvc", "repro", "--single-item", "--force", f"train@{model}")
    assert read_json(epochs.root / f"metrics/train/{model}.json")["resumed_at_step"] == 0


def _curves(project: Project, model: str) -> list[Path]:
    """Of figures that are the same at each run."""
    folder = project.root / "plots/training" / model
    found = [path.relative_to(project.root) for path in folder.rglob("*.[ct]sv")]
    same = [path for path in found if path.stem not in ("tokens_per_second", "peak_memory_gib")]
    assert {"loss", "learning_rate", "grad_norm", "epochs"} <= {path.stem for path in same}
    return same


class Killed(BaseException):
    pass


class KilledAtTheEnd(TrainerCallback):
    def on_train_end(self, *_: Any, **__: Any) -> None:
        raise Killed


def test_a_training_that_was_to_stop_early_stops_though_killed(tmp_path: Path) -> None:
    """Between its last checkpoint and its end."""
    twin = save_twin(llama32, tmp_path / "twin")

    def trainer(scratch: str, *callbacks: TrainerCallback) -> Any:
        # No epoch is so much better than the one before.
        stopping = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=100)
        return trainer_of(twin, tmp_path / scratch, callbacks=[stopping, *callbacks], epochs=6)[0]

    undisturbed = trainer("undisturbed")
    go_on(undisturbed, None)
    assert undisturbed.state.global_step < 18

    with pytest.raises(Killed):
        go_on(trainer("killed", KilledAtTheEnd()), None)
    resumed, last = trainer("killed"), last_checkpoint(tmp_path / "killed")
    assert go_on(resumed, last)["resumed_at_step"] == undisturbed.state.global_step
    assert resumed.state.global_step == undisturbed.state.global_step
    assert mean_loss(resumed.state.log_history) == mean_loss(undisturbed.state.log_history)
    for one, other in zip(resumed.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_status_tells_how_far_a_stopped_training_is(epochs: Project) -> None:
    _kill_after_a_checkpoint(epochs, "bart_mini")
    (folder,) = (epochs.root / ".cache/checkpoints").glob("bart_mini-*/")
    last = last_checkpoint(folder)
    assert last is not None
    step = read_json(last / "trainer_state.json")["global_step"]
    assert 0 < step < 6
    lines = [line for line in epochs.run("yoyak", "status").stdout.splitlines() if " kept " in line]
    assert len(lines) == 1
    assert re.match(rf"bart_mini .*, step {step} of 6 kept ", lines[0])


def test_changed_parameters_do_not_resume(epochs: Project) -> None:
    _kill_after_a_checkpoint(epochs, "bart_mini")
    epochs.edit(lambda params: params["models"]["bart_mini"]["training"].update(learning_rate=0.003))
    epochs.stage("prepare_prompts")
    epochs.stage("train", "bart_mini")
    assert read_json(epochs.root / "metrics/train/bart_mini.json")["resumed_at_step"] == 0


def _kill_after_a_checkpoint(project: Project, model: str) -> None:
    command = ["python", "stages/train.py", model]
    training = subprocess.Popen(
        command, cwd=project.root, env=project.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list((project.root / ".cache/checkpoints").glob("*/checkpoint-*/trainer_state.json")):
        assert training.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    training.send_signal(signal.SIGKILL)
    training.wait()


class KilledBefore(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize(("family", "kind"), [(llama32, trainer_of), (bart, full_trainer_of)])
@pytest.mark.parametrize("killed_after", [1, 4, 5])
def test_a_training_goes_on_within_an_epoch(
    tmp_path: Path, family: Family, kind: Callable[..., Any], killed_after: int
) -> None:
    """Six steps in two epochs: it sees the rows that were left, in their order."""
    twin = save_twin(family, tmp_path / "twin")

    def trainer(scratch: str, *callbacks: TrainerCallback) -> Any:
        made, _ = kind(twin, tmp_path / scratch, learning_rate=0.01)
        patience = EarlyStoppingCallback(early_stopping_patience=9)
        for callback in (patience, SaveWithinEpochs(LimitsParams(checkpoint_minutes=0)), *callbacks):
            made.add_callback(callback)
        return made

    undisturbed = trainer("undisturbed")
    go_on(undisturbed, None)
    with pytest.raises(Killed):
        go_on(trainer("killed", KilledBefore(killed_after)), None)
    resumed, last = trainer("killed"), last_checkpoint(tmp_path / "killed")
    assert go_on(resumed, last)["resumed_at_step"] == killed_after
    assert [entry["loss"] for entry in resumed.state.log_history if "loss" in entry] == [
        entry["loss"] for entry in undisturbed.state.log_history if "loss" in entry
    ]
    for one, other in zip(resumed.model.parameters(), undisturbed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_training_that_will_not_go_on_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not one that runs, nor another model's."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with _scratch(tmp_path, "kobart") as folder:
        (folder / "checkpoint-1").mkdir()
        (tmp_path / "data").write_text("other rows")
        with _scratch(tmp_path, "kobart", "data"):
            assert folder.exists(), "it runs"
        with _scratch(tmp_path, "kobart_f0"):
            pass
        stale = folder.with_name(folder.name[:-1] + "x")
        stale.mkdir()
        another = folder.with_name("kobart_f0-" + "0" * 16)
        another.mkdir()
        with _scratch(tmp_path, "kobart", "data"):
            assert not list(stale.parent.glob(f"{stale.name}*/"))
            assert another.exists()


def test_a_full_disk_stops_before_a_checkpoint() -> None:
    limits = LimitsParams(free_gb=1e9)
    with pytest.raises(UserError, match=r"the next checkpoint needs 500.0 MB of the .*B that are free on"):
        RoomToSave(limits, 0.5).on_evaluate(None, None, None)


def test_what_is_left_of_a_deleted_folder_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleting takes time, in which one may be killed."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))

    def killed(path: Path) -> None:
        raise Killed

    with _scratch(tmp_path, "kobart") as folder:
        (folder / "checkpoint-1").mkdir()
        (folder / "checkpoint-1/trainer_state.json").write_text("{}")
    _save(tmp_path)
    with monkeypatch.context() as deleting:
        deleting.setattr(ended_work.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            ended_work.delete_saved()
    with _scratch(tmp_path, "kobart") as folder:
        assert last_checkpoint(folder) is None
    _save(tmp_path)
    ended_work.delete_saved()
    assert not list(folder.parent.glob("*/"))


def test_what_has_ended_waits_until_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "cache"))
    workspace = tmp_path / "workspace"
    (workspace / "metrics/train").mkdir(parents=True)
    with _scratch(workspace, "kobart") as folder:
        pass
    ended_work.delete_saved()
    assert folder.exists(), "no dvc.lock"
    (workspace / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    ended_work.delete_saved()
    assert folder.exists(), "not in dvc.lock"
    _save(workspace)
    ended_work.delete_saved()
    assert not folder.exists()

    with _scratch(workspace, "kobart") as folder:
        pass
    shutil.rmtree(workspace)
    ended_work.delete_saved()
    assert not folder.exists(), "an experiment's workspace, which is gone"


def _scratch(workspace: Path, name: str, *files: str) -> AbstractContextManager[Path]:
    """The folder of a training whose metrics are there already."""
    record = workspace / "metrics/train/kobart.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("{}")
    paths = [workspace / file for file in files]
    return resume.scratch_folder("checkpoints", name, TrainingConfig.model_construct(), paths, record)


def _save(workspace: Path) -> None:
    md5 = hashlib.md5((workspace / "metrics/train/kobart.json").read_bytes()).hexdigest()
    (workspace / "dvc.lock").write_text(f"stages:\n  train@kobart:\n    outs:\n    - md5: {md5}\n")


def test_how_steps_were_divided_is_kept(tmp_path: Path) -> None:
    """And so the draws of dropout, which depend on it."""
    twin = save_twin(llama32, tmp_path / "twin")
    patience = [EarlyStoppingCallback(early_stopping_patience=2)]
    first, _ = trainer_of(twin, tmp_path / "scratch", callbacks=patience)
    first.add_callback(KeepBudget(first.budget))
    first.add_callback(KilledAtTheEnd())
    first.budget.tokens, first.budget.checkpointing, first.budget.why = 321, True, "measured"
    with pytest.raises(Killed):
        go_on(first, None)
    second, _ = trainer_of(twin, tmp_path / "scratch")
    go_on(second, last_checkpoint(tmp_path / "scratch"))
    assert second.budget.describe() == first.budget.describe()


def test_a_full_disk_stops_before_training(project: Project) -> None:
    project.stage("prepare_prompts")
    project.edit(lambda params: params["limits"].update(free_gb=1e9))
    done = project.stage("train", "bart_mini", check=False)
    assert done.returncode == 1
    assert re.search(r"error: training bart_mini needs [\d.]+ MB of the [\d.]+ GB that are free on", done.stdout)
    assert "Traceback" not in done.stdout
