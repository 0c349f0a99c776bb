"""All of `params.yaml`: its sections, and what a run consists of."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from yoyak.core.limits import LimitsParams
from yoyak.core.params import Section
from yoyak.data.dialogues import DataParams
from yoyak.data.prompts import PromptParams
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import EnsembleParams
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.inference.params import GenerationParams
from yoyak.modeling.spec import LoraParams, QuantizationParams
from yoyak.submission.file import SubmissionParams
from yoyak.training.params import TrackingParams, TrainingParams

INHERITED: dict[str, type[Section]] = {
    "lora": LoraParams,
    "quantization": QuantizationParams,
    "training": TrainingParams,
    "generation": GenerationParams,
}
"""Top-level sections that an entry of `models` may override key by key."""


def _no_name_twice(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a model is named twice")
    return names


Names = Annotated[list[str], AfterValidator(_no_name_twice)]
"""Models, each named once."""


class RunParams(Section):
    """What a run consists of."""

    models: Names = Field(min_length=1)
    """Entries of `models` with weights, to train, score and ensemble."""
    untuned: Names
    """Models that are scored before training, too, as `baseline/untuned_<model>`: one more inference of dev each."""
    averaged: Names
    """Entries of `models` with members, to score and ensemble, too; their members must be in `run.models`."""
    seed: int = Field(ge=0, lt=2**32)
    """Seed of training; sampling has `generation.seed`."""

    @property
    def scored(self) -> list[str]:
        """Names of all that the ensemble may choose from."""
        return [*self.models, *self.averaged]


class Average(Section):
    """An entry of `models` that has no weights of its own."""

    members: Names = Field(min_length=2)
    """Models that share a tokenizer: the mean of their logits decides on each token."""


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


def has_members(params: Params, name: str) -> bool:
    return "members" in params.models[name]
