"""An entry of `models` with what it inherits: the parameters that a model really has."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from yoyak.core.errors import UserError, quoted
from yoyak.core.folds import Fold
from yoyak.core.params import Section, check, refuse_unknown
from yoyak.core.run import entry_of
from yoyak.inference.params import AverageConfig, GenerationParams, Member, OneModelConfig
from yoyak.modeling.spec import ModelSpec, is_folder
from yoyak.preflight.params import INHERITED, Average, Params, has_members
from yoyak.training.params import TrainingConfig
from yoyak.tuning.params import TuningConfig

OF_OUR_OWN = ("fold", "members")
"""Further keys of an entry."""
OUTPUTS = (
    *("models", "predictions", "plots", "ensemble", "scores", "submission", "metrics"),
    *("data/prompts", "data/references", "data/resolved", "data/members"),
)
"""Folders that stages write."""


class ResolvedModel(Section):
    """An entry of `models`, resolved: with what it inherits."""

    training: TrainingConfig
    tuning: TuningConfig | None
    """None under `method: full`."""
    generation: OneModelConfig

    @property
    def tuned_generation(self) -> OneModelConfig:
        """Of the tuned model: it draws as it did when it learned, and so best for an ensemble (docs/tuning.md)."""
        own = self.generation.generation
        if self.tuning is None or own.search != "sample":
            return self.generation
        drawn = own.model_copy(update={"temperature": self.tuning.tuning.temperature, "top_k": 0, "top_p": 1.0})
        return self.generation.model_copy(update={"generation": drawn})


def resolve(params: Params, name: str, pin: str | None) -> ResolvedModel:
    """An entry of `models` with the defaults it does not override; `pin` is what its weights are, to the byte."""
    entry = dict(params.models[name])
    where = f"params.yaml: models.{name}"
    refuse_unknown(entry, [key for key in [*ModelSpec.model_fields, *INHERITED, *OF_OUR_OWN] if key != "pin"], where)
    fold = check(Fold, entry.pop("fold"), f"{where}.fold") if "fold" in entry else None
    merged: dict[str, Any] = {key: _merged(params, key, entry.pop(key, None), where) for key in INHERITED}
    if entry.get("method") == "full":
        _refuse_overrides(params.models[name], where)
        merged["lora"] = merged["quantization"] = merged["tuning"] = None
    sections = {
        key: check(kind, merged[key], f"{where}.{key}") if merged[key] is not None else None
        for key, kind in INHERITED.items()
    }
    model = check(ModelSpec, {**entry, "pin": pin}, where)
    if is_folder(model.weights):
        refuse_outputs(model.weights, f"{where}.weights")
    generation, tuning = sections.pop("generation"), sections.pop("tuning")
    shared = {"model": model, "seed": params.run.seed, "fold": fold}
    # Only the summaries' own switch counts here.
    in_4bit = {**merged["quantization"], "load_in_4bit": True} if _in_4bit(merged) else None
    return ResolvedModel(
        training=check(TrainingConfig, {**shared, **sections}, where),
        tuning=tuning and check(TuningConfig, {**shared, "tuning": tuning, "generation": generation}, where),
        generation=check(
            OneModelConfig,
            {"model": model, "generation": generation, "quantization": in_4bit, "fold": fold},
            where,
        ),
    )


def resolve_average(params: Params, name: str, pins: Mapping[str, str | None]) -> AverageConfig:
    """An entry with members, each resolved from its own entry; `pins` are those of their weights, by name."""
    entry, where = dict(params.models[name]), f"params.yaml: models.{name}"
    average = check(Average, {key: entry.pop(key) for key in Average.model_fields if key in entry}, where)
    overrides = entry.pop("generation", None)
    for key in entry:
        raise UserError(
            f"{where}.{key}: an entry with members has no key but mean_of and generation beside them; take it out"
        )
    for member in average.members:
        if entry_of(member) not in params.models:
            raise UserError(f"{where}.members: no model {quoted(member)!r}; there are {', '.join(params.models)}")
        if has_members(params, entry_of(member)):
            raise UserError(f"{where}.members: {member} has members itself; name those in its place")
    merged = _merged(params, "generation", overrides, where)
    if "load_in_4bit" in (overrides or {}):
        raise UserError(f"{where}.generation.load_in_4bit: members are loaded as their own entries say; set it there")
    resolved = {member: resolve(params, entry_of(member), pins.get(entry_of(member))) for member in average.members}
    configs = {member: model.generation for member, model in resolved.items()}
    _check_learned_tokenizers(configs, where)
    _check_written_alike(configs, where)
    if average.mean_of == "weights":
        _check_weights_have_a_mean(resolved, where)
    fold, *others = [config.fold for config in configs.values()]
    return AverageConfig(
        mean_of=average.mean_of,
        fold=fold if all(other == fold for other in others) else None,
        members={
            member: Member(model=config.model, quantization=config.quantization) for member, config in configs.items()
        },
        generation=check(GenerationParams, merged, f"{where}.generation"),
    )


def refuse_outputs(source: str, where: str) -> None:
    """Stop where a user's folder is in one that stages write, or holds one: DVC deletes these before it runs them."""
    folder = Path(source).expanduser().resolve()
    for name in OUTPUTS:
        output = Path(name).resolve()
        if folder.is_relative_to(output):
            raise UserError(f"{where}: {source} is in {name}/, which the pipeline writes; move it elsewhere")
        if output.is_relative_to(folder):
            raise UserError(f"{where}: {source} holds {name}/, which the pipeline writes; move it into a folder below")


def _check_written_alike(configs: Mapping[str, OneModelConfig], where: str) -> None:
    """Persons, and how a summary ends."""
    first, *others = configs
    for other, key in itertools.product(others, ("persons", "prompt")):
        one, another = (getattr(configs[name].model, key) for name in (first, other))
        if one != another:
            raise UserError(f"{where}.members: {first} has {key}: {one}, {other} {another}; members write alike")


def _check_weights_have_a_mean(resolved: Mapping[str, ResolvedModel], where: str) -> None:
    """Stop unless all are adapters beside one and the same model in 16 or 32 bits."""
    first, *others = resolved
    for name, model in resolved.items():
        if model.training.lora is None:
            raise UserError(f"{where}.mean_of: {name} has method: full, and weights are of adapters; write logits")
        if model.training.lora.bias != "none":
            raise UserError(f"{where}.mean_of: {name} has trained biases; set models.{entry_of(name)}.lora.bias: none")
        if model.generation.quantization:
            in_4_bits = f"models.{entry_of(name)}.generation.load_in_4bit"
            raise UserError(f"{where}.mean_of: {name} has weights in 4 bits; set {in_4_bits}: false")
    for other, key in itertools.product(others, ModelSpec.model_fields):
        one, another = (getattr(resolved[name].generation.model, key) for name in (first, other))
        if one != another:
            raise UserError(
                f"{where}.mean_of: {first} has {key}: {one}, {other} {another}; make them alike, or write logits"
            )


def _check_learned_tokenizers(configs: Mapping[str, OneModelConfig], where: str) -> None:
    """What else keeps tokenizers apart shows when they are loaded: nothing large is downloaded here."""
    first, *others = configs
    for other in others:
        if _learned_tokenizer(configs[first]) != _learned_tokenizer(configs[other]):
            raise UserError(
                f"{where}.members: {first} and {other} have different tokenizers: a model from scratch learns its own "
                "from the rows that it sees; average models that share one"
            )


def _learned_tokenizer(config: OneModelConfig) -> object:
    """What the learned tokenizer of a model from scratch depends on; None for all other models."""
    return (config.model.architecture["vocab_size"], config.fold) if config.model.architecture else None


def _in_4bit(merged: Mapping[str, Any]) -> bool:
    return merged["quantization"] is not None and merged["generation"]["load_in_4bit"]


def _merged(params: Params, key: str, overrides: object, where: str) -> dict[str, Any]:
    if overrides is not None and not isinstance(overrides, dict):
        raise UserError(f"{where}.{key}: a mapping is expected (got {quoted(repr(overrides))})")
    return {**getattr(params, key).model_dump(), **(overrides or {})}


def _refuse_overrides(entry: dict[str, Any], where: str) -> None:
    for key in ("lora", "quantization", "tuning"):
        if key in entry:
            raise UserError(f"{where}.{key}: method: full trains every weight and takes no {key}")
