"""How fast this machine gets a model's work done: its own matrix rate, and what measured runs made of theirs.

The work of a stage is counted in floating-point operations. Measured runs tell which share of the device's matrix rate
they turned into work; this device is asked for its rate, and expected to turn about the same share.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import torch

from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.params import check
from yoyak.inference.params import OneModelConfig
from yoyak.modeling import precision
from yoyak.modeling.spec import DType
from yoyak.sweeps.results import Result, read_results
from yoyak.sweeps.sizes import KNOWN, Size
from yoyak.training.params import TrainingConfig

RESULTS = Path("sweeps/results")
MEASURED = ("true_size", "final", "final_again")
"""Folders of `RESULTS`: runs of one model each."""
MATRIX_RATES = {"NVIDIA H200": 6.6e14}
"""Of the devices of these runs in bf16, in operations a second, by `matrix_rate`. On such a device itself it cancels
out."""
CHARACTERS_A_TOKEN = 1.415
"""Of dialogues and summaries together, the prompt's own words included: Qwen2.5's tokenizer on the competition's
2,500 rows. Llama-3's takes 2 % more tokens."""
ALIKE = 2
"""A measured model is like another of up to so many times its size; small ones wait for the host."""
ALONE = 1.5
"""How far off a single measured run may be, up or down: those of the 1.5 B model are spread over as much."""
TUNING = (1310e6, 1994 * 2 * (8 * 60 + 345), 361.0)
"""The tuning of docs/tuning.md on an NVIDIA H200: parameters of the layers; tokens of its dialogues' prompts,
references and eight summaries; seconds, from three profiled steps and a look at dev."""
PROBED_SECONDS = 1.0


class Span(NamedTuple):
    """From the best of measured runs to the worst."""

    low: float
    high: float

    def __add__(self, other: object) -> "Span":
        assert isinstance(other, Span)
        return Span(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> "Span":
        return Span(self.low * factor, self.high * factor)


NOTHING = Span(0, 0)


class Sample(NamedTuple):
    """A measured stage."""

    layers: float
    """Parameters of the model's layers."""
    kind: str
    """`train`, `tune`, `sample` (summaries that are drawn, or the likeliest) or `beam`."""
    share: float
    """Of the device's matrix rate that became work."""


class Rates(NamedTuple):
    """What this device is expected to get done."""

    samples: tuple[Sample, ...]
    matrix_rates: dict[DType, float]
    """Of this device, in operations a second."""
    rest: Span | None
    """Seconds of a run beside training and inference: preparing, loading, scoring, ensembling; None where no run of
    this project has been measured."""

    def seconds(self, kind: str, size: Size, dtype: DType, operations: float) -> Span | None:
        """That so many operations take; None where nothing of the kind has been measured."""
        shares = alike([sample for sample in self.samples if sample.kind == kind], size.layers)
        if not shares:
            return None
        sure = operations / self.matrix_rates[dtype]
        span = Span(sure / max(shares), sure / min(shares))
        return span if len(shares) > 1 else Span(span.low / ALONE, span.high * ALONE)


def alike(samples: list[Sample], layers: float) -> list[float]:
    """Shares of the models whose size is like that of a model with so many parameters; else of the nearest."""

    def distance(sample: Sample) -> float:
        return max(sample.layers / layers, layers / sample.layers)

    nearest = min(map(distance, samples), default=ALIKE)
    return [sample.share for sample in samples if distance(sample) <= max(ALIKE, nearest)]


def matrix_rate(dtype: DType) -> float:
    """Operations a second of this device at multiplying matrices in what `dtype` becomes on it: a second of them."""
    on, kind = device(), precision.choose(dtype).torch_dtype
    width = 8192 if on == "cuda" else 1024
    left, right = (torch.randn(width, width, device=on).to(kind) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait()
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < PROBED_SECONDS:
        for _ in range(4):
            left @ right
        _wait()
        done += 4
    return done * 2 * width**3 / passed


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rates(dtypes: Iterable[DType], gpu: str) -> dict[DType, float]:
    """`matrix_rate` of each, on the device that `gpu` as `CUDA_VISIBLE_DEVICES` leaves.

    In a process of its own: what a process has once used of a GPU's memory it keeps part of to its end.
    """
    names = sorted(dtypes)
    command = [sys.executable, "-m", "yoyak.sweeps.rates", *names]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason is given"])[-1]
        raise UserError(f"the device's rate cannot be measured: {reason}; see with `nvidia-smi` who else uses the GPU")
    return dict(zip(names, map(float, done.stdout.split()), strict=True))


def measured(results: Path = RESULTS) -> tuple[tuple[Sample, ...], Span | None]:
    """Samples of the committed runs of models whose size is known, and seconds of the rest of a run."""
    found = [result for name in MEASURED for result in read_results(results / name)]
    single = [result for result in found if len(result.models) == 1 and not result.averaged]
    samples = [sample for result in single for sample in _samples(result)]
    layers, tokens, seconds = TUNING
    rate = MATRIX_RATES["NVIDIA H200"]
    samples.append(Sample(layers, "tune", tuning_operations(layers, tokens) / seconds / rate))
    rest = [_rest(result) for result in single if not result.figures["run"]["untuned"]]
    return tuple(samples), Span(min(rest), max(rest)) if rest else None


def _samples(result: Result) -> Iterable[Sample]:
    (name,) = result.models
    resolved = result.figures["models"][name]
    training = check(TrainingConfig, resolved["training"], name)
    generation = check(OneModelConfig, resolved["generation"], name)
    train, infer = (result.figures[key][name] for key in ("train", "infer"))
    rate = MATRIX_RATES.get(train["ran"]["device"])
    size = _size(training.model.weights)
    if rate is None or size is None:
        return
    if train["tokens_per_second"]:
        yield Sample(size.layers, "train", train["tokens_per_second"] * training_operations(training, size) / rate)
    rows = infer["dev"]["rows"] + infer["dev"]["generated_again"]
    characters = result.figures["data"]["dev"]
    # As many as may be had, where a summary must have as many.
    summary = characters["summary_characters"]["median"] / CHARACTERS_A_TOKEN
    params = generation.generation
    tokens = max(summary, params.min_new_tokens)
    prompt = characters["dialogue_characters"]["median"] / CHARACTERS_A_TOKEN
    work = rows * inference_operations(generation, size, prompt, tokens)
    yield Sample(size.layers, searched(generation), work / infer["dev"]["seconds"] / rate)


def _size(source: str) -> Size | None:
    """Of known weights; models with random weights bear the name of their shape's folder."""
    return KNOWN[source].size if source in KNOWN else SHAPES.get(Path(source).name)


SHAPES = {
    "kobart": KNOWN["gogamza/kobart-base-v2"].size,
    "kot5": KNOWN["paust/pko-t5-base"].size,
    "llama32_3b": KNOWN["beomi/Llama-3.2-Korean-3B-Instruct"].size,
    "llama32_3b_fp16": KNOWN["beomi/Llama-3.2-Korean-3B-Instruct"].size,
    "qwen25_3b": KNOWN["Qwen/Qwen2.5-3B-Instruct"].size,
    "qwen3_4b": KNOWN["Qwen/Qwen3-4B-Instruct-2507"].size,
    "qwen25_7b": KNOWN["Qwen/Qwen2.5-7B-Instruct"].size,
    "llama3_8b": KNOWN["beomi/Llama-3-Open-Ko-8B-Instruct-preview"].size,
}
"""Of the models that `true_size` writes."""


def _rest(result: Result) -> float:
    train, infer = (result.figures[key][name] for name in result.models for key in ("train", "infer"))
    spent: float = train["seconds"] + sum(infer[split]["seconds"] for split in ("dev", "test"))
    return 60 * float(result.figures["minutes"]) - spent


def searched(config: OneModelConfig) -> str:
    return "beam" if config.generation.search in ("beam", "diverse_beam") else "sample"


def training_operations(config: TrainingConfig, size: Size) -> float:
    """Of a token that is trained on: 2 forward and 2 backward for each parameter, and 2 more for its own gradient,
    which a frozen one under adapters has not."""
    return (4 if config.model.method == "lora" else 6) * size.layers


def tuning_operations(layers: float, tokens: float) -> float:
    """Of a tuning in which so many tokens are read, drawn and learned from: 2 to draw, 4 to learn."""
    return 6 * layers * tokens


def inference_operations(config: OneModelConfig, size: Size, prompt: float, summary: float) -> float:
    """Of a dialogue with so many tokens, and all candidates, or beams, of so many tokens each."""
    params = config.generation
    sequences = max(params.candidates, params.num_beams)
    return 2 * size.layers * prompt + 2 * size.parameters * summary * sequences


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        print(matrix_rate(cast(DType, asked)))
