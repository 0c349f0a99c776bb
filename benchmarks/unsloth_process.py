"""One QLoRA training by Unsloth, as `train_stage.py` starts it: a process of its own, which needs no yoyak.

    python benchmarks/unsloth_process.py JOB

JOB is a JSON file with ready-tokenised rows, the folder of the weights, the arguments of the trainer, and the time when
it was written. The last line printed is JSON: seconds of each part, losses, and the peak of memory; or that memory ran
out.
"""

import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

# Unsloth patches the others, and must come before them.
from unsloth import FastLanguageModel  # isort: skip

import torch
from datasets import Dataset
from transformers import TrainerCallback, get_scheduler
from trl import SFTConfig, SFTTrainer

IMPORTED = time.time()
WARM = 20
"""Steps in which kernels are compiled."""
IGNORED = -100

Row = dict[str, list[int]]


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, job["gib"] * 2**30 / total))
    try:
        measured = {"out_of_memory": False, **train(job)}
    except torch.OutOfMemoryError as error:
        print(error, file=sys.stderr)
        measured = {"out_of_memory": True}
    print(json.dumps(measured))


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Load, train, save; what each took."""
    model, tokenizer = adapted(job)
    loaded, clock = now(), Clock()
    log, extra = (by_loop if job["loop"] else by_trainer)(job, model, tokenizer, clock)
    trained = now()
    if not job["most_steps"]:
        # Its best epoch, where the trainer has kept one, as our stage saves it.
        model.save_pretrained(job["adapter"])
        tokenizer.save_pretrained(job["adapter"])
    saved = now()
    warm = clock.ends[min(WARM, len(clock.ends) - 1)]
    return {
        "import": IMPORTED - job["started"],
        "load": loaded - IMPORTED,
        "train_and_evaluate": trained - loaded,
        "first_steps": warm - loaded,
        "a_later_step": clock.later_step(),
        "save": saved - trained,
        "losses": [entry["loss"] for entry in log if "loss" in entry],
        "dev_losses": [entry["eval_loss"] for entry in log if "eval_loss" in entry],
        "evaluation": sum(entry.get("eval_runtime", 0) for entry in log),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        **extra,
    }


def now() -> float:
    torch.cuda.synchronize()
    return time.time()


class Clock(TrainerCallback):
    """When each optimiser step ended, as the host sees it: it waits for the GPU at the losses that are logged."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.time())

    def later_step(self) -> float:
        """Seconds of a step, over those after the first."""
        later = self.ends[WARM:]
        return (later[-1] - later[0]) / (len(later) - 1) if len(later) > 1 else math.nan


def adapted(job: dict[str, Any]) -> tuple[Any, Any]:
    model, tokenizer = FastLanguageModel.from_pretrained(
        job["weights"],
        max_seq_length=job["max_length"],
        load_in_4bit=True,
        dtype=torch.bfloat16,
        use_gradient_checkpointing=job["checkpointing"],
        local_files_only=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        **job["lora"],
        bias="none",
        use_gradient_checkpointing=job["checkpointing"],
        random_state=job["arguments"]["seed"],
    )
    return model, tokenizer


def by_trainer(job: dict[str, Any], model: Any, tokenizer: Any, clock: Clock) -> tuple[list[dict[str, Any]], Any]:
    """TRL's trainer as Unsloth patches it. It decides by itself whether to pad, unless UNSLOTH_PADDING_CHOICE does."""
    most = {"max_steps": job["most_steps"]} if job["most_steps"] else {}
    arguments = SFTConfig(**job["arguments"], **most)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        # With labels among its columns, nothing is tokenised again, and the labels are taken as they are.
        train_dataset=Dataset.from_list(job["train"]),
        eval_dataset=Dataset.from_list(job["dev"]),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    batch = next(iter(trainer.get_train_dataloader()))
    shape = {key: list(value.shape) for key, value in batch.items() if hasattr(value, "shape")}
    print("a batch:", shape, "labels:", int((batch["labels"] != IGNORED).sum()), file=sys.stderr)
    trainer.train()
    return trainer.state.log_history, {"padding_free": bool(trainer.args.padding_free)}


def by_loop(job: dict[str, Any], model: Any, tokenizer: Any, clock: Clock) -> tuple[list[dict[str, Any]], Any]:
    """The same as plain as can be: padded batches, a step each; a look at dev and a checkpoint an epoch."""
    known = job["arguments"]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=known["learning_rate"], weight_decay=known["weight_decay"], fused=True)
    size, epochs = known["per_device_train_batch_size"], int(known["num_train_epochs"])
    in_epoch = math.ceil(len(job["train"]) / size)
    schedule = get_scheduler(known["lr_scheduler_type"], optimiser, known["warmup_steps"], in_epoch * epochs)
    draw, log, steps = random.Random(known["seed"]), [], 0
    model.train()
    for epoch in range(epochs):
        rows = draw.sample(job["train"], len(job["train"]))
        for start in range(0, len(rows), size):
            loss = loss_of(model, rows[start : start + size])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, known["max_grad_norm"])
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            steps += 1
            if steps % known["logging_steps"] == 0 or steps == 1:
                log.append({"loss": loss.item()})
            clock.on_step_end()
            if steps == job["most_steps"]:
                return log, {"padding_free": False}
        log.append(looked_at_dev(model, job["dev"], known["per_device_eval_batch_size"]))
        checkpoint = Path(known["output_dir"]) / f"checkpoint-{epoch}"
        model.save_pretrained(checkpoint)
        torch.save(optimiser.state_dict(), checkpoint / "optimizer.pt")
    return log, {"padding_free": False}


def looked_at_dev(model: Any, rows: list[Row], size: int) -> dict[str, float]:
    """The mean of the batches' losses, as transformers' trainer has it."""
    started = now()
    model.eval()
    with torch.no_grad():
        losses = [loss_of(model, rows[start : start + size]).item() for start in range(0, len(rows), size)]
    model.train()
    return {"eval_loss": sum(losses) / len(losses), "eval_runtime": now() - started}


def loss_of(model: Any, rows: list[Row]) -> Any:
    with torch.autocast("cuda", torch.bfloat16):
        return model(**padded(rows)).loss


def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
    """One batch as wide as its longest row."""
    width = max(len(row["input_ids"]) for row in rows)

    def tensor(lists: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([each + [fill] * (width - len(each)) for each in lists], device="cuda")

    return {
        "input_ids": tensor([row["input_ids"] for row in rows], 0),
        "labels": tensor([row["labels"] for row in rows], IGNORED),
        "attention_mask": tensor([[1] * len(row["input_ids"]) for row in rows], 0),
    }


if __name__ == "__main__":
    main()
