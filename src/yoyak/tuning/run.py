"""One tuning, from its config to the saved adapters and the record of what ran."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from yoyak.core import environment, folds, gpu, progress, repository
from yoyak.core.errors import UserError
from yoyak.core.files import files_in
from yoyak.core.limits import LimitsParams, check_disk
from yoyak.core.records import Prompt, read_records, write_json
from yoyak.core.resume import scratch_folder
from yoyak.core.run import tuned
from yoyak.inference.loading import check_base, load_for_inference
from yoyak.metrics import rouge
from yoyak.modeling import precision
from yoyak.modeling.attention import has_plain_attention
from yoyak.modeling.loading import check_finite
from yoyak.training.checkpoints import last_checkpoint
from yoyak.training.curves import Curves, epochs
from yoyak.training.resume import go_on
from yoyak.training.saving import KeepBudget, RoomToSave, SaveWithinEpochs, checkpoint_size, save_model
from yoyak.tuning.guards import StopAtNaN, doubts
from yoyak.tuning.params import TuningConfig, told_without_gpu
from yoyak.tuning.policy import Policy
from yoyak.tuning.progress import TuningProgress
from yoyak.tuning.trainer import RewardTrainer, trainer


@dataclass(frozen=True)
class Tuning:
    """A config, and what this machine allows."""

    model: str
    """Of the trained model, whose adapters are in `models/<model>`."""
    config: TuningConfig
    limits: LimitsParams

    @property
    def name(self) -> str:
        """Of the tuned model."""
        return tuned(self.model)

    @property
    def trained(self) -> Path:
        """Where the adapters are from which it begins."""
        return Path(f"models/{self.model}")

    @property
    def record(self) -> Path:
        """The file of its metrics."""
        return Path(f"metrics/train/{self.name}.json")


def tune(tuning: Tuning) -> None:
    """Tune trained adapters, save the best epoch's, and write what ran and how it went."""
    if tuning.limits.sharded:
        raise UserError(
            f"params.yaml: limits.sharded: {tuning.name} is tuned on one GPU, over the whole base; set it false"
        )
    data = [Path("data/prompts/train.jsonl"), Path("data/prompts/dev.jsonl")]
    train, dev = (read_records(path, Prompt) for path in data)
    gpu.use_one()
    gpu.limit(tuning.limits)
    files = [*data, *files_in(tuning.trained)]
    with (
        scratch_folder("checkpoints", tuning.name, tuning.config, files, tuning.record) as scratch,
        gpu.oom_in_one_line(tuning.name, "raise limits.gpu_gib", "take a model with fewer parameters"),
    ):
        result = _tune(tuning, folds.seen(train, tuning.config.fold), dev, scratch)
        write_json(tuning.record, {**result, "seed": tuning.config.seed, "commit": repository.commit()})


def _tune(tuning: Tuning, train: list[Prompt], dev: list[Prompt], scratch: Path) -> dict[str, Any]:
    name, config = tuning.name, tuning.config
    set_seed(config.seed)
    check_base(config.model, tuning.trained)
    with progress.waiting(f"{name}: loading {tuning.model}"):
        loaded = load_for_inference(config.model, None)
        if not has_plain_attention(loaded.model):
            raise UserError(
                f"{name}: {config.model.weights} has an attention of its own, which tuning cannot share among the "
                f"summaries of a dialogue; take {tuning.model} out of run.tuned"
            )
        policy = Policy(loaded, tuning.trained)
    # Of each checkpoint's writing: there is one bar.
    disable_progress_bar()
    shown, curves = TuningProgress(name, config.generation.max_new_tokens), Path(f"plots/training/{name}")
    with (
        Live(dir=str(curves), save_dvc_exp=False, dvcyaml=None, report=None, monitor_system=False) as live,
        shown.reporter,
    ):
        learner = trainer(config, policy, train, dev, scratch, [Curves(live=live)])
        checkpoint_gb = checkpoint_size(policy.model)
        check_disk(tuning.limits, 4 * checkpoint_gb, f"tuning {tuning.model}")
        for callback in (
            SaveWithinEpochs(tuning.limits),
            RoomToSave(tuning.limits, checkpoint_gb),
            KeepBudget(learner.budget),
            StopAtNaN(),
            shown,
        ):
            learner.add_callback(callback)
        # It prints a dictionary for each point of the curves.
        learner.remove_callback(PrinterCallback)
        checkpoint = last_checkpoint(scratch)
        # What dev was before is in the checkpoint's log.
        learner.args.eval_on_start = checkpoint is None
        params = config.tuning
        progress.say(
            f"{name}: {len(train)} dialogues, {params.candidates} summaries of each, {params.dialogues_a_step} "
            f"dialogues a step, on {environment.describe()['device']}"
        )
        if environment.device() == "cpu":
            progress.say(f"{name}: {told_without_gpu(tuning.model, params)}")
        outcome = go_on(learner, checkpoint)
    check_finite(policy.model, f"{name} at step {learner.state.global_step}")
    save_model(config.model, loaded, policy.model, Path(f"models/{name}"))
    epochs(learner.state.log_history).to_csv(curves / "epochs.csv", index=False)
    figures = _figures(learner)
    for doubt in figures["doubts"]:
        progress.say(f"{name}: {doubt}")
    return {
        **figures,
        **outcome,
        "ran": {**environment.describe(), **precision.describe([loaded.precision])},
    }


def _figures(learner: RewardTrainer) -> dict[str, Any]:
    state = learner.state
    looks = {entry["step"]: _of_dev(entry) for entry in state.log_history if "eval_reward" in entry}
    before, best = looks[0], looks[state.best_global_step]
    drawn = [entry for entry in state.log_history if "drawn_rouge" in entry]
    return {
        "dev": {"before": before, "best": {**best, "step": state.best_global_step}, **rouge.COMPETITION.describe()},
        "doubts": doubts(before, best, learner.config.tuning.max_length_ratio),
        "drawn": {key: {"first": drawn[0][key], "last": drawn[-1][key]} for key in drawn[0] if "drawn" in key},
        "epochs": state.epoch,
        "steps": state.global_step,
        "rows": len(learner.train_dialogues),
        "peak_memory_gib": round(gpu.peak_memory_gib(), 2),
        **learner.budget.describe(),
    }


def _of_dev(entry: dict[str, Any]) -> dict[str, float]:
    keys = ("rouge_mean", "reward", "length_ratio", "faulty", "loss")
    return {key: entry[f"eval_{key}"] for key in keys}
