"""The first stage: everything is checked, then prompts and resolved models are written."""

import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from yoyak.core import stale_outputs
from yoyak.core.errors import UserError, quoted
from yoyak.core.limits import check_disk
from yoyak.core.params import Section, write_yaml
from yoyak.core.records import Dialogue, Reference, write_json, write_records
from yoyak.core.run import tuned
from yoyak.data import dialogues
from yoyak.data.dialogues import DataParams
from yoyak.data.prompts import build
from yoyak.metrics import morphemes
from yoyak.modeling import weights
from yoyak.preflight.check import check_room, check_submission, check_wandb, remember_architectures
from yoyak.preflight.check_files import check_files
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import ResolvedModel, resolve, resolve_average
from yoyak.tuning.params import told_without_gpu


def prepare(params: Params) -> None:
    """Read the CSV files, pin each model's weights, and only then write prompts, resolved models and the report, and
    put trained models away that have left the run."""
    splits = read_splits(params.data)
    references = known_references(params.data, splits)
    check_submission(params.data, splits["test"])
    morphemes.require(params.scoring.tokenizer)
    if params.tracking.wandb:
        check_wandb()
    check_disk(params.limits, 1, "prepare_prompts")
    names = dict.fromkeys([*params.run.models, *params.run.untuned])
    pins = {name: weights.pin(params.models[name]["weights"], f"models.{name}.weights") for name in names}
    resolved = {name: resolve(params, name, pin) for name, pin in pins.items()}
    prompts = {
        split: [build(row, params.prompts, for_training=split == "train") for row in rows]
        for split, rows in splits.items()
    }
    check_files(resolved, [*chain.from_iterable(prompts.values())], params.run.tuned)
    check_room(params, pins)
    remember_architectures(params)
    for name, of_model in resolved.items():
        _write(name, training=of_model.training, generation=of_model.generation)
    for name in params.run.tuned:
        _write(tuned(name), tuning=resolved[name].tuning, generation=resolved[name].tuned_generation)
    for name in params.run.averaged:
        _write(name, generation=resolve_average(params, name, pins))
    for split, of_split in prompts.items():
        write_records(Path(f"data/prompts/{split}.jsonl"), of_split)
    for split, expected in references.items():
        write_records(Path(f"data/references/{split}.jsonl"), expected)
    notes = [note for split in splits for note in _notes(params.data, split, splits[split])]
    for note in [*notes, *_notes_on_tuning(resolved, params.run.tuned)]:
        print(f"note: {note}", file=sys.stderr)
    write_json(Path("metrics/data.json"), dialogues.quality_report(splits))
    stale_outputs.put_away(Path("models"), params.run.trained)


def _write(name: str, **sections: Section | None) -> None:
    """What decides a model, a file a section."""
    for kind, section in sections.items():
        if section is not None:
            write_yaml(Path(f"data/resolved/{name}/{kind}.yaml"), section.model_dump(mode="json"))


def read_splits(data: DataParams) -> dict[str, list[Dialogue]]:
    return {
        "train": dialogues.read_dialogues(data.dir / data.train, with_summary=True),
        "dev": dialogues.read_dialogues(data.dir / data.dev, with_summary=True),
        "test": dialogues.read_dialogues(data.dir / data.test, with_summary=False),
    }


def _notes(data: DataParams, split: str, rows: list[Dialogue]) -> list[str]:
    notes = dialogues.note_on_labels(rows)
    if split == "train" and any(len(row.summaries) > 1 for row in rows):
        notes.append("of several summaries a row training learns the first")
    return [f"{data.dir / getattr(data, split)}: {note}" for note in notes]


def _notes_on_tuning(resolved: Mapping[str, ResolvedModel], names: Sequence[str]) -> list[str]:
    if not names:
        return []
    # Imported here: it loads PyTorch, which no other run's preflight needs.
    from yoyak.core.environment import device

    configs = {name: resolved[name].tuning for name in names} if device() == "cpu" else {}
    return [told_without_gpu(name, config.tuning) for name, config in configs.items() if config]


def known_references(data: DataParams, splits: Mapping[str, list[Dialogue]]) -> dict[str, list[Reference]]:
    """References of dev, and of test where `data.test_references` is given; only `score` and `ensemble` read them."""
    known = {"dev": [Reference(fname=row.fname, summaries=row.summaries, topic=row.topic) for row in splits["dev"]]}
    if data.test_references is None:
        return known
    path = data.dir / data.test_references
    references = dialogues.read_references(path)
    for row in splits["test"]:
        if row.fname not in references:
            fname = quoted(row.fname)
            raise UserError(
                f"{path}: no reference summary for {fname}; add its row, or leave data.test_references empty"
            )
    test = [Reference(fname=row.fname, summaries=references[row.fname], topic=row.topic) for row in splits["test"]]
    return {**known, "test": test}
