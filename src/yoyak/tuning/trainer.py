"""Optimiser steps over what the model has drawn itself a moment before, on transformers' trainer."""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from yoyak.core.environment import device
from yoyak.core.records import Prompt
from yoyak.inference.params import OneModelConfig
from yoyak.training import memory
from yoyak.training.memory import TokenBudget
from yoyak.training.params import EVALUATED_ROWS
from yoyak.training.steps import MicroBatching
from yoyak.tuning.groups import Group, laid_out, log_probabilities, use_shared_prompts
from yoyak.tuning.params import TuningConfig
from yoyak.tuning.policy import Answers, Encoded, Policy
from yoyak.tuning.rewards import Judged, advantages, judge

WARMUP_STEPS = 3
"""AdamW's second moments are nothing in the first steps."""
FLAT = 1e-6
"""Spread of a step's advantages under which it has nothing to tell."""


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
        self.train_dialogues, self.dev_dialogues = policy.encoded(train), policy.encoded(dev)
        self.drawn: list[dict[str, float]] = []
        """Figures of each step's summaries since the last one that was logged."""
        self.drawn_tokens = 0
        """Of all summaries that this process has drawn to learn from."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        dialogues = [self.train_dialogues[row] for row in inputs["rows"].tolist()]
        seed = zlib.crc32(repr((self.config.seed, self.state.global_step)).encode())
        answers, judged = self._judged(dialogues, self.config.drawing(seed))
        self.drawn.append(_figures(judged, answers))
        self.drawn_tokens += sum(len(ids) for row in answers for ids in row.ids)
        return super().training_step(model, _batch(self._groups(dialogues, answers, judged)))

    def _judged(self, dialogues: Sequence[Encoded], config: OneModelConfig) -> tuple[list[Answers], list[list[Judged]]]:
        """Answers to each of the dialogues, and what they are worth."""

        def told(done: int) -> None:
            self._tell("on_prediction_step", looked_at=f"summaries of {done} of {len(dialogues)} dialogues")

        answers = self.policy.answers(dialogues, config, told)
        return answers, judge([dialogue.prompt for dialogue in dialogues], [row.candidates for row in answers])

    def _groups(
        self, dialogues: Sequence[Encoded], answers: Sequence[Answers], judged: Sequence[Sequence[Judged]]
    ) -> list[Group]:
        """The dialogues' summaries, each weighted by its advantage, and their references."""
        params = self.config.tuning
        of_rows = [advantages([each.reward(params.max_length_ratio) for each in row]) for row in judged]
        spread = pstdev([value for row in of_rows for value in row])
        tokens = sum(len(ids) for row in answers for ids in row.ids)
        reference_weight = params.reference_weight / sum(len(dialogue.reference) for dialogue in dialogues)
        groups = []
        for dialogue, row, values in zip(dialogues, answers, of_rows, strict=True):
            # The same answer several times goes through the model once.
            weights: dict[tuple[int, ...], float] = {}
            for ids, value in zip(row.ids, values, strict=True):
                weight = value / spread / tokens if spread > FLAT else 0.0
                weights[tuple(ids)] = weights.get(tuple(ids), 0.0) + weight
            if reference_weight:
                reference = tuple(dialogue.reference)
                weights[reference] = weights.get(reference, 0.0) + reference_weight
            groups.append(Group(dialogue.ids, [*map(list, weights)], [*weights.values()]))
        return groups

    def micro_batches(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        # Those of like length together: less is padding. The longest first: the first ones tell how many fit.
        left = sorted(inputs["groups"], key=lambda group: group.tokens, reverse=True)
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
        # Not through the model's `forward`, which accelerate has wrapped for it.
        with self.accelerator.autocast():
            return -(inputs["weights"] * log_probabilities(model, inputs)).sum()

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss on dev's references; ROUGE, reward, length and faults of its greedy summaries, and the share of them
        that are cut off."""
        answers, judged = self._judged(self.dev_dialogues, self.config.greedy)
        greedy = [row[0] for row in judged]
        figures = {
            "loss": self._dev_loss(),
            "rouge_mean": 100 * fmean(each.rouge for each in greedy),
            "reward": 100 * fmean(each.reward(self.config.tuning.max_length_ratio) for each in greedy),
            "length_ratio": fmean(each.length for each in greedy),
            "faulty": sum(each.faulty for each in greedy),
            "cut_off": fmean(not row.candidates[0].finished for row in answers),
        }
        metrics = {f"{metric_key_prefix}_{key}": value for key, value in figures.items()}
        return EvalLoopOutput(None, None, metrics, num_samples=len(greedy))

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
        """With the drawn summaries' mean reward, length, and share of different ones, since the last log."""
        if "loss" in logs and self.drawn:
            logs |= {key: fmean(figures[key] for figures in self.drawn) for key in self.drawn[0]}
            self.drawn.clear()
        super().log(logs, start_time)


def _batch(groups: list[Group]) -> dict[str, Any]:
    """What `MicroBatching` takes. Groups, and answers, that tell nothing are left out, unless none tells anything."""
    telling = [group.without_idle_answers() for group in groups if any(group.weights)]
    told = telling or groups[:1]
    tokens, labels = sum(group.tokens for group in told), sum(group.answer_tokens for group in told)
    # Of the last two the steps ask how many there are, and no more.
    return {"groups": told, "input_ids": torch.empty(1, tokens), "labels": torch.zeros(1, labels)}


def _figures(judged: Sequence[Sequence[Judged]], answers: Sequence[Answers]) -> dict[str, float]:
    """Of the summaries that were drawn: in percent ROUGE, the best of each dialogue's, and how many differ."""
    texts = [[candidate.text for candidate in row.candidates] for row in answers]
    return {
        "drawn_rouge": 100 * fmean(each.rouge for row in judged for each in row),
        "best_drawn_rouge": 100 * fmean(max(each.rouge for each in row) for row in judged),
        "drawn_length_ratio": fmean(each.length for row in judged for each in row),
        "distinct": 100 * fmean(len(set(row)) / len(row) for row in texts),
    }


def trainer(
    config: TuningConfig,
    policy: Policy,
    train: Sequence[Prompt],
    dev: Sequence[Prompt],
    scratch: Path,
    callbacks: list[TrainerCallback],
) -> RewardTrainer:
    """A trainer that keeps the epoch whose summaries of dev have the best reward."""
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
        metric_for_best_model="eval_reward",
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
