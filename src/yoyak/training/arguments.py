"""What both trainers are told."""

from pathlib import Path
from typing import Any

import torch

from yoyak.core.environment import device
from yoyak.modeling.spec import DType
from yoyak.training.params import TrainingConfig, steps_of

LOGGED_POINTS = 200
"""Of a learning curve, about."""


def trainer_arguments(config: TrainingConfig, dtype: DType, scratch: Path, rows: int) -> dict[str, Any]:
    """The arguments that both trainers share. `dtype`: what is computed in; `rows`: of a pass over the training data.

    A batch of the trainer is an effective batch, and goes through the model in micro-batches: see `steps`.
    """
    params = config.training
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
        "seed": config.seed,
        "data_seed": config.seed,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "dataloader_pin_memory": False,
        **_mixed_precision(dtype),
    }


def _mixed_precision(dtype: DType) -> dict[str, bool | None]:
    """Computation in the model's dtype, fp16 with its loss scaled; TF32 where the card has it."""
    tf32 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)
    return {"bf16": dtype == "bf16", "fp16": dtype == "fp16", "tf32": tf32 or None}
