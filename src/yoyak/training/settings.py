"""The hyper-parameters of training. Hardware is not among them: see `memory`."""

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from yoyak.folds import Fold
from yoyak.machine import device
from yoyak.parameters import Section
from yoyak.spec import DType, LoraParams, ModelSpec, QuantizationParams

LossOn = Literal["summary", "text"]
LOGGED_POINTS = 200
"""Of a learning curve, about."""


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


class TrainingJob(Section):
    """All that decides a trained model but the data: the content of `data/resolved/<model>/training.yaml`."""

    model: ModelSpec
    lora: LoraParams | None
    """None under `method: full`, and so the next."""
    quantization: QuantizationParams | None
    training: TrainingParams
    seed: int
    fold: Fold | None = None
    """Of train, which the model does not see."""


def steps_of(params: TrainingParams, rows: int) -> int:
    """Optimiser steps over all epochs of so many rows."""
    return math.ceil(math.ceil(rows / params.effective_batch_size) * params.epochs)


def trainer_arguments(job: TrainingJob, dtype: DType, scratch: Path, rows: int) -> dict[str, Any]:
    """The arguments that both trainers share. `dtype`: what is computed in; `rows`: of a pass over the training data.

    A batch of the trainer is an effective batch, and goes through the model in micro-batches: see `steps`.
    """
    params = job.training
    steps = steps_of(params, rows)
    return {
        "output_dir": str(scratch),
        "num_train_epochs": params.epochs,
        "per_device_train_batch_size": params.effective_batch_size,
        "learning_rate": params.learning_rate,
        "lr_scheduler_type": params.schedule,
        "warmup_steps": round(params.warmup_ratio * steps),
        "weight_decay": params.weight_decay,
        "max_grad_norm": params.max_grad_norm,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        # The best and the last: with 1, the last is deleted at the end, before the model is saved.
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "restore_callback_states_from_checkpoint": True,
        # Each look at the loss makes the CPU wait for the GPU.
        "logging_steps": max(1, steps // LOGGED_POINTS),
        "logging_first_step": True,
        # A loss that is not a number must be seen, not averaged away.
        "logging_nan_inf_filter": False,
        "seed": job.seed,
        "data_seed": job.seed,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "dataloader_pin_memory": False,
        **_mixed_precision(dtype),
    }


def _mixed_precision(dtype: DType) -> dict[str, bool | None]:
    """Computation in the model's dtype, fp16 with its loss scaled; TF32 where the card has it."""
    import torch

    tf32 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return {"bf16": dtype == "bf16", "fp16": dtype == "fp16", "tf32": tf32 or None}
