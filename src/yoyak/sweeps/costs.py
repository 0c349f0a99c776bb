"""What a run costs, before it starts: gigabytes and time, a line a step."""

import datetime
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.table import Table

from yoyak.data.dialogues import REFERENCE_COLUMN
from yoyak.data.tables import read_table
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import ResolvedModel, resolve
from yoyak.sweeps import rates, sizes
from yoyak.sweeps.rates import CHARACTERS_A_TOKEN, NOTHING, Rates, Span
from yoyak.sweeps.sizes import Size

CHECKPOINTS = 4
"""Most that lie in the scratch folder at a time, the one that is being written among them."""
TOKENIZER_GB = 0.02
DAY = 24 * 3600


@dataclass(frozen=True)
class Rows:
    """What of the data decides on the work."""

    train: int
    dev: int
    test: int
    dialogue: float
    """Tokens of a mean dialogue."""
    summary: float
    """Tokens of a mean summary."""

    @property
    def both(self) -> float:
        return self.dialogue + self.summary


def rows_in(data: Path) -> Rows:
    """Of a data folder with `train.csv`, `dev.csv` and `test.csv`."""
    tables = {split: read_table(data / f"{split}.csv", ["fname", "dialogue"]) for split in ("train", "dev", "test")}
    train = tables["train"]
    summaries = next(column for column in train.columns if REFERENCE_COLUMN.fullmatch(column))
    dialogue, summary = (
        float(train[column].str.len().mean()) / CHARACTERS_A_TOKEN for column in ("dialogue", summaries)
    )
    return Rows(len(train), len(tables["dev"]), len(tables["test"]), dialogue, summary)


@dataclass(frozen=True)
class Step:
    """A line of the plan."""

    name: str
    seconds: Span | None
    """None where the model's size is not known."""
    download_gb: float = 0
    disk_gb: float = 0
    """That stay."""
    scratch_gb: float = 0
    """That are deleted when the step is done."""
    note: str = ""


def plan(params: Params, rows: Rows, known: Rates, done: Set[str]) -> list[Step]:
    """All steps of fetching, training, tuning and asking the models of the run, and of their ensemble.

    `done` has the stages whose outputs need not be made again.
    """
    sources: dict[str, list[str]] = {}
    for name in params.run.models:
        sources.setdefault(params.models[name]["weights"], []).append(name)
    rest = NOTHING if "ensemble" in done else known.rest
    last = _kept("score, ensemble, submission", rest)
    return [*_weights(sources), *work(params, rows, known, done), last]


def work(params: Params, rows: Rows, known: Rates, done: Set[str]) -> list[Step]:
    """Of these the steps of training, tuning and asking."""
    steps: list[Step] = []
    for name in params.run.models:
        model = resolve(params, name, pin=None)
        steps += _of_model(model, name, name in params.run.tuned, rows, known, done)
    return steps


def _weights(sources: Mapping[str, list[str]]) -> Iterator[Step]:
    """`sources` has the names of the models of each."""
    for source, names in sources.items():
        download, disk = sizes.to_fetch(source)
        if disk:
            yield Step(f"weights of {', '.join(names)}", NOTHING, download, disk)


def _of_model(
    model: ResolvedModel, name: str, is_tuned: bool, rows: Rows, known: Rates, done: Set[str]
) -> Iterator[Step]:
    size = sizes.size_of(model.training.model)
    dtype = model.training.model.dtype
    seconds = partial(known.seconds, size=size, dtype=dtype) if size else None
    kept, scratch = (0.0, 0.0) if size is None else trained_gb(model, size)

    def step(stage: str, what: str, kind: str, operations: float, *more: float) -> Step:
        gb = more or (0.0, 0.0)
        if f"{stage}@{name}" in done:
            return _kept(f"{what} {name}", NOTHING)
        spent = seconds(kind, operations=operations) if seconds else None
        return Step(f"{what} {name}", spent, disk_gb=gb[0], scratch_gb=gb[1])

    counted = size or Size(0, 0, 0)
    asked = (rows.dev + rows.test) * rates.inference_operations(model.generation, counted, rows.dialogue, rows.summary)
    yield step("train", "train", "train", training_work(model, counted, rows), kept, scratch)
    yield step("infer", "summarise by", rates.searched(model.generation), asked)
    if is_tuned:
        yield step("tune", "tune", "tune", tuning_work(model, counted, rows), kept, scratch)
        yield step("infer_tuned", "summarise by tuned", rates.searched(model.generation), asked)
    yield _kept(f"load and score {name}", NOTHING if f"infer@{name}" in done else known.rest)


def _kept(name: str, seconds: Span | None) -> Step:
    return Step(name, seconds, note="is done" if seconds == NOTHING else "")


def training_work(model: ResolvedModel, size: Size, rows: Rows) -> float:
    """Operations; of a full fine-tune with those of the summaries of dev, which end each epoch."""
    config = model.training
    learned = config.training.epochs * rows.train * rows.both * rates.training_operations(config, size)
    looks = config.training.epochs if config.model.method == "full" else 0
    return learned + looks * rows.dev * rates.inference_operations(model.generation, size, rows.dialogue, rows.summary)


def tuning_work(model: ResolvedModel, size: Size, rows: Rows) -> float:
    """Operations of drawing and learning from all candidates, and of learning from the reference."""
    assert model.tuning is not None, "adapters alone are tuned"
    params = model.tuning.tuning
    tokens = params.epochs * rows.train * (params.candidates * rows.summary + rows.both)
    return rates.tuning_operations(size.layers, tokens)


def trained_gb(model: ResolvedModel, size: Size) -> tuple[float, float]:
    """GB of what training saves in fp32, and most of its checkpoints, which have AdamW's two moments, too."""
    lora = model.training.lora
    learned = size.per_rank * lora.r if lora else size.parameters
    return 4 * learned / 1e9 + TOKENIZER_GB, CHECKPOINTS * 3 * 4 * learned / 1e9


def total(steps: list[Step], at_once: int) -> Span:
    """Seconds of all whose model's size is known, so many of them at once."""
    return sum((step.seconds for step in steps if step.seconds), NOTHING).times(1 / at_once)


def table(steps: list[Step], at_once: int) -> Table:
    """The plan, with its sums."""
    shown = Table(box=None, padding=(0, 2, 0, 0))
    shown.add_column("step", overflow="fold")
    for column in ("download GB", "disk GB", "time"):
        shown.add_column(column, justify="right", no_wrap=True)
    for step in steps:
        shown.add_row(step.name, _gb(step.download_gb), _gb(step.disk_gb), step.note or _time(step.seconds))
    if scratch := _scratch_gb(steps, at_once):
        shown.add_row("checkpoints, deleted again", "", _gb(scratch), "")
    together = f", {at_once} at once" if at_once > 1 else ""
    download = sum(step.download_gb for step in steps)
    shown.add_row(f"all{together}", _gb(download), _gb(disk_gb(steps, at_once)), _time(total(steps, at_once)))
    return shown


def ends(steps: list[Step], at_once: int, now: datetime.datetime) -> str:
    """When all would be done, downloads not counted."""
    first, last = (_clock(now, seconds) for seconds in total(steps, at_once))
    return f"it would end between {first} and {last}, and the time of downloads later"


def disk_gb(steps: list[Step], at_once: int) -> float:
    """GB that the disk must have, so many models learning at once."""
    return sum(step.disk_gb for step in steps) + _scratch_gb(steps, at_once)


def _scratch_gb(steps: list[Step], at_once: int) -> float:
    return at_once * max(step.scratch_gb for step in steps)


def names_of(steps: list[Step]) -> list[str]:
    """Steps of which nobody knows how long they take."""
    return [step.name for step in steps if step.seconds is None]


def told(seconds: float | None) -> str:
    """For a reader."""
    return _time(None if seconds is None else Span(seconds, seconds))


def _clock(now: datetime.datetime, seconds: float) -> str:
    end = now + datetime.timedelta(seconds=seconds)
    return f"{end:%H:%M}" if seconds < DAY else f"{end:%Y-%m-%d %H:%M}"


def _gb(amount: float) -> str:
    return f"{amount:.1f}" if amount >= 0.05 else ""


def _time(seconds: Span | None) -> str:
    """Minutes, or hours where they are many; from the shortest to the longest."""
    if seconds is None:
        return "?"
    if seconds == NOTHING:
        return ""
    unit, name = (3600, "h") if seconds.low > 3 * 3600 else (60, "min")
    low, high = (f"{value / unit:.{0 if value >= 10 * unit else 1}f}" for value in seconds)
    return f"{low} {name}" if low == high else f"{low} – {high} {name}"
