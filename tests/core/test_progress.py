"""What is seen of long work where there is no terminal: lines, the first one at once, then one a minute."""

import itertools
import re
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from logs import BAR
from project import Project
from trainers import PROMPTS, trainer_of
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback
from twins import llama32, save_twin

from yoyak.core import progress
from yoyak.core.params import read_yaml
from yoyak.core.progress import INTERVAL, span
from yoyak.inference import generate
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import OneModelConfig
from yoyak.modeling import weights
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.progress import TrainingProgress
from yoyak.training.resume import go_on

SLOW = """
import itertools, runpy, sys
from yoyak.core import progress
progress.clock = itertools.count(0, 20).__next__
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A stage on a machine on which 20 seconds go by from one look at the clock to the next."""


def test_a_log_of_long_stages_has_lines_alone(project: Project) -> None:
    project.stage("prepare_prompts")
    (project.root / "slow.py").write_text(SLOW)
    for model in ("llama32_3b", "bart_mini"):
        trained, inferred = (
            project.run("python", "slow.py", f"stages/{stage}.py", model).stdout for stage in ("train", "infer")
        )
        assert not re.search(BAR, trained + inferred)
        begins = (f"{model}: ", f"{model} dev", f"{model} test", "[transformers]")
        # Nothing is wrapped: each line, however long, begins as one.
        assert all(line.startswith(begins) for line in (trained + inferred).splitlines())
        for pattern in (
            r": a micro-batch of \d+ tokens took .*, \d+ tokens/s; the training takes about \d+ min",
            r": epoch 1 of 1, loss on dev \d.*",
            r": trained to step 1 of 1 in \d+ min, \d+ tokens/s, the best is that of step 1",
        ):
            assert re.search(rf"^{model}{pattern}$", trained, re.MULTILINE), trained
        for split in ("dev", "test"):
            done = rf"^{model} {split}: 4 of 4 dialogues, done in \d.*/(s|min)$"
            assert re.search(done, inferred, re.MULTILINE), inferred


class Log:
    """Lines, with the time of each by a clock that goes `step` seconds at each look, and as work takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: float = 0) -> None:
        self.now, self.step = 0.0, step
        self.lines: list[tuple[float, str]] = []
        monkeypatch.setattr(progress, "clock", self.tick)
        monkeypatch.setattr(progress, "say", lambda line: self.lines.append((self.now, line)))

    def tick(self) -> float:
        self.now += self.step
        return self.now

    @property
    def texts(self) -> list[str]:
        return [line for _, line in self.lines]

    @property
    def gaps(self) -> list[float]:
        """Seconds before each line but the first."""
        times = [time for time, _ in self.lines]
        return [after - before for before, after in itertools.pairwise(times)]


def at(seconds_a_token: float, log: Log) -> type:
    """What makes a trainer's tokens take time; a dev token half of it."""

    class Working:
        longest = 0.0

        def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            seconds = seconds_a_token * inputs["input_ids"].numel() * (1 if model.training else 0.5)
            type(self).longest = max(self.longest, seconds)
            log.now += seconds
            return super()._summed_loss(model, inputs)  # type: ignore[misc]

    return Working


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(llama32, tmp_path_factory.mktemp("twin") / "llama32_3b")


def shown(twin: Path, scratch: Path, kind: type, *callbacks: TrainerCallback, **training: Any) -> Any:
    """A trainer of 12 rows, four a step and each a micro-batch, that shows how far it is."""
    trainer, rows = trainer_of(twin, scratch, kind, **training)
    trainer.budget.tokens = 1
    patience = EarlyStoppingCallback(early_stopping_patience=9)
    for callback in (TrainingProgress("twin", rows.tokens, rows.tokens), patience, *callbacks):
        trainer.add_callback(callback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def test_a_long_training_has_a_line_a_minute(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within its steps, too: one takes several minutes."""
    log = Log(monkeypatch)
    trainer = shown(twin, tmp_path, at(0.25, log))
    trainer.train()
    first, *others = log.texts
    estimate = re.fullmatch(
        r"twin: a micro-batch of \d+ tokens took .*, 4 tokens/s; the training takes about (.*)", first
    )
    assert estimate
    # That was known from then on.
    assert estimate[1] == span(log.now - log.lines[0][0])
    for pattern in (
        r"twin: step [1-6] of 6: [\d,]+ of [\d,]+ tokens done, (loss \d.*, )?4 tokens/s, \d+ .* left",
        r"twin: epoch 2 of 2, loss on dev \d.*",
        r"twin: dev after step [36], loss of (8|12) of 12 rows done",
        r"twin: trained to step 6 of 6 in \d+ min, 4 tokens/s, the best is that of step [36]",
    ):
        assert any(re.fullmatch(pattern, line) for line in others), pattern
    timed = [gap for gap, line in zip(log.gaps, others, strict=True) if not re.match("twin: (epoch|trained)", line)]
    assert min(timed) >= INTERVAL
    assert max(log.gaps) < INTERVAL + type(trainer).longest


def test_a_short_training_has_a_line_an_epoch(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    shown(twin, tmp_path, at(0.001, log), epochs=3).train()
    beginnings = [re.sub(", .*", "", line) for line in log.texts]
    assert beginnings[:3] == [f"twin: epoch {epoch} of 3" for epoch in (1, 2, 3)]
    assert len(log.lines) == 4


def test_no_more_epochs_are_told_than_were_asked_for(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of few steps ends behind them: half of three steps are two."""
    log = Log(monkeypatch)
    shown(twin, tmp_path, at(0.001, log), epochs=0.5).train()
    assert [line[: line.index(",")] for line in log.texts if ": epoch " in line] == ["twin: epoch 0.5 of 0.5"]


def test_a_step_that_begins_anew_counts_no_token_twice(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a GPU's memory had run out in the middle of a step."""
    log = Log(monkeypatch)

    class FullOnce(at(0.25, log)):  # type: ignore[misc]
        passes = 0

        def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            type(self).passes += 1
            if self.passes == 3:
                raise torch.cuda.OutOfMemoryError("no memory")
            return super()._summed_loss(model, inputs)

    trainer = shown(twin, tmp_path, FullOnce)
    trainer.train()
    (progress_of_it,) = (each for each in trainer.callback_handler.callbacks if isinstance(each, TrainingProgress))
    assert progress_of_it.pace.tokens == 2 * progress_of_it.train_tokens
    assert re.match("twin: trained to step 6 of 6", log.texts[-1])


class Killed(BaseException):
    pass


class KilledAfterTheFirstEpoch(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch > 1:
            raise Killed


def test_a_resumed_training_tells_what_is_left(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    with pytest.raises(Killed):
        go_on(shown(twin, tmp_path, at(0.25, log), KilledAfterTheFirstEpoch()), None)
    log = Log(monkeypatch)
    go_on(shown(twin, tmp_path, at(0.25, log)), last_checkpoint(tmp_path))
    estimate = re.fullmatch(r"twin: a micro-batch of .*; what is left of the training takes about (.*)", log.texts[0])
    assert estimate
    assert estimate[1] == span(log.now - log.lines[0][0])
    assert re.match("twin: trained to step 6 of 6", log.texts[-1])


def summaries(twin: Path, kept: Path, search: str) -> None:
    entry = {
        "weights": str(twin),
        "pin": weights.pin(str(twin), "twin"),
        "method": "lora",
        "dtype": "fp32",
        "prompt": "structured",
    }
    beams = {"search": search, "num_beams": 2 if search == "beam" else 1, "num_beam_groups": 1, "candidates": 1}
    params = read_yaml(Path(__file__).parents[2] / "params.yaml")["generation"]
    config = OneModelConfig.model_validate(
        {
            "model": entry,
            "generation": params | beams | {"max_new_tokens": 6, "batch_size": 4},
            "quantization": None,
        }
    )
    generate.generate(load_for_inference(config.model, None), PROMPTS, config, "twin dev", kept)


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_a_long_inference_tells_its_first_dialogues_at_once(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    log = Log(monkeypatch, 25)
    summaries(twin, tmp_path, search)
    first = [line for line in log.texts if line.startswith("twin dev: ")]
    assert re.fullmatch(r"twin dev: [1-4] of 12 dialogues, \d.*/(s|min), \d+ (s|min) left", first[0])
    assert re.fullmatch(r"twin dev: 12 of 12 dialogues, done in \d+ min, \d.*/(s|min)", first[-1])
    assert min(gap for gap, line in zip(log.gaps, log.texts[1:], strict=True) if "12 of 12" not in line) >= INTERVAL


def test_a_short_inference_has_a_line_at_its_end(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch, 0.001)
    summaries(twin, tmp_path, "greedy")
    assert [re.sub(", done in .*", "", line) for line in log.texts] == [
        f"twin dev{search}: 12 of 12 dialogues" for search in ("", ", second search")
    ]


def test_the_innermost_of_works_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Event()
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        if "so far" in line:
            told.set()

    monkeypatch.setattr(progress, "clock", lambda: 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0)
    monkeypatch.setattr(progress, "say", keep)
    with progress.timed("downloading", lambda: "1 GB"):
        assert told.wait(60)
        told.clear()
        with progress.waiting("converting"):
            while "converting: 0.0 s so far" not in lines:
                assert told.wait(60)
    assert lines[0] == "downloading"
    assert set(lines[1:-1]) == {"downloading: 1 GB so far", "converting: 0.0 s so far"}
    assert lines[-1] == "downloading: done in 0.0 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.97, "10 s"), (59, "59 s"), (100, "2 min"), (3600, "1 h 0 min")]
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert span(seconds) == text
