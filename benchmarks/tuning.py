"""Tuning beside TRL's own RLOO: summaries drawn and learned from, tokens a second, one after the other on one GPU.

    python benchmarks/tuning.py MODEL [--dialogues 16] [--candidates 8] [--steps 2] [--per-pass 16]
    python benchmarks/tuning.py MODEL --profile [--steps 4] [--gib 23] [--compile]

In a project where MODEL is trained and in `run.tuned`: both sides begin with its adapters over the same bf16 weights,
take the same dialogues, draw as many summaries at the same temperature, and score them with the same ROUGE. Each runs
in a process of its own. TRL's has no KL term, so that it needs no second model, and ours no loss on references; TRL
draws all summaries of a step together, by transformers' `generate` as is its default, and ours does as the stage does.
`--per-pass` is how many of TRL's sequences go through the model at once to learn. The first step of each side warms up
and is not counted.

`--profile` tells where the time of the stage's own steps goes, with the dialogues and candidates of the project unless
others are given. `--gib` is the GPU's memory that it may take; `--compile` compiles the layers, as training does.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import Any

import recording
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PrinterCallback, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from trl import RLOOConfig, RLOOTrainer

from yoyak.core import environment, gpu
from yoyak.core.records import Prompt, read_records
from yoyak.core.run import tuned
from yoyak.inference.loading import load_for_inference
from yoyak.metrics import rouge
from yoyak.tuning import trainer as tuning_trainer
from yoyak.tuning.params import TuningConfig, read_config
from yoyak.tuning.policy import Policy
from yoyak.tuning.trainer import RewardTrainer, trainer

ROWS, EPOCHS = 2500, 3
"""Of the whole stage that a profile is extended to."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--dialogues", type=int)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--per-pass", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--gib", type=float)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--side", choices=SIDES)
    asked = parser.parse_args()
    if asked.gib:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, asked.gib * gpu.GIB / total))
    if asked.profile:
        profile(asked)
    elif asked.side:
        print(json.dumps(SIDES[asked.side](asked)))
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    asked.dialogues, asked.candidates = asked.dialogues or 16, asked.candidates or 8
    given = ("dialogues", "candidates", "steps", "per_pass", "max_new_tokens", "gib")
    options = [f"--{key.replace('_', '-')}={vars(asked)[key]}" for key in given if vars(asked)[key]]
    print(environment.describe()["device"], *options)
    rates = []
    for side in SIDES:
        found = recording.in_a_process(__file__, asked.model, f"--side={side}", *options)
        seconds, tokens = found["seconds"], found["tokens"]
        rates.append(sum(tokens) / sum(seconds))
        print(
            f"{side}: {fmean(seconds):.2f} s a step (of {len(seconds)}), {fmean(tokens):,.0f} tokens drawn and learned "
            f"from in each, {rates[-1]:,.0f} tokens/s, {found['peak_gib']:.1f} GiB at most",
            flush=True,
        )
    print(f"yoyak / TRL: {rates[0] / rates[1]:.2f}")


def config_of(asked: argparse.Namespace, **tuning: Any) -> TuningConfig:
    config = read_config(Path(f"data/resolved/{tuned(asked.model)}/tuning.yaml"))
    given = {"dialogues_a_step": asked.dialogues, "candidates": asked.candidates}
    update = {key: value for key, value in given.items() if value} | tuning
    limit = asked.max_new_tokens or config.generation.max_new_tokens
    return config.model_copy(
        update={
            "tuning": config.tuning.model_copy(update=update),
            "generation": config.generation.model_copy(update={"max_new_tokens": limit}),
        }
    )


def dialogues_of(asked: argparse.Namespace, config: TuningConfig, steps: int) -> list[Prompt]:
    train = read_records(Path("data/prompts/train.jsonl"), Prompt)
    return train[: steps * config.tuning.dialogues_a_step]


class Clock(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(now())

    @property
    def seconds(self) -> list[float]:
        """Of each step but the first."""
        return [after - before for before, after in itertools.pairwise(self.ends)]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def ours(asked: argparse.Namespace) -> dict[str, Any]:
    config, clock, drawn = config_of(asked, reference_weight=0.0), Clock(), [0]
    train = dialogues_of(asked, config, asked.steps + 1)
    with tempfile.TemporaryDirectory() as scratch:
        learner = learner_of(asked, config, train, [], Path(scratch))

        class Drawn(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                drawn.append(learner.drawn_tokens)

        learner.add_callback(clock)
        learner.add_callback(Drawn())
        learner.train()
    tokens = [after - before for before, after in itertools.pairwise(drawn)]
    return {"tokens": tokens[1:], "seconds": clock.seconds, "peak_gib": gpu.peak_memory_gib()}


def theirs(asked: argparse.Namespace) -> dict[str, Any]:
    config, clock, drawn = config_of(asked), Clock(), []
    params, train = config.tuning, dialogues_of(asked, config, asked.steps + 1)
    loaded = load_for_inference(config.model, None)
    model = PeftModel.from_pretrained(loaded.model, Path(f"models/{asked.model}"), is_trainable=True)
    encode, tokenizer = loaded.prompt_tokenizer.encode_prompt, loaded.tokenizer
    prompts = [tokenizer.decode(encode(prompt).ids) for prompt in train]

    def reward(completions: list[str], reference: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        drawn.append(sum(map(len, completion_ids)))
        return [score.mean for score in rouge.score(completions, [(each,) for each in reference])]

    with tempfile.TemporaryDirectory() as scratch:
        arguments = RLOOConfig(
            output_dir=scratch,
            max_steps=asked.steps + 1,
            per_device_train_batch_size=asked.per_pass,
            gradient_accumulation_steps=params.dialogues_a_step * params.candidates // asked.per_pass,
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
    return {"tokens": drawn[1:], "seconds": clock.seconds, "peak_gib": gpu.peak_memory_gib()}


SIDES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {"yoyak": ours, "TRL": theirs}


def learner_of(
    asked: argparse.Namespace, config: TuningConfig, train: list[Prompt], dev: list[Prompt], scratch: Path
) -> RewardTrainer:
    """The stage's trainer, without looks at dev and checkpoints: steps alone are timed."""
    policy = Policy(load_for_inference(config.model, None), Path(f"models/{asked.model}"))
    learner = trainer(config, policy, train, dev, scratch, [])
    learner.args.eval_strategy = learner.args.save_strategy = "no"
    learner.args.num_train_epochs, learner.args.load_best_model_at_end = 1, False
    learner.remove_callback(PrinterCallback)
    if asked.compile:
        compile_layers(learner)
    return learner


def compile_layers(learner: RewardTrainer) -> None:
    """For learning alone: drawing has CUDA graphs, and dev is too little."""
    for module in learner.policy.model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True)
    for name in ("_judged", "_dev_loss"):
        setattr(learner, name, torch.compiler.set_stance("force_eager")(getattr(learner, name)))


class Parts:
    """Seconds of each part of a step, and figures of each."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.figures: dict[str, list[float]] = defaultdict(list)

    def time(self, owner: Any, name: str, part: str) -> None:
        """Of the function `owner.name` from here on."""
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if torch.cuda.is_available():
                gpu.reset_peak_memory()
            started = now()
            result = function(*args, **kwargs)
            self.seconds[part] += now() - started
            if torch.cuda.is_available():
                self.figures[f"MiB at most, {part}"].append(torch.cuda.max_memory_allocated() / 2**20)
            return result

        setattr(owner, name, timed)

    def time_merging(self, policy: Policy, part: str) -> None:
        merged = policy.merged

        @contextmanager
        def timed() -> Iterator[Any]:
            started = now()
            with merged() as loaded:
                self.seconds[part] += now() - started
                yield loaded
                started = now()
            self.seconds[part] += now() - started

        policy.merged = timed  # type: ignore[method-assign]


DRAW, MERGE, SCORE, WEIGH, LEARN = (
    "drawing, merging not counted",
    "merging the adapters, and the weights put back",
    "scores",
    "weights of each summary",
    "forward and backward",
)


def profile(asked: argparse.Namespace) -> None:
    config, clock, parts = config_of(asked), Clock(), Parts()
    warm = 3 if asked.compile else 1
    train = dialogues_of(asked, config, asked.steps + warm)
    dev = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    with tempfile.TemporaryDirectory() as scratch:
        learner = learner_of(asked, config, train, dev, Path(scratch))
        for owner, name, part in (
            (learner.policy, "answers", DRAW),
            (tuning_trainer, "judge", SCORE),
            (learner, "_groups", WEIGH),
            (learner, "_accumulated", LEARN),
        ):
            parts.time(owner, name, part)
        parts.time_merging(learner.policy, MERGE)
        answers = learner.policy.answers

        def counted(*args: Any, **kwargs: Any) -> Any:
            found = answers(*args, **kwargs)
            lengths = [len(ids) for row in found for ids in row.ids]
            parts.figures["tokens drawn"].append(sum(lengths))
            parts.figures["tokens of the longest summary"].append(max(lengths))
            parts.figures["tokens of a summary, median"].append(median(lengths))
            parts.figures["summaries that hit the limit"].append(
                sum(not candidate.finished for row in found for candidate in row.candidates)
            )
            return found

        learner.policy.answers = counted  # type: ignore[method-assign]

        class Warm(TrainerCallback):
            """Its steps are forgotten; tokens that are learned from are counted after each."""

            def on_step_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
                print(f"step {state.global_step}: {learner.budget.describe()}", flush=True)
                parts.figures["tokens learned from"].append(learner._tokens_since_log)
                if state.global_step == warm:
                    parts.seconds.clear()
                    parts.figures.clear()

        learner.add_callback(clock)
        learner.add_callback(Warm())
        learner.train()
        steps = clock.seconds[warm - 1 :]
        taken, step = dict(parts.seconds), fmean(steps)
        show(taken, steps, parts.figures)
        peak = gpu.peak_memory_gib()
        started = now()
        learner.evaluate()
        look = now() - started
    whole = ROWS * EPOCHS / config.tuning.dialogues_a_step * step + (EPOCHS + 1) * look
    print(f"a look at dev ({len(dev)} dialogues): {look:.1f} s; peak of the steps {peak:.2f} GiB")
    print(f"{environment.describe()['device']}: {learner.budget.describe()}")
    print(f"{ROWS} rows, {EPOCHS} epochs, {EPOCHS + 1} looks at dev: {whole / 60:.1f} min")


def show(taken: dict[str, float], steps: list[float], figures: dict[str, list[float]]) -> None:
    """Means of a step."""
    whole = sum(steps)
    taken[DRAW] -= taken[MERGE]
    taken["optimiser and the rest"] = whole - sum(taken.values())
    print(f"{len(steps)} steps, {whole / len(steps):.2f} s each")
    for part, seconds in taken.items():
        print(f"  {part}: {seconds / len(steps):.2f} s, {seconds / whole:.0%}")
    for name, values in figures.items():
        print(f"  {name}: {fmean(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})")
    print(f"  learned: {sum(figures['tokens learned from']) / taken[LEARN]:,.0f} tokens/s")
    print(f"  drawn: {sum(figures['tokens drawn']) / taken[DRAW]:,.0f} tokens/s")


if __name__ == "__main__":
    main()
