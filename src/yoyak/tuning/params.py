"""The hyper-parameters of tuning, and what decides a tuned model."""

from pathlib import Path

from pydantic import Field

from yoyak.core.folds import Fold
from yoyak.core.params import Section, check, read_yaml
from yoyak.inference.params import GenerationParams, OneModelConfig
from yoyak.modeling.spec import ModelSpec

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3_text")
"""`model_type` of what can be tuned: models whose logits are the output head's, softly capped perhaps, and whose layers
attend as `groups` does. Others scale logits (Granite, Cohere), or have windows that their layers do not tell of."""
SEQUENCES_AT_ONCE = 512
"""Summaries that are written together, as inference does not: what is drawn is used but once, and a step or a look at
dev waits for its longest."""


class TuningParams(Section):
    """How a trained model learns from the scores of its own summaries: REINFORCE with a baseline that leaves one out
    (Ahmadian et al. 2024, arXiv:2402.14740)."""

    epochs: float = Field(gt=0)
    """Passes over the training dialogues."""
    dialogues_a_step: int = Field(ge=1)
    """Dialogues whose summaries an optimiser step learns from."""
    candidates: int = Field(ge=2)
    """Summaries drawn of each dialogue."""
    temperature: float = Field(gt=0)
    """At which they are drawn, with top-k and top-p off; and so is what the tuned model writes, where its `search` is
    `sample`."""
    learning_rate: float = Field(gt=0, lt=1)
    """Highest learning rate; it falls to 0 on a line."""
    max_length_ratio: float = Field(gt=0)
    """Characters of a summary over the reference's: beyond it a summary is worth less, by as much as it is longer.
    ROUGE pays for length, and a model without a bound learns little else."""
    reference_weight: float = Field(ge=0)
    """Weight of the loss on the reference summary beside that of the reward: it keeps the model's language."""


def told_without_gpu(model: str, params: TuningParams) -> str:
    """What a user should know who has `model` tuned on a CPU."""
    return (
        f"{model} is tuned without a GPU: {params.candidates} summaries of each dialogue are written and learned from, "
        f"{params.epochs:g} times over, which is several times the work of a training; use a GPU, or take it out of "
        "run.tuned"
    )


class TuningConfig(Section):
    """All that decides a tuned model but data and the trained model: `data/resolved/<model>_tuned/tuning.yaml`."""

    model: ModelSpec
    tuning: TuningParams
    generation: GenerationParams
    """Of which tuning takes `max_new_tokens`, `script_guard` and, where it is more than `SEQUENCES_AT_ONCE`,
    `batch_size`."""
    seed: int
    fold: Fold | None = None
    """Of train, which the model does not see."""

    def drawing(self, seed: int) -> OneModelConfig:
        """How candidates are drawn: from the model's own distribution, but for the script guard."""
        return self._searched("sample", self.tuning.candidates, seed)

    @property
    def greedy(self) -> OneModelConfig:
        """How dev is summarised after each epoch."""
        return self._searched("greedy", 1, seed=0)

    def _searched(self, search: str, candidates: int, seed: int) -> OneModelConfig:
        own = self.generation
        generation = {
            "search": search,
            "candidates": candidates,
            "temperature": self.tuning.temperature,
            "top_k": 0,
            "max_new_tokens": own.max_new_tokens,
            "script_guard": own.script_guard,
            "batch_size": max(own.batch_size, SEQUENCES_AT_ONCE // candidates),
            "seed": seed,
        }
        return OneModelConfig(model=self.model, generation=GenerationParams.model_validate(generation))


def read_config(path: Path) -> TuningConfig:
    return check(TuningConfig, read_yaml(path), f"{path}:")
