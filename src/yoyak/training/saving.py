"""When a checkpoint is written, what is kept with it, and how a trained model is saved."""

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from yoyak.core import progress
from yoyak.core.limits import LimitsParams, check_disk
from yoyak.core.records import write_json
from yoyak.modeling import weights
from yoyak.modeling.loading import Loaded
from yoyak.modeling.spec import ModelSpec
from yoyak.training.memory import TokenBudget

BUDGET = "budget.json"
"""How a step was divided, beside the trainer's own files of a checkpoint."""


class SaveWithinEpochs(TrainerCallback):
    """A checkpoint each so many minutes, beside those of the epochs' ends.

    Only at a step that is logged: what is summed up since the last one would be lost, and the curve would differ.
    """

    def __init__(self, limits: LimitsParams) -> None:
        self.seconds = 60 * limits.checkpoint_minutes
        self.saved = progress.clock()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        logged = state.global_step % args.logging_steps == 0
        if logged and progress.clock() - self.saved >= self.seconds:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.saved = progress.clock()


class RoomToSave(TrainerCallback):
    """The disk is looked at before each checkpoint, too: others write to it while a model trains.

    It comes behind `SaveWithinEpochs`, whose decision it looks at.
    """

    def __init__(self, limits: LimitsParams, checkpoint_gb: float) -> None:
        self.limits, self.checkpoint_gb = limits, checkpoint_gb

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save:
            check_disk(self.limits, self.checkpoint_gb, "the next checkpoint")

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint follows at the end of an epoch."""
        check_disk(self.limits, self.checkpoint_gb, "the next checkpoint")


class KeepBudget(TrainerCallback):
    """How a step was divided is kept with each checkpoint."""

    def __init__(self, budget: TokenBudget) -> None:
        self.budget = budget

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write_json(Path(args.output_dir, f"checkpoint-{state.global_step}", BUDGET), self.budget.kept())


def checkpoint_size(model: Any) -> float:
    """Of one in GB: what is trained, in fp32, with AdamW's two moments."""
    return float(3 * 4 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad) / 1e9)


def save_model(base: ModelSpec, loaded: Loaded, model: Any, folder: Path) -> None:
    """Write weights or adapters, with the tokenizer; adapters name their base, and its pin, for others."""
    options = {}
    if base.method == "lora":
        # No vocabulary grows here; to see that, PEFT would ask the hub for the base's configuration.
        options = {"save_embedding_layers": False}
        adapter_config = model.peft_config["default"]
        adapter_config.base_model_name_or_path = weights.name_for_others(base.weights, base.pin)
        adapter_config.revision = base.pin
        # A set would be written in another order by each run, and change the hash, too.
        if not isinstance(adapter_config.target_modules, str):
            adapter_config.target_modules = sorted(adapter_config.target_modules)
    model.save_pretrained(folder, **options)
    (folder / "README.md").unlink(missing_ok=True)
    loaded.tokenizer.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        # safetensors 0.8 writes what its owner alone can read.
        shutil.copymode(folder / "tokenizer_config.json", path)
