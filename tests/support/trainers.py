"""Trainers of twins, and the plain recipe that they are held to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, set_seed

from yoyak.core.params import read_yaml
from yoyak.core.records import Prompt
from yoyak.modeling import weights
from yoyak.modeling.spec import LoraParams, QuantizationParams
from yoyak.training import qlora, seq2seq
from yoyak.training.base_model import load_for_training
from yoyak.training.params import TrainingConfig
from yoyak.training.qlora import SummaryLossTrainer
from yoyak.training.rows import Rows, causal_rows, seq2seq_rows

DEFAULTS = Path(__file__).parents[2] / "params.yaml"
PROMPTS = [
    Prompt(
        fname=f"train_{row}",
        system="",
        turns=tuple(f"#Person{1 + turn % 2}#: {row}번째 이야기의 {turn}번째 말입니다." for turn in range(2 + row % 5)),
        question="위 대화를 요약해주세요.",
        summary=f"두 사람이 {row}번째 이야기를 합니다." * (1 + row % 3),
    )
    for row in range(12)
]


def trainer_of(
    twin: Path,
    scratch: Path,
    kind: Callable[..., Any] | None = None,
    dtype: str = "fp32",
    callbacks: list[TrainerCallback] | None = None,
    target_modules: Any = "all-linear",
    load_in_4bit: bool = False,
    sharded: bool = False,
    dropout: float = 0,
    **training: Any,
) -> tuple[SummaryLossTrainer, Rows]:
    """A trainer of the twin, without dropout and in fp32 unless something else is asked for."""
    model = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": dtype}
    lora = LoraParams(r=4, alpha=8, dropout=dropout, bias="none", target_modules=target_modules)
    defaults = read_yaml(DEFAULTS)["training"] | {"epochs": 2, "effective_batch_size": 4}
    config = TrainingConfig.model_validate(
        {
            "model": {**model, "prompt": "structured"},
            "lora": lora,
            "quantization": None,
            "training": defaults | {"learning_rate": 0.01, "warmup_ratio": 0} | training,
            "seed": 1,
        }
    )
    set_seed(1)
    quantization = QuantizationParams(load_in_4bit=load_in_4bit, type="nf4", double=True)
    loaded = load_for_training(config.model, quantization, [], sharded)
    rows = causal_rows(PROMPTS, loaded.prompt_tokenizer)
    trainer = qlora.trainer(config, loaded, rows, rows, scratch, callbacks or [])
    if kind is not None:
        trainer.__class__ = type("Changed", (kind, SummaryLossTrainer), {})
    return trainer, rows


def full_trainer_of(
    twin: Path, scratch: Path, dtype: str = "fp32", dropout: bool = False, **training: Any
) -> tuple[Any, Rows]:
    """A trainer of an encoder-decoder, without dropout and in fp32 unless something else is asked for."""
    model = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "full", "dtype": dtype}
    defaults = read_yaml(DEFAULTS)["training"] | {"epochs": 2, "effective_batch_size": 4}
    config = TrainingConfig.model_validate(
        {
            "model": {**model, "prompt": "dialogue"},
            "lora": None,
            "quantization": None,
            "training": defaults | training,
            "seed": 1,
        }
    )
    set_seed(1)
    loaded = load_for_training(config.model, None, [])
    for module in loaded.model.modules():
        if hasattr(module, "dropout") and not dropout:
            module.dropout = 0.0 if isinstance(module.dropout, float) else torch.nn.Identity()
    rows = seq2seq_rows(PROMPTS, loaded.prompt_tokenizer)
    return seq2seq.trainer(config, loaded, rows, rows, scratch, []), rows


def losses(trainer: Any) -> list[float]:
    trainer.args.logging_steps = 1
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def plain_gradients(
    trainer: SummaryLossTrainer, rows: list[dict[str, list[int]]], smoothing: float = 0.0
) -> torch.Tensor:
    """Of the recipe without any of our changes: rows padded into one batch, logits everywhere, labels shifted."""
    model = trainer.model.train()
    model.zero_grad()
    # Ours is for packed rows alone.
    model.base_model.model.set_attn_implementation("eager")
    width = max(len(row["input_ids"]) for row in rows)
    ids, mask, labels = (
        torch.tensor(
            [(row.get(key) or [1] * len(row["input_ids"])) + [fill] * (width - len(row["input_ids"])) for row in rows]
        ).to(model.device)
        for key, fill in (("input_ids", 0), ("mask", 0), ("labels", -100))
    )
    with trainer.accelerator.autocast():
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
    cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, label_smoothing=smoothing
    ).backward()
    return gradients(model)


def gradients(model: Any) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return found


def our_gradients(trainer: SummaryLossTrainer, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    batch = trainer.data_collator(rows)
    trainer.create_optimizer_and_scheduler(10)
    with trainer.accelerator.autocast():
        trainer.training_step(trainer.model, batch, (batch["labels"] != -100).sum())
    return gradients(trainer.model)


def warmed_up(trainer: SummaryLossTrainer) -> SummaryLossTrainer:
    """With adapters that are not zero, as they start: else half of the gradients are."""
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return trainer
