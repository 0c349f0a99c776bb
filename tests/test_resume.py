"""A training that is killed goes on from its last epoch and ends as if it had not been; memory that runs out is met."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from project import Project

from yoyak.errors import UserError
from yoyak.records import read_json
from yoyak.training.memory import Plan, shrinking_on_oom


@pytest.fixture
def epochs(project: Project) -> Project:
    """The project with enough epochs to be killed in."""
    project.edit(lambda params: params["training"].update(epochs=12, early_stopping_patience=12))
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(epochs=12, early_stopping_patience=12))
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

    record = read_json(epochs.root / f"metrics/train/{model}.json")
    assert 0 < record["resumed_at_step"] < record["steps"] == 12
    folder = Path("models", model)
    for name in (weights, "tokenizer.json"):
        assert (epochs.root / folder / name).read_bytes() == (undisturbed.root / folder / name).read_bytes()
    assert not list((epochs.root / ".cache/checkpoints").glob("*/"))


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


def test_out_of_memory_recomputes_activations_then_halves_the_rows() -> None:
    tried = []

    def attempt(plan: Plan) -> str:
        tried.append((plan.micro_batch_size, plan.gradient_checkpointing))
        if plan.micro_batch_size > 2:
            raise torch.cuda.OutOfMemoryError
        return "trained"

    result, plan = shrinking_on_oom(Plan(8, False, "test"), attempt)
    assert (result, plan.micro_batch_size, plan.accumulation(8)) == ("trained", 2, 4)
    assert tried == [(8, False), (8, True), (4, True), (2, True)]


def test_a_row_that_does_not_fit_is_told_in_one_line() -> None:
    def attempt(plan: Plan) -> None:
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(UserError, match="max_prompt_tokens"):
        shrinking_on_oom(Plan(1, True, "test"), attempt)
