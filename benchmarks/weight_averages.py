"""Averages of weights, to be measured: of the last steps of one training, and of several trained adapters.

    python benchmarks/weight_averages.py train MODEL [--last 0.33]
    python benchmarks/weight_averages.py tune MODEL [--last 0.33]
    python benchmarks/weight_averages.py mix NAME FOLDER FOLDER...

In a project whose prompts and parameters are there. `train` and `tune` do what the stages do, and save beside it
`models/MODEL_average` and `models/MODEL_tuned_average`: the mean of each weight of the adapters after each step of the
last part. A run that goes on after a kill averages what is left. `mix` writes `models/NAME`, whose adapters add to the
base weights exactly the mean of what those in the folders add.
"""

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from yoyak.core.limits import LimitsParams
from yoyak.core.params import read_section
from yoyak.core.run import tuned
from yoyak.training import params as training_params
from yoyak.training import qlora
from yoyak.training import run as training_run
from yoyak.training.params import TrackingParams
from yoyak.training.saving import save_model
from yoyak.tuning import params as tuning_params
from yoyak.tuning import run as tuning_run

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class AverageOfSteps(TrainerCallback):
    """The mean of each trained weight after each step of the last part of a training."""

    def __init__(self, last: float, save: Callable[[Any], None]) -> None:
        """`last`: which part, in (0, 1]. At the end `save` is given the model with these means in it."""
        self.last, self.save = last, save
        self.count = 0
        self.means: list[torch.Tensor] = []

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step <= math.floor((1 - self.last) * state.max_steps):
            return
        weights = trained_weights(model)
        self.count += 1
        if not self.means:
            self.means = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        for mean, weight in zip(self.means, weights, strict=True):
            mean += (weight.float() - mean) / self.count

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        with self.put_into(model):
            self.save(model)

    @contextmanager
    def put_into(self, model: Any) -> Iterator[None]:
        """For a while."""
        weights = trained_weights(model)
        own = [weight.clone() for weight in weights]
        _set(weights, self.means)
        try:
            yield
        finally:
            _set(weights, own)


def trained_weights(model: Any) -> list[torch.Tensor]:
    return [weight.data for weight in model.parameters() if weight.requires_grad]


def _set(weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


def average_adapters(folders: list[Path], out: Path) -> None:
    """Write adapters that add to the weights the mean of what those in `folders` add: their ranks one beside the other.

    The mean of A and of B, which PEFT's `linear` takes, is another thing.
    """
    configs = [json.loads((folder / CONFIG).read_text()) for folder in folders]
    _check_like_each_other(folders, configs)
    factors = [load_file(folder / WEIGHTS) for folder in folders]
    if any(each.keys() != factors[0].keys() for each in factors):
        raise SystemExit("error: these adapters are not on the same layers")
    scales = [_scale(config) / len(folders) for config in configs]
    joined = {}
    for key in factors[0]:
        parts = [each[key].float() for each in factors]
        if ".lora_A." in key:
            joined[key] = torch.cat(parts, 0)
        elif ".lora_B." in key:
            joined[key] = torch.cat([part * scale for part, scale in zip(parts, scales, strict=True)], 1)
        else:
            raise SystemExit(f"error: {key} is no factor of an adapter")
    rank = sum(config["r"] for config in configs)
    shutil.copytree(folders[0], out, dirs_exist_ok=True)
    save_file(joined, out / WEIGHTS, metadata={"format": "pt"})
    config = configs[0] | {"r": rank, "lora_alpha": float(rank), "use_rslora": False}
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _check_like_each_other(folders: list[Path], configs: list[dict[str, Any]]) -> None:
    for folder, config in zip(folders, configs, strict=True):
        for key in ("base_model_name_or_path", "revision"):
            if config[key] != configs[0][key]:
                raise SystemExit(f"error: {folder}: other base weights ({key}) than those of {folders[0]}")
        odd = [key for key in ("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save") if config[key]]
        if odd or config["bias"] != "none":
            raise SystemExit(f"error: {folder}: adapters with {odd or 'biases'} are not averaged here")


def _scale(config: dict[str, Any]) -> float:
    """Of B times A."""
    rank = math.sqrt(config["r"]) if config["use_rslora"] else config["r"]
    return float(config["lora_alpha"] / rank)


def with_average(make: Callable[..., Any], last: float, folder: Path) -> Callable[..., Any]:
    """`qlora.trainer` or the tuning's, whose trainer saves the average, too."""

    def made(config: Any, model: Any, *rest: Any) -> Any:
        loaded = getattr(model, "loaded", model)
        learner = make(config, model, *rest)
        learner.add_callback(AverageOfSteps(last, lambda averaged: save_model(config.model, loaded, averaged, folder)))
        return learner

    return made


def train(name: str, last: float) -> None:
    qlora.trainer = with_average(qlora.trainer, last, Path(f"models/{name}_average"))
    config = training_params.read_config(Path(f"data/resolved/{name}/training.yaml"))
    limits, tracking = read_section(LimitsParams, "limits"), read_section(TrackingParams, "tracking")
    training_run.train(training_run.Training(name, config, limits, tracking))


def tune(name: str, last: float) -> None:
    tuning_run.trainer = with_average(tuning_run.trainer, last, Path(f"models/{tuned(name)}_average"))
    config = tuning_params.read_config(Path(f"data/resolved/{tuned(name)}/tuning.yaml"))
    tuning_run.tune(tuning_run.Tuning(name, config, read_section(LimitsParams, "limits")))


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("train", "tune"):
        one = commands.add_parser(command)
        one.add_argument("model")
        one.add_argument("--last", type=float, default=1 / 3)
    mix = commands.add_parser("mix")
    mix.add_argument("name")
    mix.add_argument("folders", type=Path, nargs="+")
    asked = parser.parse_args()
    if asked.command == "mix":
        average_adapters(asked.folders, Path("models", asked.name))
    else:
        {"train": train, "tune": tune}[asked.command](asked.model, asked.last)


if __name__ == "__main__":
    main()
