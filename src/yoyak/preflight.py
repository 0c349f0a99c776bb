"""The first stage's look at everything: every section of `params.yaml`, every model, every file, before any work."""

import itertools
import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from yoyak import dialogues, leftovers, morphemes, weights
from yoyak.dialogues import DataParams
from yoyak.ensemble import EnsembleParams, check_members
from yoyak.errors import UserError
from yoyak.folds import Fold
from yoyak.jobs import AveragedJob, GenerationJob, Member
from yoyak.machine import LimitsParams, check_disk
from yoyak.parameters import Section, check, read_yaml, refuse_unknown, write_yaml
from yoyak.postprocessing import PostprocessingParams
from yoyak.prompts import PromptParams, build
from yoyak.records import Dialogue, Reference, write_json, write_records
from yoyak.scoring import ScoringParams
from yoyak.search import GenerationParams
from yoyak.spec import LoraParams, ModelSpec, QuantizationParams
from yoyak.submission import SubmissionParams, read_sample
from yoyak.training.settings import TrackingParams, TrainingJob, TrainingParams

NAME = re.compile(r"[a-z0-9_]+")
RESERVED = re.compile(r"baseline|ensemble|untuned_.*")
"""Names under which a run writes other things than models."""
INHERITED: dict[str, type[Section]] = {
    "lora": LoraParams,
    "quantization": QuantizationParams,
    "training": TrainingParams,
    "generation": GenerationParams,
}
"""Top-level sections that an entry of `models` may override key by key."""
OF_OUR_OWN = ("fold", "members")
"""Further keys of an entry."""
OUTPUTS = ("models", "predictions", "plots")
"""Folders that hold what stages write of each model."""


class RunParams(Section):
    """What a run consists of."""

    models: list[str] = Field(min_length=1)
    """Entries of `models` with weights, to train, score and ensemble."""
    untuned: list[str]
    """Models that are scored before training, too, as `baseline/untuned_<model>`: one more inference each."""
    averaged: list[str]
    """Entries of `models` with members, to score and ensemble, too; their members must be in `run.models`."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of training; sampling has `generation.seed`."""

    @field_validator("models", "untuned", "averaged")
    @classmethod
    def _no_name_twice(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a model is named twice")
        return names

    @property
    def scored(self) -> list[str]:
        """All that the ensemble may choose from."""
        return [*self.models, *self.averaged]


class Average(Section):
    """An entry of `models` that has no weights of its own."""

    members: list[str] = Field(min_length=2)
    """Models that share a tokenizer: the mean of their logits decides on each token."""

    @field_validator("members")
    @classmethod
    def _no_name_twice(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError("a model is named twice")
        return names


class Params(Section):
    """All of `params.yaml`."""

    run: RunParams
    data: DataParams
    prompts: PromptParams
    lora: LoraParams
    quantization: QuantizationParams
    training: TrainingParams
    generation: GenerationParams
    scoring: ScoringParams
    ensemble: EnsembleParams
    postprocessing: PostprocessingParams
    submission: SubmissionParams
    tracking: TrackingParams
    limits: LimitsParams
    models: dict[str, dict[str, Any]]


class Jobs(Section):
    """An entry of `models`, resolved: with what it inherits."""

    training: TrainingJob
    generation: GenerationJob


def read_params(path: Path) -> Params:
    """`params.yaml`, each section checked, and each entry of `models` too, whether the run has it or not."""
    params = check(Params, read_yaml(path), f"{path}:")
    for name in params.models:
        if RESERVED.fullmatch(name):
            raise UserError(f"{path}: models.{name}: this name is taken by what a run writes; choose another")
        if not NAME.fullmatch(name):
            raise UserError(f"{path}: models.{name}: a name has small letters, digits and _ alone (a dot breaks -S)")
    for key in ("models", "untuned", "averaged"):
        for name in getattr(params.run, key):
            if name not in params.models:
                raise UserError(f"{path}: run.{key}: no model {name!r}; there are {', '.join(params.models)}")
            _check_kind(params, key, name)
    check_members(params.ensemble, params.run.scored)
    for name, entry in params.models.items():
        if _has_members(params, name):
            resolve_average(params, name, pins={})
            continue
        resolve(params, name, pin=None)
        if entry["weights"] == "scratch":
            _check_scratch(params, name)
    for name in params.run.averaged:
        _check_members_run(params, name)
    return params


def _has_members(params: Params, name: str) -> bool:
    return "members" in params.models[name]


def _check_kind(params: Params, key: str, name: str) -> None:
    """Stop where a list of `run` names an entry that it is not for."""
    if _has_members(params, name) == (key == "averaged"):
        return
    why = {
        "models": "has members in place of weights; put it into run.averaged",
        "untuned": "has members in place of weights, and is nothing untuned; take it out",
        "averaged": "has weights, not members; put it into run.models",
    }
    raise UserError(f"params.yaml: run.{key}: {name} {why[key]}")


def _check_members_run(params: Params, name: str) -> None:
    members = params.models[name]["members"]
    if missing := [member for member in members if member not in params.run.models]:
        raise UserError(
            f"params.yaml: run.averaged: {name} is made of models that must run, too; put {', '.join(missing)} into "
            "run.models"
        )


def _check_scratch(params: Params, name: str) -> None:
    from yoyak.models import check_architecture  # It loads PyTorch, which all else here does without.

    check_architecture(params.models[name]["architecture"], f"params.yaml: models.{name}.architecture")
    if name in params.run.untuned:
        raise UserError(f"params.yaml: run.untuned: {name} is a model from scratch, nothing untuned; take it out")


def resolve(params: Params, name: str, pin: str | None) -> Jobs:
    """An entry of `models` with the defaults it does not override; `pin` is what its weights are, to the byte."""
    entry = dict(params.models[name])
    where = f"params.yaml: models.{name}"
    refuse_unknown(entry, [key for key in [*ModelSpec.model_fields, *INHERITED, *OF_OUR_OWN] if key != "pin"], where)
    fold = check(Fold, entry.pop("fold"), f"{where}.fold") if "fold" in entry else None
    merged: dict[str, Any] = {key: _merged(params, key, entry.pop(key, None), where) for key in INHERITED}
    if entry.get("method") == "full":
        _refuse_overrides(params.models[name], where)
        merged["lora"] = merged["quantization"] = None
    sections = {
        key: check(kind, merged[key], f"{where}.{key}") if merged[key] is not None else None
        for key, kind in INHERITED.items()
    }
    model = check(ModelSpec, {**entry, "pin": pin}, where)
    _refuse_outputs(model.weights, where)
    generation = sections.pop("generation")
    # Only the summaries' own switch counts here.
    in_4bit = {**merged["quantization"], "load_in_4bit": True} if _in_4bit(merged) else None
    return Jobs(
        training=check(TrainingJob, {"model": model, **sections, "seed": params.run.seed, "fold": fold}, where),
        generation=check(
            GenerationJob,
            {"model": model, "generation": generation, "quantization": in_4bit, "fold": fold},
            where,
        ),
    )


def resolve_average(params: Params, name: str, pins: Mapping[str, str | None]) -> AveragedJob:
    """An entry with members, each as its own entry says; `pins` are theirs."""
    entry, where = dict(params.models[name]), f"params.yaml: models.{name}"
    members = check(Average, {"members": entry.pop("members")}, where).members
    overrides = entry.pop("generation", None)
    for key in entry:
        raise UserError(f"{where}.{key}: an entry with members has no key but generation beside them; take it out")
    for member in members:
        if member not in params.models:
            raise UserError(f"{where}.members: no model {member!r}; there are {', '.join(params.models)}")
        if _has_members(params, member):
            raise UserError(f"{where}.members: {member} has members itself; name those in its place")
    merged = _merged(params, "generation", overrides, where)
    if "load_in_4bit" in (overrides or {}):
        raise UserError(f"{where}.generation.load_in_4bit: members are loaded as their own entries say; set it there")
    jobs = {member: resolve(params, member, pins.get(member)).generation for member in members}
    _check_learned_tokenizers(jobs, where)
    _check_written_alike(jobs, where)
    return AveragedJob(
        members={member: Member(model=job.model, quantization=job.quantization) for member, job in jobs.items()},
        generation=check(GenerationParams, merged, f"{where}.generation"),
    )


def _refuse_outputs(source: str, where: str) -> None:
    """What stages write there, DVC deletes before it runs them."""
    if not weights.is_folder(source):
        return
    folder = Path(source).expanduser().resolve()
    for output in (Path(name).resolve() for name in OUTPUTS):
        if folder.is_relative_to(output):
            raise UserError(
                f"{where}.weights: {source} is in {output.name}/, which the pipeline writes; move it elsewhere"
            )


def _check_written_alike(jobs: Mapping[str, GenerationJob], where: str) -> None:
    """Persons, and how a summary ends."""
    first, *others = jobs
    for other, key in itertools.product(others, ("persons", "prompt")):
        one, another = (getattr(jobs[name].model, key) for name in (first, other))
        if one != another:
            raise UserError(f"{where}.members: {first} has {key}: {one}, {other} {another}; members write alike")


def _check_learned_tokenizers(jobs: Mapping[str, GenerationJob], where: str) -> None:
    """What else keeps tokenizers apart shows when they are loaded: nothing large is downloaded here."""
    first, *others = jobs
    for other in others:
        if _learned_tokenizer(jobs[first]) != _learned_tokenizer(jobs[other]):
            raise UserError(
                f"{where}.members: {first} and {other} have different tokenizers: a model from scratch learns its own "
                "from the rows that it sees; average models that share one"
            )


def _learned_tokenizer(job: GenerationJob) -> object:
    """Of models from scratch what it depends on; the same for all others."""
    return (job.model.architecture["vocab_size"], job.fold) if job.model.architecture else None


def _in_4bit(merged: Mapping[str, Any]) -> bool:
    return merged["quantization"] is not None and merged["generation"]["load_in_4bit"]


def _merged(params: Params, key: str, overrides: object, where: str) -> dict[str, Any]:
    if overrides is not None and not isinstance(overrides, dict):
        raise UserError(f"{where}.{key}: a mapping is expected (got {overrides!r})")
    return {**getattr(params, key).model_dump(), **(overrides or {})}


def _refuse_overrides(entry: dict[str, Any], where: str) -> None:
    for key in ("lora", "quantization"):
        if key in entry:
            raise UserError(f"{where}.{key}: method: full trains every weight and takes no {key}")


def prepare(params: Params) -> None:
    """Read the CSV files, pin each model's weights, and only then write prompts, resolved models and the report, and
    put trained models away that have left the run."""
    splits = read_splits(params.data)
    references = known_references(params.data, splits)
    _check_submission(params.data, splits["test"])
    morphemes.require(params.scoring.tokenizer)
    if params.tracking.wandb:
        _check_wandb()
    check_disk(params.limits, 1, "prepare_prompts")
    names = dict.fromkeys([*params.run.models, *params.run.untuned])
    pins = {name: weights.pin(params.models[name]["weights"], f"models.{name}.weights") for name in names}
    _check_room(params, pins)
    for name, pin in pins.items():
        jobs = resolve(params, name, pin)
        for kind, job in (("training", jobs.training), ("generation", jobs.generation)):
            write_yaml(Path(f"data/resolved/{name}/{kind}.yaml"), job.model_dump(mode="json"))
    for name in params.run.averaged:
        average = resolve_average(params, name, pins)
        write_yaml(Path(f"data/resolved/{name}/generation.yaml"), average.model_dump(mode="json"))
    for split, rows in splits.items():
        prompts = [build(row, params.prompts, for_training=split == "train") for row in rows]
        write_records(Path(f"data/prompts/{split}.jsonl"), prompts)
    for split, expected in references.items():
        write_records(Path(f"data/references/{split}.jsonl"), expected)
    write_json(Path("metrics/data.json"), dialogues.quality_report(splits))
    leftovers.put_away(Path("models"), params.run.models)


def _check_room(params: Params, pins: Mapping[str, str | None]) -> None:
    """For the weights, too, that later stages download or convert."""
    sources = {params.models[name]["weights"]: pin for name, pin in pins.items()}
    weights_gb = sum(weights.to_write_gb(source, pin) for source, pin in sources.items())
    check_disk(params.limits, 1 + weights_gb, "this run, with weights that are still to be downloaded or converted,")


def _check_wandb() -> None:
    """Whether it is there, and somebody is logged in; a training must not be the first to find out."""
    where = "params.yaml: tracking.wandb"
    if find_spec("wandb") is None:
        raise UserError(f"{where}: the package wandb is missing; `pip install wandb`, or set it false")
    if os.environ.get("WANDB_MODE", "online") != "online":
        return
    import wandb

    try:
        wandb.Api()
    except wandb.errors.UsageError:
        raise UserError(
            f"{where}: nobody is logged in; `wandb login`, or WANDB_MODE=offline, or set it false"
        ) from None


def read_splits(data: DataParams) -> dict[str, list[Dialogue]]:
    return {
        "train": dialogues.read_dialogues(data.dir / data.train, with_summary=True),
        "dev": dialogues.read_dialogues(data.dir / data.dev, with_summary=True),
        "test": dialogues.read_dialogues(data.dir / data.test, with_summary=False),
    }


def known_references(data: DataParams, splits: Mapping[str, list[Dialogue]]) -> dict[str, list[Reference]]:
    """What dev, and test where a file says so, is scored against. No stage but `score` and `ensemble` reads it."""
    known = {"dev": [Reference(fname=row.fname, summaries=row.summaries, topic=row.topic) for row in splits["dev"]]}
    if data.test_references is None:
        return known
    path = data.dir / data.test_references
    references = dialogues.read_references(path)
    for row in splits["test"]:
        if row.fname not in references:
            raise UserError(
                f"{path}: no reference summary for {row.fname}; add its row, or leave data.test_references empty"
            )
    test = [Reference(fname=row.fname, summaries=references[row.fname], topic=row.topic) for row in splits["test"]]
    return {**known, "test": test}


def _check_submission(data: DataParams, test: list[Dialogue]) -> None:
    path = data.dir / data.sample_submission
    known = {row.fname for row in test}
    for row, fname in enumerate(read_sample(path)["fname"], start=1):
        if fname not in known:
            raise UserError(f"{path}, row {row}, column 'fname': {fname} is not in {data.dir / data.test}")
