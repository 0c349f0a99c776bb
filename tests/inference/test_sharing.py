"""Several processes summarise what one would, and write what it writes; which of them there were changes nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from inferences import config_of, load
from project import Project
from trainers import PROMPTS
from twins import bart, llama32, save_twin

from yoyak.core.errors import UserError
from yoyak.core.gpu import PROCESSES_WITHOUT_GPU
from yoyak.core.records import Candidate, Prediction, read_json
from yoyak.core.workers import Work, Workers
from yoyak.inference import generate
from yoyak.inference.params import OneModelConfig

T = TypeVar("T")


def begin(config: OneModelConfig) -> Work:
    loaded = load(config)
    return lambda order: generate.search(loaded, *order)


def begin_with_nan(config: OneModelConfig) -> Work:
    nan = Candidate(text="", log_probability=float("nan"), finished=True)
    return lambda order: iter([[(prompt.row, [nan]) for prompt in order[0]]])


def texts(predictions: list[Prediction]) -> list[Any]:
    """All but the last digits of log-probabilities, which depend on what stood beside a dialogue."""
    return [
        (row.fname, row.text, row.faults, [(each.text, each.finished) for each in row.candidates])
        for row in predictions
    ]


@pytest.mark.parametrize(
    ("family", "method", "search"),
    [
        (llama32, "lora", {"search": "sample", "candidates": 3}),
        (llama32, "lora", {"search": "greedy", "candidates": 1}),
        (bart, "full", {"search": "beam", "num_beams": 3, "candidates": 3}),
    ],
    ids=["sample", "greedy", "beam"],
)
def test_the_texts_are_those_of_one_process(family: Any, method: str, search: dict[str, Any], tmp_path: Path) -> None:
    """On any number of them; and where a killed run is gone on with by more or fewer."""
    config = config_of(save_twin(family, tmp_path / "twin"), method, **search)
    loaded = load(config)

    def run(folder: Path, workers: Workers | None) -> generate.Generated:
        return generate.generate(loaded, PROMPTS, config, "twin", folder, workers=workers)

    expected = run(tmp_path / "one", None)
    with Workers("twin", ["", ""], partial(begin, config)) as workers:
        three = run(tmp_path / "three", workers)
        assert texts(three.predictions) == texts(expected.predictions)
        assert three.generated_again == expected.generated_again == len(PROMPTS)
        shutil.copytree(cut(tmp_path / "one"), tmp_path / "one to three")
        resumed = run(tmp_path / "one to three", workers)
    assert (resumed.done_before, texts(resumed.predictions)) == (5, texts(expected.predictions))
    resumed = run(cut(tmp_path / "three"), None)
    assert (resumed.done_before, texts(resumed.predictions)) == (5, texts(expected.predictions))


def cut(folder: Path) -> Path:
    """As a kill leaves it."""
    lines = (folder / "first.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == len(PROMPTS)
    (folder / "first.jsonl").write_text("".join(lines[:5]) + lines[5][:20])
    (folder / "second.jsonl").unlink()
    return folder


def test_what_a_worker_finds_is_looked_at_too(tmp_path: Path) -> None:
    config = config_of(save_twin(llama32, tmp_path / "twin"))
    with (
        Workers("twin", [""], partial(begin_with_nan, config)) as workers,
        pytest.raises(UserError, match="the model computes what is no number"),
    ):
        generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "kept", workers=workers)


def test_the_stage_goes_on_after_the_death_of_any_process(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself or by more: the files are those of one process that nobody killed."""
    project.edit(lambda params: params["models"]["bart_mini"]["generation"].update(batch_size=1))
    for stage in (["prepare_prompts"], ["train", "bart_mini"], ["infer", "bart_mini"]):
        project.stage(*stage)
    paths = [project.root / f"predictions/bart_mini/{split}.jsonl" for split in ("dev", "test")]
    expected = [path.read_bytes() for path in paths]

    monkeypatch.setenv(PROCESSES_WITHOUT_GPU, "1")
    project.edit(lambda params: params["limits"].update(gpus=3))
    shutil.rmtree(project.root / ".cache/predictions")
    running = start(project)
    workers = wait_for(running, lambda: workers_of(running, 2))
    os.kill(workers[0], signal.SIGKILL)
    told, _ = running.communicate(timeout=60)
    assert running.returncode == 1
    how = "the process of GPU 1 was killed (SIGKILL)"
    assert told.splitlines()[-1] == f"error: bart_mini: {how}; `dvc repro` goes on where it was"
    assert "Traceback" not in told
    assert not any(map(is_alive, workers))

    running = start(project)
    workers = wait_for(running, lambda: workers_of(running, 2))
    kept = project.root / ".cache/predictions"
    wait_for(running, lambda: any(path.stat().st_size for path in kept.glob("*/dev/first.jsonl")))
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=60)
    while any(map(is_alive, workers)):
        time.sleep(0.01)

    project.edit(lambda params: params["limits"].update(gpus=1))
    project.stage("infer", "bart_mini")
    assert [path.read_bytes() for path in paths] == expected
    record = read_json(project.root / "metrics/infer/bart_mini.json")
    assert record["dev"]["resumed_at_row"] > 0
    assert "processes" not in record["ran"]

    project.edit(lambda params: params["limits"].update(gpus=2))
    shutil.rmtree(kept)
    told = project.stage("infer", "bart_mini").stdout
    assert [sum(f"bart_mini {split}: " in line for line in told.splitlines()) for split in ("dev", "test")] == [1, 1]
    assert "processes: 2 share the dialogues" in told
    assert [path.read_bytes() for path in paths] == expected
    record = read_json(project.root / "metrics/infer/bart_mini.json")
    assert record["ran"]["processes"] == "2 share the dialogues"


def start(project: Project) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "stages/infer.py", "bart_mini"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(running: subprocess.Popen[str], condition: Callable[[], T]) -> T:
    while not (met := condition()):
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.005)
    return met


def workers_of(running: subprocess.Popen[str], count: int) -> list[int]:
    """Once there are so many."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    found = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return found if len(found) == count else []


def is_alive(process: int) -> bool:
    """A zombie is not."""
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"
