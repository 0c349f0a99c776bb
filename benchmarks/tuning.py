"""Tuning beside TRL's own RLOO: summaries drawn and learned from, tokens a second, one after the other on one GPU.

    python benchmarks/tuning.py MODEL [--steps 4] [--per-pass 64]

In a project where MODEL is trained and in `run.tuned`: both sides begin with its adapters over the same bf16 weights,
take the same dialogues, draw as many summaries at the same temperature, and score them with the same ROUGE. TRL's has
no KL term, so that it needs no second model; `--per-pass` is how many of its sequences go through the model at once.
The first step of each side warms up and is not counted.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from yoyak.core import environment, gpu
from yoyak.core.records import Prompt, read_records
from yoyak.core.run import tuned
from yoyak.inference.loading import load_for_inference
from yoyak.metrics import rouge
from yoyak.tuning.params import TuningConfig, read_config
from yoyak.tuning.policy import Policy
from yoyak.tuning.trainer import trainer


class Clock(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--per-pass", type=int, default=64)
    asked = parser.parse_args()
    config = read_config(Path(f"data/resolved/{tuned(asked.model)}/tuning.yaml"))
    adapter = Path(f"models/{asked.model}")
    rows = (asked.steps + 1) * config.tuning.dialogues_a_step
    train = read_records(Path("data/prompts/train.jsonl"), Prompt)[:rows]
    print(f"{environment.describe()['device']}; {asked.steps} steps of {config.tuning.dialogues_a_step} dialogues")
    sides = {
        "yoyak": ours(config, adapter, train),
        "TRL": theirs(config, adapter, train, asked.per_pass),
    }
    for name, (tokens, seconds, peak) in sides.items():
        rate = sum(tokens) / sum(seconds)
        print(f"{name}: {fmean(seconds):.2f} s a step, {rate:,.0f} drawn tokens/s, {peak:.1f} GiB")
    ours_rate, their_rate = (sum(tokens) / sum(seconds) for tokens, seconds, _ in sides.values())
    print(f"yoyak / TRL: {ours_rate / their_rate:.2f}")


Side = tuple[list[int], list[float], float]
"""Tokens and seconds of each step that counts, and the peak of memory in GiB."""


def ours(config: TuningConfig, adapter: Path, train: list[Prompt]) -> Side:
    clock, drawn = Clock(), [0]
    with measured() as scratch:
        policy = Policy(load_for_inference(config.model, None), adapter)
        learner = trainer(config, policy, train, [], scratch, [clock])

        class Drawn(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                drawn.append(learner.drawn_tokens)

        learner.add_callback(Drawn())
        settle(learner)
        learner.train()
        peak = gpu.peak_memory_gib()
    return [after - before for before, after in itertools.pairwise(drawn)][1:], seconds_of(clock), peak


def theirs(config: TuningConfig, adapter: Path, train: list[Prompt], per_pass: int) -> Side:
    clock, drawn, params = Clock(), [], config.tuning
    with measured() as scratch:
        loaded = load_for_inference(config.model, None)
        model = PeftModel.from_pretrained(loaded.model, adapter, is_trainable=True)
        encode, tokenizer = loaded.prompt_tokenizer.encode_prompt, loaded.tokenizer
        prompts = [tokenizer.decode(encode(prompt).ids) for prompt in train]

        def reward(
            completions: list[str], reference: list[str], completion_ids: list[list[int]], **_: Any
        ) -> list[float]:
            drawn.append(sum(map(len, completion_ids)))
            return [score.mean for score in rouge.score(completions, [(each,) for each in reference])]

        together = params.dialogues_a_step * params.candidates
        arguments = RLOOConfig(
            output_dir=str(scratch),
            max_steps=len(train) // params.dialogues_a_step,
            per_device_train_batch_size=per_pass,
            gradient_accumulation_steps=together // per_pass,
            num_generations=params.candidates,
            max_completion_length=config.generation.max_new_tokens,
            temperature=params.temperature,
            top_k=0,
            beta=0.0,
            learning_rate=params.learning_rate,
            gradient_checkpointing=False,
            bf16=loaded.precision.dtype == "bf16",
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        )
        learner = RLOOTrainer(
            model=model,
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts, "reference": [prompt.summary for prompt in train]}),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        learner.remove_callback(PrinterCallback)
        learner.train()
        peak = gpu.peak_memory_gib()
    return drawn[1:], seconds_of(clock), peak


def settle(learner: Any) -> None:
    """No look at dev and no checkpoint: steps alone are timed."""
    learner.args.eval_strategy = learner.args.save_strategy = "no"
    learner.args.num_train_epochs, learner.args.load_best_model_at_end = 1, False
    learner.remove_callback(PrinterCallback)


def seconds_of(clock: Clock) -> list[float]:
    return [after - before for before, after in itertools.pairwise(clock.ends)]


@contextmanager
def measured() -> Iterator[Path]:
    if torch.cuda.is_available():
        gpu.release_memory()
        gpu.reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
