"""The loss of every step of a training, ours beside the plain recipe's, on a model whose loss really falls.

    python benchmarks/loss_curve.py MODEL TRAIN
    python benchmarks/loss_curve.py

The first on a GPU: MODEL is a folder with a pretrained decoder-only model and its tokenizer, TRAIN a CSV of the
competition. Both sides start from the same adapters, without dropout, and see the same rows in the same order, 64 a
step. The second draws what was recorded, as docs/loss_curve.png.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import recording
import torch
from torch.nn.functional import cross_entropy
from training import four_bits, padded
from transformers import get_cosine_schedule_with_warmup, set_seed

from yoyak.core import gpu
from yoyak.core.params import read_yaml
from yoyak.data.dialogues import clean, read_dialogues
from yoyak.data.prompts import PromptParams, build
from yoyak.modeling import weights
from yoyak.modeling.spec import LoraParams, QuantizationParams
from yoyak.training import qlora
from yoyak.training.adapters import peft_config
from yoyak.training.base_model import load_for_training
from yoyak.training.params import TrainingConfig
from yoyak.training.rows import causal_rows

ROWS_A_STEP = 64
MICRO_BATCH = 8
Batch = list[dict[str, list[int]]]


def main() -> None:
    if not sys.argv[1:]:
        draw(json.loads(Path("benchmarks/results/loss_curve.json").read_text()))
        return
    recording.require_clean_tree()
    model, train = map(Path, sys.argv[1:])
    config = job_of(model)
    batches, adapters, ours = our_losses(config, train)
    peak = gpu.peak_memory_gib()
    plain = plain_losses(config, model, batches, adapters)
    whose = "batches of 8, padded, checkpointing, all logits, PagedAdamW32bit"
    command = "python benchmarks/loss_curve.py MODEL TRAIN"
    rows = [
        recording.row(f"step {step + 1}", "loss", mine, other, whose, peak, command)
        for step, (mine, other) in enumerate(zip(ours, plain, strict=True))
    ]
    print(f"furthest apart: {max(abs(mine / other - 1) for mine, other in zip(ours, plain, strict=True)):.3%}")
    recording.record("loss_curve", rows)


def job_of(model: Path) -> TrainingConfig:
    defaults = read_yaml(Path("params.yaml"))
    return TrainingConfig.model_validate(
        {
            "model": {
                "weights": str(model.resolve()),
                "pin": weights.pin(str(model.resolve()), "MODEL"),
                "method": "lora",
                "dtype": "bf16",
                "prompt": "structured",
            },
            "lora": LoraParams(**defaults["lora"] | {"dropout": 0.0}),
            "quantization": QuantizationParams(**defaults["quantization"]),
            "training": defaults["training"] | {"epochs": 1, "effective_batch_size": ROWS_A_STEP},
            "seed": 0,
        }
    )


def our_losses(config: TrainingConfig, train: Path) -> tuple[list[Batch], dict[str, torch.Tensor], list[float]]:
    """The rows of each step, the adapters before the first, and the losses."""
    set_seed(config.seed)
    loaded = load_for_training(config.model, config.quantization, [])
    params = PromptParams(**read_yaml(Path("params.yaml"))["prompts"])
    prompts = [build(clean(row), params, for_training=True) for row in read_dialogues(train, with_summary=True)]
    rows = causal_rows(prompts, loaded.prompt_tokenizer)
    # A training this short would not be compiled.
    qlora.COMPILED_FROM = 0
    with tempfile.TemporaryDirectory() as scratch:
        trainer = qlora.trainer(config, loaded, rows, rows, Path(scratch), [])
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.args.load_best_model_at_end, trainer.args.logging_steps = False, 1
        adapters = {name: weight.detach().clone() for name, weight in trained(trainer.model).items()}
        batches: list[Batch] = []
        collator = trainer.data_collator
        trainer.data_collator = lambda rows: (batches.append(rows), collator(rows))[1]
        trainer.train()
    print(trainer.ran_with, trainer.budget.describe(), file=sys.stderr)
    return batches, adapters, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def plain_losses(
    config: TrainingConfig, model: Path, batches: list[Batch], adapters: dict[str, torch.Tensor]
) -> list[float]:
    """As QLoRA is taught, on a loop as plain as can be."""
    import bitsandbytes
    from peft import get_peft_model, prepare_model_for_kbit_training

    options = {"use_gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    peft = get_peft_model(
        prepare_model_for_kbit_training(four_bits(model), **options), peft_config(config.lora)
    ).train()
    peft.config.use_cache = False
    for name, weight in trained(peft).items():
        weight.data.copy_(adapters[name])
    params = config.training
    optimiser = bitsandbytes.optim.PagedAdamW32bit(trained(peft).values(), lr=params.learning_rate, weight_decay=0.0)
    warmup = round(params.warmup_ratio * len(batches))
    schedule = get_cosine_schedule_with_warmup(optimiser, warmup, len(batches))
    losses = []
    for batch in batches:
        labels = sum(label != -100 for row in batch for label in row["labels"])
        total = 0.0
        for start in range(0, len(batch), MICRO_BATCH):
            inputs = padded(batch[start : start + MICRO_BATCH])
            targets = inputs.pop("labels")[:, 1:].flatten()
            with torch.autocast("cuda", torch.bfloat16):
                logits = peft(**inputs).logits[:, :-1]
            loss = cross_entropy(logits.flatten(0, 1).float(), targets, ignore_index=-100, reduction="sum") / labels
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained(peft).values(), params.max_grad_norm)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(total)
    return losses


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def draw(rows: list[dict[str, Any]]) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    steps = range(1, len(rows) + 1)
    axes.plot(steps, [row["baseline"] for row in rows], color="0.75", linewidth=6, label="plain recipe")
    axes.plot(steps, [row["ours"] for row in rows], color="C0", linewidth=1.5, label="yoyak")
    axes.set(xlabel="step of 64 rows", ylabel="training loss", title=f"gemma-3-270m, NF4, on {rows[0]['device']}")
    axes.legend(frameon=False)
    figure.savefig("docs/loss_curve.png", dpi=120)


if __name__ == "__main__":
    main()
