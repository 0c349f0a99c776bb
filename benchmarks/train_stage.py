"""The whole stage `train` of a 3B model, from its start to the saved adapter, beside Unsloth's whole process.

    UNSLOTH=/path/to/site-packages python benchmarks/train_stage.py FOLDER DATA WEIGHTS
    UNSLOTH=/path/to/site-packages python benchmarks/train_stage.py FOLDER DATA WEIGHTS --part ours|trials|unsloth

On a GPU. DATA has train.csv, dev.csv; WEIGHTS is a folder with a model of Llama-3.2-3B's shape, random weights will do,
and a tokenizer with its chat template. FOLDER gets a copy of the project with `--rows` rows of train and all of dev,
and what was measured, so that a run that was cut off goes on; `--part` measures one part and stops. Rows, seed,
optimiser, learning rates, looks at dev and checkpoints are the same on both sides, 23 GiB of memory for each, and
caches of compiled kernels are empty at the start. LoRA has no dropout, which Unsloth advises for speed.

Unsloth trains by TRL's trainer, as its users do. Trials of a few steps tell which of its settings ends first:
checkpointing, its own or none, and batches as it chooses them (without padding, on most cards) or padded. That one
makes the whole training. `--loop` is a plain loop over padded batches in place of the trainer. Its looks at dev average
batches, ours labels: dev losses differ by that, too. Where xformers and flash-attn are missing, it attends by PyTorch's
own kernels, as ours does: xformers' wheels on PyPI are built for CUDA 12, and load beside no PyTorch for CUDA 13.
"""

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import recording

from yoyak.core import repository
from yoyak.core.environment import describe
from yoyak.core.records import Prompt, read_records
from yoyak.modeling.loading import read_tokenizer
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.sweeps import copies, data_folder
from yoyak.training.arguments import trainer_arguments
from yoyak.training.params import EVALUATED_ROWS, TrainingConfig, read_config, steps_of
from yoyak.training.rows import Rows, causal_rows

MODEL = "llama32_3b"
GIB = 23.0
"""What a 24 GB card has."""
TRIAL_STEPS = 60
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OF_OURS = ("seconds", "tokens_per_second", "peak_memory_gib", "base", "attention", "compiled")
"""Of the stage's own metrics; its seconds are those of steps and looks at dev."""
PARTS = ("ours", "trials", "unsloth")

Measured = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Of Unsloth: what its user may choose."""

    checkpointing: str | bool
    padded: bool

    @property
    def name(self) -> str:
        checkpointing = "its checkpointing" if self.checkpointing else "no checkpointing"
        return f"{checkpointing}, {'padded' if self.padded else 'batches as it chooses'}"


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("folder", "data", "weights"):
        parser.add_argument(name, type=lambda given: Path(given).resolve())
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--checkpointing", choices=("unsloth", "none"), help="this one alone")
    asked = parser.parse_args()
    recording.require_clean_tree()
    if "UNSLOTH" not in os.environ:
        sys.exit("error: UNSLOTH is not set; it is a folder into which Unsloth was installed by `pip install --target`")
    project = asked.folder / f"project_{asked.rows}_{repository.short(repository.commit())}"
    make(project, asked)
    compared = Comparison(asked, project)
    if asked.part == "ours":
        compared.ours()
    if asked.part == "trials":
        compared.settings()
    if asked.part == "unsloth":
        compared.unsloth()
    if asked.part is None:
        record(compared)


def make(project: Path, asked: argparse.Namespace) -> None:
    """A copy of the project whose prompts are ready."""
    if (project / f"data/resolved/{MODEL}/training.yaml").exists():
        return
    data = asked.folder / f"data_{asked.rows}"
    train, dev = data_folder.read_train_and_dev(asked.data)
    data_folder.write(data, train.sample(n=min(asked.rows, len(train)), random_state=0).sort_index(), dev)
    changes = {"models": {MODEL: {"weights": str(asked.weights), "lora": {"dropout": 0}}}}
    overrides = [f"run.models=[{MODEL}]", "run.untuned=[]", f"limits.gpu_gib={GIB:g}"]
    copies.make(project, asked.folder / "cache", data, changes, overrides)
    run_stage(project, "stages/prepare_prompts.py", environment={})


def run_stage(project: Path, *arguments: str, environment: dict[str, str]) -> None:
    within = copies.with_its_code(project, {**os.environ, **copies.of_copy(project), **environment})
    done = subprocess.run([sys.executable, *arguments], cwd=project, env=within, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(arguments)}: exit code {done.returncode}")


class Comparison:
    """Both sides over the same rows; what was measured is kept in the folder."""

    def __init__(self, asked: argparse.Namespace, project: Path) -> None:
        self.asked, self.project = asked, project
        self.config = read_config(project / f"data/resolved/{MODEL}/training.yaml")
        self.train, self.dev = rows_of(self.config, project, asked.weights)
        self.steps = steps_of(self.config.training, len(self.train.rows))
        print(f"{len(self.train.rows)} rows, {self.train.tokens} tokens, {self.steps} steps of both sides", flush=True)

    def kept(self, name: str, measure: Callable[[], Measured]) -> Measured:
        """What was measured of that name by this commit, on this machine; else it is measured now."""
        key = repr((name, self.asked.rows, self.asked.loop, describe(), repository.commit()))
        path = self.asked.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if not path.exists():
            measured = measure()
            path.write_text(json.dumps(measured))
        found: Measured = json.loads(path.read_text())
        print(name, {key: shown(value) for key, value in found.items()}, flush=True)
        return found

    def ours(self) -> Measured:
        return self.kept("ours", self._ours)

    def _ours(self) -> Measured:
        for made in ("models", ".cache/checkpoints", "plots/training", "metrics/train"):
            shutil.rmtree(self.project / made, ignore_errors=True)
        with fresh_caches() as caches:
            started = time.perf_counter()
            run_stage(self.project, "stages/train.py", MODEL, environment=caches)
            seconds = time.perf_counter() - started
        figures = json.loads((self.project / f"metrics/train/{MODEL}.json").read_text())
        losses, rates = (self._curve(name) for name in ("loss", "tokens_per_second"))
        dev_losses = pd.read_csv(self.project / f"plots/training/{MODEL}/epochs.csv")["loss"]
        return {
            "whole": seconds,
            "losses": losses.tolist(),
            # Of steps after those in which kernels are compiled.
            "late_tokens_per_second": rates[len(rates) // 2 :].median(),
            "dev_losses": dev_losses.tolist(),
            **{key: figures[key] for key in OF_OURS},
        }

    def _curve(self, name: str) -> "pd.Series[float]":
        curves = self.project / f"plots/training/{MODEL}/plots/metrics"
        return pd.read_csv(curves / f"{name}.tsv", sep="\t")[name]

    def settings(self) -> list[Setting]:
        """Those that fit a few steps, first the one whose whole training would end first."""
        trials = {setting: self._trial(setting) for setting in self._settings()}
        ends = {
            setting: trial["load"] + trial["first_steps"] + trial["a_later_step"] * self.steps
            for setting, trial in trials.items()
            if not trial["out_of_memory"]
        }
        for setting, seconds in ends.items():
            print(f"Unsloth, {setting.name}: about {seconds:.0f} s to load and train", flush=True)
        return sorted(ends, key=lambda setting: ends[setting])

    def _settings(self) -> list[Setting]:
        named: dict[str, str | bool] = {"unsloth": "unsloth", "none": False}
        chosen = [named[self.asked.checkpointing]] if self.asked.checkpointing else list(named.values())
        return [Setting(each, padded) for each in chosen for padded in ((True,) if self.asked.loop else (False, True))]

    def _trial(self, setting: Setting) -> Measured:
        return self.kept(f"trial of {setting.name}", lambda: self._by_unsloth(setting, TRIAL_STEPS))

    def unsloth(self) -> tuple[Setting, Measured]:
        """The fastest setting whose whole training fits."""
        for setting in self.settings():
            whole = self.kept(f"Unsloth, {setting.name}", lambda setting=setting: self._by_unsloth(setting, 0))
            if whole["out_of_memory"]:
                continue
            if not all(map(math.isfinite, whole["losses"] + whole["dev_losses"])):
                sys.exit(f"error: Unsloth, {setting.name}: a loss is not a number; there is nothing to compare with")
            return setting, whole
        sys.exit("error: no setting of Unsloth fits")

    def _by_unsloth(self, setting: Setting, most_steps: int) -> Measured:
        with tempfile.TemporaryDirectory() as scratch, fresh_caches() as caches:
            job = Path(scratch) / "job.json"
            job.write_text(json.dumps(self._job(setting, most_steps, Path(scratch))))
            environment = {
                **os.environ,
                **caches,
                # Nothing of ours beside it, whose libraries are of other versions.
                "PYTHONPATH": str(Path(os.environ["UNSLOTH"]).resolve()),
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "UNSLOTH_DISABLE_STATISTICS": "1",
                "UNSLOTH_COMPILE_LOCATION": str(Path(scratch) / "unsloth_compiled"),
                **({"UNSLOTH_PADDING_CHOICE": "padded"} if setting.padded else {}),
            }
            started = time.perf_counter()
            script = str(Path(__file__).resolve().with_name("unsloth_process.py"))
            measured: Measured = recording.in_a_process(script, str(job), environment=environment, folder=Path(scratch))
            return {"whole": time.perf_counter() - started, **measured}

    def _job(self, setting: Setting, most_steps: int, scratch: Path) -> Measured:
        assert self.config.lora is not None
        arguments = trainer_arguments(self.config, "bf16", scratch / "checkpoints", len(self.train.rows))
        # How it feeds its GPU is its own matter.
        del arguments["dataloader_pin_memory"]
        if most_steps:
            arguments |= {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
        return {
            "weights": str(self.asked.weights),
            "adapter": str(scratch / "adapter"),
            "gib": GIB,
            "loop": self.asked.loop,
            "checkpointing": setting.checkpointing,
            "most_steps": most_steps,
            "started": time.time(),
            "max_length": max(2048, self.train.longest, self.dev.longest),
            "lora": {
                "r": self.config.lora.r,
                "lora_alpha": self.config.lora.alpha,
                "lora_dropout": self.config.lora.dropout,
                "target_modules": LINEAR,
            },
            "arguments": {
                **arguments,
                "metric_for_best_model": "eval_loss",
                "greater_is_better": False,
                "per_device_eval_batch_size": EVALUATED_ROWS["lora"],
                "optim": "adamw_torch_fused",
                # Unsloth makes two of it where nothing is said.
                "gradient_accumulation_steps": 1,
            },
            "train": self.train.rows,
            "dev": self.dev.rows,
        }


def rows_of(config: TrainingConfig, project: Path, weights: Path) -> tuple[Rows, Rows]:
    """Train and dev in the very tokens that the stage trains on."""
    spec = config.model
    prompt_tokenizer = PromptTokenizer(
        read_tokenizer(weights, weights), spec.prompt, spec.max_prompt_tokens, spec.persons
    )
    train, dev = (read_records(project / f"data/prompts/{split}.jsonl", Prompt) for split in ("train", "dev"))
    return causal_rows(train, prompt_tokenizer, config.training.loss_on), causal_rows(dev, prompt_tokenizer)


@contextmanager
def fresh_caches() -> Iterator[dict[str, str]]:
    """The environment in which no kernel has been compiled yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield {"TORCHINDUCTOR_CACHE_DIR": f"{folder}/inductor", "TRITON_CACHE_DIR": f"{folder}/triton"}


def shown(value: Any) -> Any:
    """A list by its ends."""
    if isinstance(value, list):
        return [round(value[0], 4), "…", round(value[-1], 4)] if value else value
    return round(value, 4) if isinstance(value, float) else value


def record(compared: Comparison) -> None:
    ours, (setting, unsloth) = compared.ours(), compared.unsloth()
    whose = f"Unsloth, {'a plain loop, ' * compared.asked.loop}{setting.name}"
    rows = f"{len(compared.train.rows)} rows, {compared.config.training.epochs:g} epochs, {GIB:g} GiB"
    asked = compared.asked
    options = ["--loop"] * asked.loop + [f"--checkpointing={asked.checkpointing}"] * bool(asked.checkpointing)
    command = " ".join(["python benchmarks/train_stage.py FOLDER DATA WEIGHTS", *options])

    def row(name: str, unit: str, figures: tuple[float, float]) -> dict[str, Any]:
        return recording.row(f"{name}, {rows}", unit, *figures, whose, ours["peak_memory_gib"], command)

    recording.record(
        "train_stage",
        [
            row("from start to saved adapter", "seconds", (ours["whole"], unsloth["whole"])),
            row("training loss at the end", "loss", (tail(ours["losses"]), tail(unsloth["losses"]))),
            row("dev loss of the last epoch", "loss", (ours["dev_losses"][-1], unsloth["dev_losses"][-1])),
        ],
    )


def tail(losses: list[float]) -> float:
    """The mean of the last tenth: a single batch says little."""
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


if __name__ == "__main__":
    main()
