"""Offline preference training of a trained model on its own summaries of train, by TRL's DPO, to be measured.

    python benchmarks/preference.py MODEL [--loss dpo] [--learning-rate 2e-5] [--margin 0.1] [--pairs FILE] [--out NAME]

In a project where MODEL is trained and in `run.tuned`. Our decoder draws `tuning.candidates` summaries of each row of
train that the model was trained on, and tuning's reward ranks them: the mean of ROUGE-1/2/L, less for what is too long.
Of each dialogue the best and the worst without a fault make a pair, where their rewards differ by `--margin` at least.
FILE keeps the pairs: made if it is not there, else read, so that several losses learn from the same ones.

DPO goes on from the trained adapters for one epoch; its reference is a copy of them that stays as it is, over the same
base weights. `sft+rank` adds TRL's loss on the better one of a pair. `models/NAME`, by default `models/MODEL_dpo`, is
like `models/MODEL_tuned`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer

from yoyak.core import environment, folds, gpu
from yoyak.core.errors import exits_with_one_line
from yoyak.core.limits import LimitsParams
from yoyak.core.records import Prompt, read_records
from yoyak.core.run import tuned
from yoyak.inference.loading import check_base, load_for_inference
from yoyak.modeling.loading import check_finite
from yoyak.training.saving import save_model
from yoyak.tuning.params import TuningConfig, read_config
from yoyak.tuning.policy import Answers, Encoded, Policy
from yoyak.tuning.rewards import Judged, judge

BETA = 0.1
WARMUP_STEPS = 5
LOSSES: dict[str, dict[str, float]] = {"dpo": {"sigmoid": 1.0}, "sft+rank": {"sigmoid": 1.0, "sft": 0.2}}
"""TRL's losses, each with its weight."""

Pair = dict[str, list[int]]
"""Tokens of prompt, and of the summaries chosen and rejected."""


class TokenDPO(DPOTrainer):
    """On pairs that are tokens already: of texts, the template's begin token would come twice."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


@exits_with_one_line
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--loss", choices=LOSSES, default="dpo")
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--margin", type=float, default=0.1)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--pairs-a-step", type=int, default=32)
    parser.add_argument("--per-pass", type=int, default=8)
    parser.add_argument("--steps", type=int, default=-1)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--gib", type=float)
    parser.add_argument("--out")
    asked = parser.parse_args()
    gpu.use_one()
    gpu.limit(LimitsParams(gpu_gib=asked.gib))
    config = read_config(Path(f"data/resolved/{tuned(asked.model)}/tuning.yaml"))
    set_seed(config.seed)
    adapter = Path(f"models/{asked.model}")
    check_base(config.model, adapter)
    policy = Policy(load_for_inference(config.model, None), adapter)
    print(environment.describe()["device"], vars(asked), flush=True)
    learned = learn(policy, pairs_of(policy, config, asked), config, asked)
    out = Path("models", asked.out or f"{asked.model}_dpo")
    check_finite(learned, f"{out}")
    save_model(config.model, policy.loaded, learned, out)
    print(f"{out}: saved; {gpu.peak_memory_gib():.1f} GiB at most")


def pairs_of(policy: Policy, config: TuningConfig, asked: argparse.Namespace) -> list[Pair]:
    if asked.pairs and asked.pairs.exists():
        kept: list[Pair] = json.loads(asked.pairs.read_text())
        return kept
    train = folds.seen(read_records(Path("data/prompts/train.jsonl"), Prompt), config.fold)[: asked.rows]
    dialogues, started = policy.encoded(train), time.perf_counter()
    answers = policy.answers(dialogues, config.drawing(config.seed), lambda done: None)
    seconds, drawn = time.perf_counter() - started, sum(len(ids) for row in answers for ids in row.ids)
    print(f"{len(train)} dialogues, {drawn} tokens drawn in {seconds:.1f} s", flush=True)
    judged = judge(train, [row.candidates for row in answers])
    pairs = paired(dialogues, answers, judged, config.tuning.max_length_ratio, asked.margin)
    if asked.pairs:
        asked.pairs.write_text(json.dumps(pairs))
    return pairs


def paired(
    dialogues: Sequence[Encoded],
    answers: Sequence[Answers],
    judged: Sequence[Sequence[Judged]],
    max_length_ratio: float,
    margin: float,
) -> list[Pair]:
    """A pair of each dialogue whose best summary has a reward of `margin` more than its worst; those with faults, which
    are worth nothing, teach nothing but that."""
    pairs, better, worse = [], [], []
    for dialogue, row, values in zip(dialogues, answers, judged, strict=True):
        ranked = sorted(
            ((value.reward(max_length_ratio), number) for number, value in enumerate(values) if not value.faulty),
            reverse=True,
        )
        if len(ranked) < 2 or ranked[0][0] - ranked[-1][0] < margin:
            continue
        (high, best), (low, worst) = ranked[0], ranked[-1]
        pairs.append({"prompt_ids": dialogue.ids, "chosen_ids": row.ids[best], "rejected_ids": row.ids[worst]})
        better.append((high, values[best].length))
        worse.append((low, values[worst].length))
    if not pairs:
        raise SystemExit(f"error: no two summaries of a dialogue differ by {margin:g}; lower --margin")
    for name, kept in (("chosen", better), ("rejected", worse)):
        rewards, lengths = zip(*kept, strict=True)
        print(f"{name}: reward {100 * fmean(rewards):.2f}, length {fmean(lengths):.2f} of the reference's")
    print(f"{len(pairs)} pairs of {len(dialogues)} dialogues", flush=True)
    return pairs


def learn(policy: Policy, pairs: list[Pair], config: TuningConfig, asked: argparse.Namespace) -> Any:
    """The model, with what its adapters have learned."""
    losses, dtype = LOSSES[asked.loss], policy.loaded.precision.dtype
    with tempfile.TemporaryDirectory() as scratch:
        arguments = DPOConfig(
            output_dir=scratch,
            loss_type=[*losses],
            loss_weights=[*losses.values()],
            beta=BETA,
            num_train_epochs=1,
            max_steps=asked.steps,
            per_device_train_batch_size=asked.per_pass,
            gradient_accumulation_steps=max(1, asked.pairs_a_step // asked.per_pass),
            learning_rate=asked.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=WARMUP_STEPS,
            max_grad_norm=1.0,
            max_length=None,
            gradient_checkpointing=False,
            bf16=dtype == "bf16",
            fp16=dtype == "fp16",
            use_cpu=not torch.cuda.is_available(),
            seed=config.seed,
            logging_steps=5,
            logging_nan_inf_filter=False,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
        )
        # Over a model with trained adapters it copies them, as "ref".
        learner = TokenDPO(
            model=policy.model,
            args=arguments,
            train_dataset=Dataset.from_list(pairs),
            processing_class=policy.loaded.tokenizer,
        )
        started = time.perf_counter()
        learner.train()
        print(f"{learner.state.global_step} steps in {time.perf_counter() - started:.1f} s", flush=True)
    policy.model.delete_adapter("ref")
    return policy.model


if __name__ == "__main__":
    main()
