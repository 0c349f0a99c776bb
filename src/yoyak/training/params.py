"""The hyper-parameters of training. Hardware is not among them: see `memory`."""

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from yoyak.core.folds import Fold
from yoyak.core.params import Section, check, read_yaml
from yoyak.modeling.spec import LoraParams, ModelSpec, QuantizationParams

LossOn = Literal["summary", "text"]

EVALUATED_ROWS = {"lora": 8, "full": 16}
"""Dev rows in a batch, by method: constants, so that no figure of dev depends on the machine."""


class TrainingParams(Section):
    """How a model learns; what hardware decides, such as the micro-batch, is no parameter."""

    epochs: float = Field(gt=0)
    """Passes over the training rows."""
    effective_batch_size: int = Field(ge=1)
    """Rows an optimiser step learns from, on every machine."""
    learning_rate: float = Field(gt=0, lt=1)
    """Highest learning rate, which the schedule reaches after the warm-up."""
    schedule: Literal["cosine", "linear", "constant_with_warmup"]
    """Course of the learning rate after the warm-up."""
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of all steps in which the learning rate rises."""
    weight_decay: float = Field(ge=0)
    """AdamW's weight decay; 0 is off."""
    max_grad_norm: float = Field(gt=0)
    """Gradients longer than this are scaled down to it."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    """Share of each label that is spread over the whole vocabulary; the dev loss of adapters is without."""
    loss_on: LossOn = "summary"
    """What adapters learn to write: the summary alone, or with `text` the prompt, too. The dev loss is always of the
    summary alone."""
    best_by: Literal["loss", "rouge"] = "loss"
    """What makes an epoch of adapters the best: dev loss, or ROUGE of greedy summaries of `rouge_rows` dev rows. Under
    `method: full` it is always ROUGE, of all dev rows."""
    rouge_rows: int = Field(default=100, ge=1)
    """Dev rows that are summarised after each epoch, drawn by `run.seed`."""
    early_stopping_patience: int = Field(ge=1)
    """Epochs without a better dev figure after which training ends; the best epoch is kept."""


class TrackingParams(Section):
    """Where else curves go. No model is trained anew when it changes."""

    wandb: bool
    """To Weights & Biases, too; needs the extra `wandb` and `wandb login`."""


class TrainingConfig(Section):
    """All that decides a trained model but the data: the content of `data/resolved/<model>/training.yaml`."""

    model: ModelSpec
    lora: LoraParams | None
    """None under `method: full`, and so the next."""
    quantization: QuantizationParams | None
    training: TrainingParams
    seed: int
    fold: Fold | None = None
    """Of train, which the model does not see."""


def read_config(path: Path) -> TrainingConfig:
    return check(TrainingConfig, read_yaml(path), f"{path}:")


def steps_of(params: TrainingParams, rows: int) -> int:
    """Optimiser steps over all epochs of so many rows."""
    return math.ceil(math.ceil(rows / params.effective_batch_size) * params.epochs)
