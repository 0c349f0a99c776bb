"""The first stage: everything is checked, then prompts and resolved models are written."""

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from yoyak.core import stale_outputs
from yoyak.core.errors import UserError, quoted
from yoyak.core.limits import check_disk
from yoyak.core.params import Section, write_yaml
from yoyak.core.records import Prompt, Reference, record_writer, write_json
from yoyak.core.run import tuned
from yoyak.data import dialogues
from yoyak.data.dialogues import CleanedDialogue, DataParams
from yoyak.data.prompts import build
from yoyak.data.quality import Quality
from yoyak.metrics import encoder, morphemes
from yoyak.modeling import weights
from yoyak.preflight.check import check_room, check_submission, check_wandb, remember_architectures
from yoyak.preflight.check_files import check_files
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import ResolvedModel, resolve, resolve_average
from yoyak.tuning.params import told_without_gpu

SPLITS = ("train", "dev", "test")


class Data(NamedTuple):
    """What was found as the CSV files were read; their dialogues are not kept."""

    quality: dict[str, Quality]
    test: dict[str, None]
    """Names of the test rows, in their order."""
    references: dict[str, tuple[str, ...]] | None
    """Of each test row, where they are known."""


def prepare(params: Params) -> None:
    """Read the CSV files, pin each model's weights, and only then write prompts, resolved models and the report, and
    put trained models away that have left the run.

    The CSV files are read a row at a time, and once more for each further pass, so that they may be larger than memory.
    """
    data = read_data(params.data)
    check_submission(params.data, data.test)
    morphemes.require(params.scoring.tokenizer)
    if params.scoring.encoder:
        encoder.require(params.scoring.encoder)
    if params.tracking.wandb:
        check_wandb()
    check_disk(params.limits, 1, "prepare_prompts")
    names = dict.fromkeys([*params.run.models, *params.run.untuned])
    pins = {name: weights.pin(params.models[name]["weights"], f"models.{name}.weights") for name in names}
    resolved = {name: resolve(params, name, pin) for name, pin in pins.items()}
    check_files(resolved, AllPrompts(params), params.run.tuned)
    check_room(params, pins)
    remember_architectures(params)
    for name, of_model in resolved.items():
        _write(name, training=of_model.training, generation=of_model.generation)
    for name in params.run.tuned:
        _write(tuned(name), tuning=resolved[name].tuning, generation=resolved[name].tuned_generation)
    for name in params.run.averaged:
        _write(name, generation=resolve_average(params, name, pins))
    for split in SPLITS:
        _write_split(params, split, data.references)
    notes = [note for split in SPLITS for note in _notes(params.data, split, data.quality[split])]
    for note in [*notes, *_notes_on_tuning(resolved, params.run.tuned)]:
        print(f"note: {note}", file=sys.stderr)
    write_json(Path("metrics/data.json"), {split: quality.report() for split, quality in data.quality.items()})
    stale_outputs.put_away(Path("models"), params.run.trained)


def read_data(data: DataParams) -> Data:
    """All rows of the CSV files, checked and counted."""
    quality = {"train": Quality()}
    quality |= {split: Quality(of_train=quality["train"].texts) for split in ("dev", "test")}
    test: dict[str, None] = {}
    for split, seen in quality.items():
        for row, turns in _read(data, split):
            seen.add(row, turns)
            if split == "test":
                test[row.fname] = None
    return Data(quality, test, _test_references(data, test))


def _test_references(data: DataParams, test: Collection[str]) -> dict[str, tuple[str, ...]] | None:
    """References of the test rows where `data.test_references` is given; only `score` and `ensemble` read them."""
    if data.test_references is None:
        return None
    path = data.dir / data.test_references
    references = dialogues.read_references(path)
    for fname in test:
        if fname not in references:
            raise UserError(
                f"{path}: no reference summary for {quoted(fname)}; add its row, or leave data.test_references empty"
            )
    return references


def _read(data: DataParams, split: str) -> Iterator[CleanedDialogue]:
    return dialogues.clean_dialogues(data.dir / getattr(data, split), with_summary=split != "test")


class AllPrompts:
    """The prompts of all splits, read anew each time."""

    def __init__(self, params: Params) -> None:
        self.params = params

    def __iter__(self) -> Iterator[Prompt]:
        for split in SPLITS:
            for dialogue in _read(self.params.data, split):
                yield build(dialogue, self.params.prompts, for_training=split == "train")


def _write_split(params: Params, split: str, of_test: Mapping[str, tuple[str, ...]] | None) -> None:
    """The prompts of a split, and the references of dev, and of test where they are known."""
    references = {"train": False, "dev": True, "test": of_test is not None}[split]
    with ExitStack() as files:
        write_prompt = files.enter_context(record_writer(Path(f"data/prompts/{split}.jsonl")))
        write_reference = (
            files.enter_context(record_writer(Path(f"data/references/{split}.jsonl"))) if references else None
        )
        for dialogue in _read(params.data, split):
            row = dialogue.row
            write_prompt(build(dialogue, params.prompts, for_training=split == "train"))
            if write_reference:
                summaries = of_test[row.fname] if split == "test" and of_test is not None else row.summaries
                write_reference(Reference(fname=row.fname, summaries=summaries, topic=row.topic))


def _write(name: str, **sections: Section | None) -> None:
    """What decides a model, a file a section."""
    for kind, section in sections.items():
        if section is not None:
            write_yaml(Path(f"data/resolved/{name}/{kind}.yaml"), section.model_dump(mode="json"))


def _notes(data: DataParams, split: str, quality: Quality) -> list[str]:
    notes = quality.note_on_labels()
    if split == "train" and quality.several_summaries:
        notes.append("of several summaries a row training learns the first")
    return [f"{data.dir / getattr(data, split)}: {note}" for note in notes]


def _notes_on_tuning(resolved: Mapping[str, ResolvedModel], names: Sequence[str]) -> list[str]:
    if not names:
        return []
    # Imported here: it loads PyTorch, which no other run's preflight needs.
    from yoyak.core.environment import device

    configs = {name: resolved[name].tuning for name in names} if device() == "cpu" else {}
    return [told_without_gpu(name, config.tuning) for name, config in configs.items() if config]
