"""All of `params.yaml`: its sections, and what a run consists of."""

from typing import Any

from pydantic import Field

from yoyak.core.errors import UserError, quoted
from yoyak.core.limits import LimitsParams
from yoyak.core.params import PARAMS, Section
from yoyak.core.run import Names, RunParams
from yoyak.data.dialogues import DataParams
from yoyak.data.prompts import PromptParams
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import EnsembleParams
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.inference.params import GenerationParams, MeanOf
from yoyak.modeling.spec import LoraParams, QuantizationParams
from yoyak.submission.file import SubmissionParams
from yoyak.training.params import TrackingParams, TrainingParams
from yoyak.tuning.params import TuningParams

INHERITED: dict[str, type[Section]] = {
    "lora": LoraParams,
    "quantization": QuantizationParams,
    "training": TrainingParams,
    "tuning": TuningParams,
    "generation": GenerationParams,
}
"""Top-level sections that an entry of `models` may override key by key."""


class Average(Section):
    """An entry of `models` that has no weights of its own."""

    members: Names = Field(min_length=2)
    """Models that share a tokenizer, tuned ones (`<model>_tuned`) among them."""
    mean_of: MeanOf = "logits"
    """`logits`: their mean decides on each token, and all members are in memory; `weights`: the mean of the members'
    weights is one model, at the cost of one. That is of adapters on the same base weights alone."""


class Params(Section):
    """All of `params.yaml`."""

    run: RunParams
    data: DataParams
    prompts: PromptParams
    lora: LoraParams
    quantization: QuantizationParams
    training: TrainingParams
    tuning: TuningParams
    generation: GenerationParams
    scoring: ScoringParams
    ensemble: EnsembleParams
    postprocessing: PostprocessingParams
    submission: SubmissionParams
    tracking: TrackingParams
    limits: LimitsParams
    models: dict[str, dict[str, Any]]


def has_members(params: Params, name: str) -> bool:
    return "members" in params.models[name]


def check_run(params: Params) -> None:
    """Stop at the first name in `run` that is no entry of `models`, or not of the kind that its list is for."""
    for key in ("models", "tuned", "untuned", "averaged"):
        for name in getattr(params.run, key):
            if name not in params.models:
                raise UserError(f"{PARAMS}: run.{key}: no model {quoted(name)!r}; there are {', '.join(params.models)}")
            _check_kind(params, key, name)


def _check_kind(params: Params, key: str, name: str) -> None:
    """Stop where a list of `run` names an entry that it is not for."""
    if has_members(params, name) == (key == "averaged"):
        return
    why = {
        "models": "has members in place of weights; put it into run.averaged",
        "tuned": "has members in place of weights; tune its members",
        "untuned": "has members in place of weights, and is nothing untuned; take it out",
        "averaged": "has weights, not members; put it into run.models",
    }
    raise UserError(f"{PARAMS}: run.{key}: {name} {why[key]}")
