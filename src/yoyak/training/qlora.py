"""Adapters over (4-bit) base weights of a decoder-only model, on TRL's `SFTTrainer`."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithFlattening, TrainerCallback
from trl import SFTConfig, SFTTrainer

from yoyak.models import Loaded, LoraParams
from yoyak.training.memory import Plan
from yoyak.training.rows import IGNORED, Rows
from yoyak.training.settings import TrainingJob, trainer_arguments

BEST = {"metric_for_best_model": "eval_loss", "greater_is_better": False}


class SummaryLossTrainer(SFTTrainer):
    """`SFTTrainer` on micro-batches without padding, with logits at the summary's positions alone.

    A micro-batch is one sequence of all its rows; position ids that begin anew at each row keep the rows from seeing
    each other. Against TRL 1.16's own chunked loss, which also measures entropy, this trains 2.6 times as fast on two
    CPU cores with a vocabulary of 262 k, to the same loss: `benchmarks/summary_loss.py`.
    """

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        targets = labels[0, 1:]
        positions = (targets != IGNORED).nonzero().squeeze(1)
        # `use_cache` and the absent attention mask are what makes transformers see the rows' borders.
        outputs = model(**inputs, use_cache=False, logits_to_keep=positions)
        total = cross_entropy(outputs.logits[0].float(), targets[positions], reduction="sum")
        loss = total / (len(positions) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss


def trainer(
    job: TrainingJob,
    loaded: Loaded,
    train: Rows,
    dev: Rows,
    plan: Plan,
    scratch: Path,
    steps: int,
    callbacks: list[TrainerCallback],
) -> SummaryLossTrainer:
    """A trainer that keeps the epoch with the lowest dev loss."""
    lora = job.lora
    assert lora is not None, "the preflight gives it to each model with method: lora"
    arguments = SFTConfig(
        **trainer_arguments(job, scratch, steps, plan.accumulation(job.training.effective_batch_size)),
        **BEST,
        per_device_train_batch_size=plan.micro_batch_size,
        # One row: the trainer averages the losses of batches, and which epoch is best must not depend on free memory.
        per_device_eval_batch_size=1,
        gradient_checkpointing=plan.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        prediction_loss_only=True,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    result = SummaryLossTrainer(
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_list(train.rows),
        eval_dataset=Dataset.from_list(dev.rows),
        data_collator=DataCollatorWithFlattening(),
        processing_class=loaded.tokenizer,
        peft_config=_peft_config(lora),
        callbacks=callbacks,
    )
    _train_in_fp32(result.model)
    return result


def _peft_config(lora: LoraParams) -> LoraConfig:
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        bias=lora.bias,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _train_in_fp32(model: Any) -> None:
    """TRL makes adapters over 4-bit weights bf16, in which a step at a learning rate of 2e-5 is rounded away."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
