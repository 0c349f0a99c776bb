"""One training, from its config to the saved model and the record of what ran."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvclive import Live
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, set_seed
from transformers.integrations import WandbCallback
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from yoyak.core import environment, folds, gpu, progress, repository
from yoyak.core.errors import UserError
from yoyak.core.limits import LimitsParams, check_disk, check_shortened
from yoyak.core.records import Prompt, read_records, write_json
from yoyak.core.resume import scratch_folder
from yoyak.core.workers import Work, Workers
from yoyak.metrics import rouge
from yoyak.modeling import precision
from yoyak.modeling.loading import Loaded, check_finite, vocabulary_of
from yoyak.training import qlora, seq2seq
from yoyak.training.base_model import load_for_training
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.curves import Curves, epochs, mean_loss
from yoyak.training.divergence import StopOnDivergence
from yoyak.training.memory import until_it_fits
from yoyak.training.params import TrackingParams, TrainingConfig, steps_of
from yoyak.training.progress import TrainingProgress
from yoyak.training.ranks import Ranks
from yoyak.training.resume import go_on
from yoyak.training.rows import Rows, causal_rows, seq2seq_rows
from yoyak.training.saving import KeepBudget, RoomToSave, SaveWithinEpochs, checkpoint_size, save_model

DATA = [Path("data/prompts/train.jsonl"), Path("data/prompts/dev.jsonl")]


@dataclass(frozen=True)
class Training:
    """A config, and what this machine and its user allow and ask for."""

    name: str
    config: TrainingConfig
    limits: LimitsParams
    tracking: TrackingParams

    @property
    def model(self) -> Path:
        """Where the model is saved."""
        return Path(f"models/{self.name}")

    @property
    def record(self) -> Path:
        """The file of its metrics."""
        return Path(f"metrics/train/{self.name}.json")

    @property
    def curves(self) -> Path:
        return Path(f"plots/training/{self.name}")


def train(training: Training) -> None:
    """Train on prompts, save the best epoch, and write what ran and how it went."""
    gpus = gpu.allowed(training.limits)
    _check_sharded(training, len(gpus))
    gpu.use_one()
    with scratch_folder("checkpoints", training.name, training.config, DATA, training.record) as scratch:
        if len(gpus) == 1:
            result = _on_one(training, scratch, Ranks())
        else:
            result = until_it_fits(scratch, lambda: _on_several(training, scratch, gpus))
        write_json(training.record, {**result, "seed": training.config.seed, "commit": repository.commit()})


def _check_sharded(training: Training, gpus: int) -> None:
    """Stop where weights are to be sharded and cannot be."""
    if not training.limits.sharded:
        return
    if training.config.model.method != "lora":
        raise UserError(
            f"params.yaml: limits.sharded: {training.name} has method: {training.config.model.method}, and only base "
            "weights under adapters (method: lora) are sharded; set limits.sharded: false for it"
        )
    if gpus == 1:
        raise UserError(
            f"params.yaml: limits.sharded: weights are sharded over two GPUs or more, and one is allowed here; raise "
            f"limits.gpus (it is {training.limits.gpus}) on a machine that has more, or set limits.sharded: false"
        )


def _on_several(training: Training, scratch: Path, gpus: list[str]) -> dict[str, Any]:
    """A process for each GPU, none of them this one, which can so end them all, whatever they wait for."""
    with TemporaryDirectory() as folder, Workers(training.name, gpus, partial(_begin, training, scratch)) as workers:
        sharded = training.limits.sharded
        workers.tell([Ranks(number, len(gpus), f"{folder}/meeting", sharded) for number in range(len(gpus))])
        (result,) = [result for result in workers.results() if result]
    ran = {**result["ran"], "processes": f"{len(gpus)} share each step"}
    return {**result, "peak_memory_gib": round(workers.peak_memory_gib, 2), "ran": ran}


def _begin(training: Training, scratch: Path) -> Work:
    return lambda ranks: iter([_on_one(training, scratch, ranks)])


def _on_one(training: Training, scratch: Path, ranks: Ranks) -> dict[str, Any]:
    """What one GPU does; what ran, from the first of them."""
    if not ranks.is_first:
        progress.leave_to_another_process()
        # Of what a library has to say, once is enough.
        set_verbosity_error()
    gpu.limit(training.limits)
    # Within a step it is met; while weights are loaded or summaries of dev written, it ends the run.
    with gpu.oom_in_one_line(training.name, "raise limits.gpu_gib", "take a model with fewer parameters"):
        return _train(training, scratch, ranks)


def _train(training: Training, scratch: Path, ranks: Ranks) -> dict[str, Any]:
    name, config = training.name, training.config
    set_seed(config.seed)
    all_of_train, of_dev = (read_records(path, Prompt) for path in DATA)
    seen = folds.seen(all_of_train, config.fold)
    if config.fold and not 0 < len(seen) < len(all_of_train):
        raise UserError(
            f"models.{name}.fold: it has {len(all_of_train) - len(seen)} of {len(all_of_train)} rows of train"
        )
    with ranks.together():
        loaded, trainer, train, outcome = _trained(training, scratch, ranks, seen, of_dev)
    if not ranks.is_first:
        return {}
    check_finite(trainer.model, f"{name} at step {trainer.state.global_step}")
    save_model(config.model, loaded, trainer.model, training.model)
    epochs(trainer.state.log_history).to_csv(training.curves / "epochs.csv", index=False)
    return {
        **_figures(trainer, train),
        **outcome,
        "ran": {**environment.describe(), **precision.describe([loaded.precision])},
    }


def _trained(
    training: Training, scratch: Path, ranks: Ranks, seen: list[Prompt], of_dev: list[Prompt]
) -> tuple[Loaded, Any, Rows, dict[str, Any]]:
    """The base, its trainer at the training's end, the rows of train, and what of it this run did."""
    name, config = training.name, training.config
    with progress.waiting(f"{name}: loading the base weights"):
        loaded = load_for_training(config.model, config.quantization, _texts(seen), ranks.sharded)
    method = qlora if config.model.method == "lora" else seq2seq
    train, dev = _rows(config, loaded, seen, of_dev)
    for split in (train, dev):
        check_shortened(split.shortened, len(split.rows), training.limits, name)
    # Of each checkpoint's writing: there is one bar.
    disable_progress_bar()
    trainer = method.trainer(config, loaded, train, dev, scratch, [])
    trainer.ranks = ranks
    # It prints a dictionary for each point of the curves.
    trainer.remove_callback(PrinterCallback)
    # Greedy summaries of dev write what they assume into it, and a run that goes on at its end makes none.
    own_generation = copy.deepcopy(trainer.model.generation_config)
    with ExitStack() as open_while_training:
        if ranks.is_first:
            for callback in _that_write_and_tell(training, trainer, train, dev, open_while_training):
                trainer.add_callback(callback)
            print(_announcement(name, config, loaded, train, trainer), flush=True)
        trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=config.training.early_stopping_patience))
        ranks.start_alike(trainer.model)
        outcome = go_on(trainer, last_checkpoint(scratch))
    trainer.model.generation_config = own_generation
    return loaded, trainer, train, outcome


def _that_write_and_tell(
    training: Training, trainer: Any, train: Rows, dev: Rows, open_while_training: ExitStack
) -> list[TrainerCallback]:
    live = Live(dir=str(training.curves), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False)
    shown = TrainingProgress(training.name, train.tokens, dev.tokens)
    open_while_training.enter_context(live)
    open_while_training.enter_context(shown.reporter)
    checkpoint_gb = checkpoint_size(trainer.model)
    # The best, the last, the next; and the model itself is no larger.
    check_disk(training.limits, 4 * checkpoint_gb, f"training {training.name}")
    if training.tracking.wandb:
        trainer.args.run_name = training.name
    return [
        Curves(live=live),
        SaveWithinEpochs(training.limits),
        RoomToSave(training.limits, checkpoint_gb),
        KeepBudget(trainer.budget),
        StopOnDivergence(trainer, train, vocabulary_of(trainer.model)),
        shown,
        *([WandbCallback()] if training.tracking.wandb else []),
    ]


def _rows(config: TrainingConfig, loaded: Loaded, train: list[Prompt], dev: list[Prompt]) -> tuple[Rows, Rows]:
    if config.model.method == "full":
        return seq2seq_rows(train, loaded.prompt_tokenizer), seq2seq_rows(dev, loaded.prompt_tokenizer)
    return causal_rows(train, loaded.prompt_tokenizer, config.training.loss_on), causal_rows(
        dev, loaded.prompt_tokenizer
    )


def _figures(trainer: Any, train: Rows) -> dict[str, Any]:
    state, best = trainer.state, trainer.args.metric_for_best_model
    return {
        "train_loss": mean_loss(state.log_history),
        "best": {
            best: state.best_metric,
            "step": state.best_global_step,
            # A score without its analyser is none.
            **(rouge.COMPETITION.describe() if "rouge" in best else {}),
        },
        "epochs": state.epoch,
        "steps": state.global_step,
        "rows": len(train.rows),
        "shortened_rows": train.shortened,
        "tokens_per_second": round(trainer.tokens / trainer.seconds, 1) if trainer.seconds else None,
        "peak_memory_gib": round(gpu.peak_memory_gib(), 2),
        **trainer.ran_with,
        **trainer.budget.describe(),
    }


def _announcement(name: str, config: TrainingConfig, loaded: Loaded, train: Rows, trainer: Any) -> str:
    ran_with = {**precision.describe([loaded.precision]), **trainer.ran_with}
    facts = "".join(f"; {key.replace('_', ' ')}: {value}" for key, value in ran_with.items())
    return (
        f"{name}: {len(train.rows)} rows, {train.tokens} tokens, {steps_of(config.training, len(train.rows))} steps of "
        f"{config.training.effective_batch_size} rows, on {environment.describe()['device']}{facts}"
    )


def _texts(prompts: list[Prompt]) -> list[str]:
    return [text for prompt in prompts for text in ("\n".join(prompt.turns), prompt.summary or "")]
