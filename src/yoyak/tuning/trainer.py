"""Optimiser steps over what the model has drawn itself a moment before, on transformers' trainer."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, NamedTuple

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from yoyak.core.environment import device
from yoyak.core.records import Candidate, Prompt
from yoyak.inference.params import GenerationParams
from yoyak.training import memory
from yoyak.training.memory import TokenBudget
from yoyak.training.params import EVALUATED_ROWS
from yoyak.training.steps import MicroBatching
from yoyak.tuning.groups import Group, laid_out, log_probabilities, use_shared_prompts
from yoyak.tuning.params import TuningConfig
from yoyak.tuning.policy import Policy
from yoyak.tuning.rewards import advantages, rewards

WARMUP_STEPS = 3
"""AdamW's second moments are nothing in the first steps."""
FLAT = 1e-6
"""Spread of a step's advantages under which it has nothing to tell."""


Answers = tuple[list[Candidate], list[list[int]]]
"""To one prompt, as texts and as tokens."""


class Encoded(NamedTuple):
    """A dialogue, its prompt and its reference in tokens."""

    prompt: Prompt
    ids: list[int]
    reference: list[int]


def _encoded(prompts: Sequence[Prompt], policy: Policy) -> list[Encoded]:
    tokenizer = policy.loaded.prompt_tokenizer
    return [
        Encoded(prompt, tokenizer.encode_prompt(prompt).ids, tokenizer.encode_summary(prompt.summary or ""))
        for prompt in prompts
    ]


class RewardTrainer(MicroBatching):
    """A batch is of dialogues: their summaries are drawn, scored, and made likelier or less likely by their scores."""

    def __init__(
        self,
        *args: Any,
        policy: Policy,
        config: TuningConfig,
        train: Sequence[Prompt],
        dev: Sequence[Prompt],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.policy, self.config = policy, config
        self.train_dialogues, self.dev_dialogues = _encoded(train, policy), _encoded(dev, policy)
        self.drawn: list[dict[str, float]] = []
        """Figures of each step's summaries since the last one that was logged."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        chosen = [self.train_dialogues[row] for row in inputs["rows"].tolist()]
        return super().training_step(model, self._experience(chosen))

    def _experience(self, dialogues: Sequence[Encoded]) -> dict[str, Any]:
        """Groups of the dialogues' summaries, each weighted by its advantage, and of their references."""
        seed = zlib.crc32(repr((self.config.seed, self.state.global_step)).encode())
        drawn = self._answers(dialogues, self.config.drawing, seed)
        values = rewards([dialogue.prompt for dialogue in dialogues], [candidates for candidates, _ in drawn])
        self.drawn.append(_figures(values, [candidates for candidates, _ in drawn]))
        of_rows = [advantages(row) for row in values]
        spread = pstdev([value for row in of_rows for value in row])
        drawn_tokens = sum(len(ids) for _, row in drawn for ids in row)
        reference_weight = self.config.tuning.reference_weight / sum(len(dialogue.reference) for dialogue in dialogues)
        groups = []
        for dialogue, (_, answers), row in zip(dialogues, drawn, of_rows, strict=True):
            # The same answer several times goes through the model once.
            weights: dict[tuple[int, ...], float] = {}
            for answer, advantage in zip(answers, row, strict=True):
                weight = advantage / spread / drawn_tokens if spread > FLAT else 0.0
                weights[tuple(answer)] = weights.get(tuple(answer), 0.0) + weight
            if reference_weight:
                reference = tuple(dialogue.reference)
                weights[reference] = weights.get(reference, 0.0) + reference_weight
            groups.append(Group(dialogue.ids, [*map(list, weights)], [*weights.values()]))
        # What tells nothing is left out, unless nothing does.
        telling = [group.without_idle_answers() for group in groups if any(group.weights)]
        told = telling or groups[:1]
        tokens = sum(group.tokens for group in told)
        labels = sum(group.answer_tokens for group in told)
        # Of the last two the steps ask how many there are, and no more.
        return {"groups": told, "input_ids": torch.empty(1, tokens), "labels": torch.zeros(1, labels)}

    def _answers(self, dialogues: Sequence[Encoded], params: GenerationParams, seed: int) -> list[Answers]:
        prompts, ids = [dialogue.prompt for dialogue in dialogues], [dialogue.ids for dialogue in dialogues]
        return self.policy.answers(prompts, ids, params, seed)

    def micro_batches(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        left: list[Group] = inputs["groups"]
        while left:
            count = memory.next_rows([group.tokens for group in left], self.budget.tokens)
            taken, left = left[:count], left[count:]
            yield laid_out(taken, self.policy.model.device), sum(group.tokens for group in taken)

    def real_tokens(self, inputs: dict[str, Any]) -> int:
        return int(inputs["input_ids"].numel())

    def longest_row(self, inputs: dict[str, Any]) -> int:
        groups: list[Group] = inputs["groups"]
        return max(group.tokens for group in groups)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return -(inputs["weights"] * log_probabilities(model, inputs)).sum()

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss on dev's references, and ROUGE of its greedy summaries."""
        drawn = self._answers(self.dev_dialogues, self.config.greedy, seed=0)
        prompts = [dialogue.prompt for dialogue in self.dev_dialogues]
        values = rewards(prompts, [candidates for candidates, _ in drawn])
        metrics = {
            f"{metric_key_prefix}_loss": self._dev_loss(),
            f"{metric_key_prefix}_rouge_mean": 100 * fmean(row[0] for row in values),
        }
        return EvalLoopOutput(None, None, metrics, num_samples=len(prompts))

    @torch.no_grad()
    def _dev_loss(self) -> float:
        """Mean of a label."""
        model = self.policy.model.eval()
        groups = [Group(dialogue.ids, [dialogue.reference], [1.0]) for dialogue in self.dev_dialogues]

        def summed(some: Sequence[Group]) -> tuple[float, int]:
            with self.accelerator.autocast():
                values = log_probabilities(model, laid_out(some, model.device))
            return -values.sum().item(), len(values)

        totals, labels = zip(*self.in_dev_batches("loss", groups, EVALUATED_ROWS["full"], summed), strict=True)
        return float(sum(totals) / sum(labels))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """With the drawn summaries' mean reward, length in tokens, and share of different ones, since the last log."""
        if "loss" in logs and self.drawn:
            logs |= {key: fmean(figures[key] for figures in self.drawn) for key in self.drawn[0]}
            self.drawn.clear()
        super().log(logs, start_time)


def _figures(values: list[list[float]], candidates: list[list[Candidate]]) -> dict[str, float]:
    return {
        "reward": 100 * fmean(value for row in values for value in row),
        "best_reward": 100 * fmean(max(row) for row in values),
        "characters": fmean(len(candidate.text) for row in candidates for candidate in row),
        "distinct": fmean(len({candidate.text for candidate in row}) / len(row) for row in candidates),
    }


def trainer(
    config: TuningConfig,
    policy: Policy,
    train: Sequence[Prompt],
    dev: Sequence[Prompt],
    scratch: Path,
    callbacks: list[TrainerCallback],
) -> RewardTrainer:
    """A trainer that keeps the epoch with the best dev ROUGE."""
    params = config.tuning
    use_shared_prompts(policy.model.get_base_model())
    dtype = policy.loaded.precision.dtype
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.dialogues_a_step,
        learning_rate=params.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP_STEPS,
        max_grad_norm=1.0,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_rouge_mean",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=config.seed,
        data_seed=config.seed,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device() == "cpu",
        bf16=dtype == "bf16",
        fp16=dtype == "fp16",
    )
    return RewardTrainer(
        budget=TokenBudget(),
        policy=policy,
        config=config,
        train=train,
        dev=dev,
        model=policy.model,
        args=arguments,
        train_dataset=Dataset.from_dict({"row": range(len(train))}),
        eval_dataset=Dataset.from_dict({"row": range(len(dev))}),
        data_collator=lambda rows: {"rows": torch.tensor([row["row"] for row in rows])},
        processing_class=policy.loaded.tokenizer,
        callbacks=callbacks,
    )
