"""Several processes train as one does: the same losses, step by step, and the same figures of dev."""

import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import Project
from trainers import full_trainer_of, trainer_of
from transformers import TrainerCallback
from twins import bart, llama32, save_twin

from yoyak.core.gpu import PROCESSES_WITHOUT_GPU
from yoyak.core.records import read_json
from yoyak.core.workers import Work, Workers
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.ranks import Ranks, dealt
from yoyak.training.resume import go_on


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twins")
    save_twin(llama32, folder / "lora")
    save_twin(bart, folder / "full")
    return folder


class StopAt(TrainerCallback):
    """As a kill does, but on all ranks at the same step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step == self.step


def training(
    method: str, twin: Path, scratch: Path, ranks: Ranks, stop_at: int = 0, scarce: bool = False
) -> dict[str, Any]:
    """Losses and figures of dev. `scarce`: on the last rank memory runs out again and again."""
    if method == "lora":
        trainer, _ = trainer_of(twin, scratch, epochs=3, best_by="rouge", rouge_rows=12, effective_batch_size=5)
    else:
        trainer, _ = full_trainer_of(twin, scratch, epochs=3, effective_batch_size=5)
    trainer.args.logging_steps = 1
    trainer.ranks = ranks
    if stop_at:
        trainer.add_callback(StopAt(stop_at))
    if scarce and ranks.number == ranks.count - 1:
        trainer.compute_loss = out_of_memory_now_and_then(trainer.compute_loss)
    with ranks.together():
        ranks.start_alike(trainer.model)
        go_on(trainer, last_checkpoint(scratch))
    return {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in FIGURES}


FIGURES = ("loss", "grad_norm", "eval_loss", "eval_rouge_mean")


def out_of_memory_now_and_then(compute_loss: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    def scarce(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 5):
            raise torch.cuda.OutOfMemoryError("out of memory")
        return compute_loss(*args, **kwargs)

    return scarce


Order = tuple[Ranks, Callable[[Ranks], Any]]


def begin() -> Work:
    torch.set_num_threads(1)
    return work


def work(order: Order) -> Iterator[Any]:
    ranks, call = order
    if ranks.number < ranks.count:
        yield ranks.number, call(ranks)


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    """Three processes, which take long to start."""
    with Workers("twin", ["", "", ""], begin) as workers:
        yield workers


def together(pool: Workers, count: int, meeting: Path, call: Callable[[Ranks], Any]) -> list[Any]:
    """What each of so many ranks returns."""
    pool.tell([(Ranks(number, count, str(meeting)), call) for number in range(len(pool))])
    return [result for _, result in sorted(pool.results())]


def on(pool: Workers, count: int, method: str, twins: Path, scratch: Path, **options: Any) -> dict[str, Any]:
    """What the first of so many ranks says, having seen that the others say the same."""
    call = partial(training, method, twins / method, scratch, **options)
    first, *others = together(pool, count, scratch.with_name(f"{scratch.name}, {count} meet"), call)
    assert all(other == first for other in others)
    return dict(first)


def assert_same(ones: dict[str, Any], others: dict[str, Any]) -> None:
    for key in FIGURES:
        assert ones[key] == pytest.approx(others[key], rel=1e-5), key


@pytest.mark.parametrize("method", ["lora", "full"])
def test_losses_and_figures_of_dev_are_those_of_one_process(
    pool: Workers, method: str, twins: Path, tmp_path: Path
) -> None:
    """Where there are more ranks than rows, too: each epoch ends in a batch of two. And whoever goes on."""
    expected = on(pool, 1, method, twins, tmp_path / "one")
    assert len(expected["loss"]) == 9
    assert_same(on(pool, 3, method, twins, tmp_path / "three"), expected)
    for first, then in ((1, 2), (2, 1)):
        scratch = tmp_path / f"{first} to {then}"
        on(pool, first, method, twins, scratch, stop_at=6)
        assert last_checkpoint(scratch) is not None
        assert_same(on(pool, then, method, twins, scratch), expected)


def test_a_rank_that_runs_out_of_memory_lets_none_wait(pool: Workers, twins: Path, tmp_path: Path) -> None:
    expected = on(pool, 1, "lora", twins, tmp_path / "one")
    assert_same(on(pool, 2, "lora", twins, tmp_path / "two", scarce=True), expected)


@given(st.lists(st.integers(1, 1000), max_size=40), st.integers(1, 8))
def test_rows_are_dealt_out_once_and_evenly(lengths: list[int], count: int) -> None:
    shares = dealt(lengths, count)
    assert sorted(row for share in shares for row in share) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in share) for share in shares]
    assert len(shares) == count
    assert max(tokens) - min(tokens) <= max(lengths, default=0)


def test_gradients_that_no_rank_has_stay_none(pool: Workers, tmp_path: Path) -> None:
    results = together(pool, 2, tmp_path / "meeting", add_up)
    assert results == [([3.0, 1.0, 2.0, None], 3.0)] * 2


def add_up(ranks: Ranks) -> Any:
    """Each has one gradient of its own, one that both have, and none of the last."""
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(4)]
    own = float(ranks.number + 1)
    for parameter in (parameters[0], parameters[1 + ranks.number]):
        parameter.grad = torch.tensor([own])
    with ranks.together():
        loss = ranks.add_up_gradients(parameters, torch.tensor(own))
    return [None if each.grad is None else each.grad.item() for each in parameters], loss.item()


def test_the_stage_goes_on_after_the_death_of_any_process(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.edit(lambda params: params["limits"].update(checkpoint_minutes=0))
    project.stage("prepare_prompts")
    project.stage("train", "bart_mini")
    expected = read_json(project.root / "metrics/train/bart_mini.json")
    shutil.rmtree(project.root / ".cache/checkpoints")

    monkeypatch.setenv(PROCESSES_WITHOUT_GPU, "1")
    project.edit(lambda params: params["limits"].update(gpus=2))
    running = subprocess.Popen(
        [sys.executable, "stages/train.py", "bart_mini"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    checkpoints = project.root / ".cache/checkpoints"
    while not list(checkpoints.glob("*/checkpoint-*/trainer_state.json")):
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.005)
    workers = workers_of(running.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    told, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    assert re.search(
        r"^error: bart_mini: the process .* was killed \(SIGKILL\); `dvc repro` goes on", told, re.MULTILINE
    )
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)

    told = project.stage("train", "bart_mini").stdout
    assert told.count("bart_mini: trained to step") == told.count("bart_mini: 8 rows") == 1
    record = read_json(project.root / "metrics/train/bart_mini.json")
    assert record["resumed_at_step"] > 0
    assert record["ran"]["processes"] == "2 share each step"
    for figure in ("steps", "epochs", "rows", "micro_batch_tokens"):
        assert record[figure] == expected[figure]
    assert math.isfinite(record["train_loss"])
    assert (project.root / "models/bart_mini/model.safetensors").exists()


def workers_of(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
