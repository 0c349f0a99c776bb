"""One training, from its job to the saved model and the record of what ran."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from dvclive import Live
from transformers import EarlyStoppingCallback, TrainerCallback, set_seed
from transformers.integrations import DVCLiveCallback, WandbCallback

from yoyak import machine, rouge
from yoyak.errors import UserError
from yoyak.machine import LimitsParams
from yoyak.models import Loaded, load_for_training
from yoyak.records import Prompt, read_records
from yoyak.training import checkpoints, qlora, seq2seq
from yoyak.training.rows import causal_rows, seq2seq_rows
from yoyak.training.settings import TrackingParams, TrainingJob, steps_of


@dataclass(frozen=True)
class Outputs:
    """Where a training writes."""

    model: Path
    curves: Path


def train(
    name: str,
    job: TrainingJob,
    data: tuple[Path, Path],
    limits: LimitsParams,
    tracking: TrackingParams,
    outputs: Outputs,
) -> dict[str, Any]:
    """Train on the prompts in `data` (train, dev), save the best epoch, and return what ran and how it went."""
    machine.check_disk(limits, 3 * _size_gb(job), f"training {name}")
    prompts = tuple(read_records(path, Prompt) for path in data)
    machine.use_one_gpu()
    machine.limit_gpu(limits)
    with checkpoints.scratch_folder(name, job, list(data)) as scratch:
        result = _train(name, job, prompts, limits, tracking, outputs, scratch)
    return {
        **result,
        "seed": job.seed,
        "commit": machine.commit(),
        "ran": machine.describe(),
    }


def _train(
    name: str,
    job: TrainingJob,
    prompts: tuple[list[Prompt], ...],
    limits: LimitsParams,
    tracking: TrackingParams,
    outputs: Outputs,
    scratch: Path,
) -> dict[str, Any]:
    set_seed(job.seed)
    loaded = load_for_training(job.model, job.quantization, _texts(prompts[0]))
    room, to_rows = (qlora, causal_rows) if job.model.method == "lora" else (seq2seq, seq2seq_rows)
    train, dev = (to_rows(split, loaded.encoder) for split in prompts)
    for split in (train, dev):
        machine.check_shortened(split.shortened, len(split.rows), limits, name)
    with Live(dir=str(outputs.curves), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False) as live:
        trainer = room.trainer(job, loaded, train, dev, scratch, _callbacks(job, live, limits))
        steps = steps_of(job.training, len(train.rows))
        print(
            f"{name}: {len(train.rows)} rows, {train.tokens} tokens, {steps} steps of "
            f"{job.training.effective_batch_size} rows, on {machine.describe()['device']}; {_listed(trainer.ran_with)}",
            flush=True,
        )
        if tracking.wandb:
            trainer.args.run_name = name
            trainer.add_callback(WandbCallback)
        checkpoint = checkpoints.last_checkpoint(scratch)
        started = time.perf_counter()
        outcome = trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - started
        resumed_at = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    _save(job, loaded, trainer.model, outputs.model)
    epochs(trainer.state.log_history).to_csv(outputs.curves / "epochs.csv", index=False)
    return {
        "train_loss": outcome.training_loss,
        "best": {
            trainer.args.metric_for_best_model: trainer.state.best_metric,
            "step": trainer.state.best_global_step,
            # A score without its analyser is none.
            **(rouge.COMPETITION.describe() if "rouge" in trainer.args.metric_for_best_model else {}),
        },
        "epochs": trainer.state.epoch,
        "steps": trainer.state.global_step,
        "resumed_at_step": resumed_at,
        "rows": len(train.rows),
        "shortened_rows": train.shortened,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(
            train.tokens * (trainer.state.epoch or 0) * (1 - resumed_at / trainer.state.global_step) / seconds, 1
        ),
        "peak_memory_gib": round(machine.peak_memory_gib(), 2),
        **trainer.ran_with,
        **trainer.budget.describe(),
    }


def _listed(facts: dict[str, str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in facts.items())


def _callbacks(job: TrainingJob, live: Live, limits: LimitsParams) -> list[TrainerCallback]:
    return [
        Curves(live=live),
        RoomToSave(limits, _size_gb(job)),
        EarlyStoppingCallback(early_stopping_patience=job.training.early_stopping_patience),
        StopOnNaN(),
    ]


class Curves(DVCLiveCallback):
    """Loss, learning rate and dev figures for `dvc plots`, as they come.

    Not the trainer's arguments, which name local paths, and not how long each evaluation took.
    """

    def setup(self, args: Any, state: Any, model: Any) -> None:
        self._initialized = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        told = {
            key: value
            for key, value in (logs or {}).items()
            if not key.endswith(("runtime", "samples_per_second", "steps_per_second", "flos"))
        }
        self.live.step = state.global_step
        super().on_log(args, state, control, logs=told, **kwargs)


def epochs(log: list[dict[str, Any]]) -> pd.DataFrame:
    """A line an epoch: `epoch`, `step`, `loss` and what else was measured on dev; those before a restart, too."""
    kept = ("epoch", "step", "eval_loss", "eval_rouge_mean")
    lines = [{key: entry[key] for key in kept if key in entry} for entry in log if "eval_loss" in entry]
    return pd.DataFrame(lines).rename(columns=lambda key: key.removeprefix("eval_"))


class RoomToSave(TrainerCallback):
    """The disk is looked at before each checkpoint, too: others write to it while a model trains."""

    def __init__(self, limits: LimitsParams, checkpoint_gb: float) -> None:
        self.limits, self.checkpoint_gb = limits, checkpoint_gb

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        machine.check_disk(self.limits, self.checkpoint_gb, "the next checkpoint")


class StopOnNaN(TrainerCallback):
    """A loss that is no number ends the run when it is next looked at, and before a checkpoint or a model is saved."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        for figure in ("loss", "eval_loss", "train_loss"):
            if math.isfinite(float((logs or {}).get(figure, 0.0))):
                continue
            raise UserError(
                f"{figure} is no number at step {state.global_step}; lower training.learning_rate, or train in "
                "bf16 or fp32 instead of fp16"
            )


def _save(job: TrainingJob, loaded: Loaded, model: Any, folder: Path) -> None:
    if job.model.method == "lora":
        # The base is named as the user named it: this machine's cache path would change the adapter's hash.
        config = model.peft_config["default"]
        config.base_model_name_or_path = job.model.weights
        # A set would be written in another order by each run, and change the hash, too.
        if not isinstance(config.target_modules, str):
            config.target_modules = sorted(config.target_modules)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    loaded.tokenizer.save_pretrained(folder)


def _texts(prompts: list[Prompt]) -> list[str]:
    return [text for prompt in prompts for text in ("\n".join(prompt.turns), prompt.summary or "")]


def _size_gb(job: TrainingJob) -> float:
    """A generous guess of one saved model with its optimiser state, in GB: adapters are small, whole models are not."""
    return 0.5 if job.model.method == "lora" else 3.0
