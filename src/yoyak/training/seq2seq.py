"""Every weight of an encoder-decoder, on transformers' `Seq2SeqTrainer`."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from yoyak.metrics import rouge
from yoyak.modeling.loading import Loaded
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training.arguments import trainer_arguments
from yoyak.training.memory import TokenBudget
from yoyak.training.params import EVALUATED_ROWS, TrainingConfig
from yoyak.training.rows import IGNORED, Rows
from yoyak.training.steps import MicroBatching

BEST = {"metric_for_best_model": "eval_rouge_mean", "greater_is_better": True}


class GroupedByLength(LengthGroupedSampler):
    """Rows of like length side by side, so that little is padded; in an order of seed and epoch alone.

    Transformers' own is drawn from the global generator, whose state at an epoch's start no checkpoint within it has: a
    run that goes on there would see some rows twice, and others not at all.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed(self.seed + epoch)


class TokenMeanTrainer(MicroBatching, Seq2SeqTrainer):
    """`Seq2SeqTrainer` whose loss is the mean over all summary tokens of an optimiser step, whatever the micro-batch.

    transformers 5.23 takes BART and T5, whose loss is already a mean of the micro-batch, for models that divide by the
    step's token count, and so sums the gradients of micro-batches: twice as large with half the micro-batch.
    """

    def micro_batches(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        """Rows of the batch are padded alike, and so take as much memory."""
        rows, start = len(inputs["input_ids"]), 0
        while start < rows:
            # The budget changes once the first micro-batch has been measured.
            end = min(rows, start + max(1, self.budget.tokens // self.longest_row(inputs)))
            micro_batch = {key: tensor[start:end] for key, tensor in inputs.items()}
            yield micro_batch, (end - start) * self.longest_row(inputs)
            start = end

    def real_tokens(self, inputs: dict[str, Any]) -> int:
        return int(inputs["attention_mask"].sum() + (inputs["labels"] != IGNORED).sum())

    def _get_train_sampler(self, train_dataset: Any = None) -> GroupedByLength:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return GroupedByLength(self.args.train_batch_size, lengths, self.args.data_seed)

    def lengths(self, inputs: dict[str, Any]) -> list[int]:
        return [self.longest_row(inputs)] * len(inputs["input_ids"])

    def select(self, inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        return {key: tensor[rows] for key, tensor in inputs.items()}

    def rows_of(self, inputs: dict[str, Any]) -> list[list[int]]:
        masks = inputs["attention_mask"].bool()
        return [ids[mask].tolist() for ids, mask in zip(inputs["input_ids"], masks, strict=True)]

    def longest_row(self, inputs: dict[str, Any]) -> int:
        return int(inputs["input_ids"].shape[1] + inputs["labels"].shape[1])

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        total = cross_entropy(
            outputs.logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.args.label_smoothing_factor,
            reduction="sum",
        )
        loss = total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Ranks share the batches, which are the same; each figure is a mean over rows."""
        rows = dataloader.dataset
        loop = partial(super().evaluation_loop, description=description, prediction_loss_only=prediction_loss_only)
        if self.ranks.count == 1:
            return loop(dataloader, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix)
        own, metrics = self.own_of_dev(len(rows), self.args.eval_batch_size), {}
        if own:
            loader = self.get_eval_dataloader(rows.select(own))
            metrics = loop(loader, ignore_keys=ignore_keys, metric_key_prefix=metric_key_prefix).metrics
        shares = [(count, of_rank) for count, of_rank in self.ranks.gather((len(own), metrics)) if count]
        means = {key: sum(count * of_rank[key] for count, of_rank in shares) / len(rows) for key in shares[0][1]}
        return EvalLoopOutput(None, None, means, num_samples=len(rows))


def trainer(
    config: TrainingConfig, loaded: Loaded, train: Rows, dev: Rows, scratch: Path, callbacks: list[TrainerCallback]
) -> TokenMeanTrainer:
    """A trainer that keeps the epoch with the best dev ROUGE of greedy summaries."""
    # Saved with the model, for whoever opens it: greedy, and as long as the longest summary and the token before it.
    loaded.model.generation_config.max_length = 1 + max(len(row["labels"]) for row in [*train.rows, *dev.rows])
    arguments = Seq2SeqTrainingArguments(
        **trainer_arguments(config, loaded.precision.dtype, scratch, len(train.rows)),
        **BEST,
        per_device_eval_batch_size=EVALUATED_ROWS["full"],
        label_smoothing_factor=config.training.label_smoothing,
        predict_with_generate=True,
    )
    return TokenMeanTrainer(
        budget=TokenBudget(),
        model=loaded.model,
        args=arguments,
        train_dataset=Dataset.from_list(train.rows),
        eval_dataset=Dataset.from_list(dev.rows),
        data_collator=DataCollatorForSeq2Seq(loaded.tokenizer, model=loaded.model, label_pad_token_id=IGNORED),
        processing_class=loaded.tokenizer,
        compute_metrics=_rouge_of(loaded.prompt_tokenizer),
        callbacks=callbacks,
    )


def _rouge_of(prompt_tokenizer: PromptTokenizer) -> Callable[[Any], dict[str, float]]:
    """The mean of ROUGE-1/2/L in percent, against the dev summaries."""

    def compute(prediction: Any) -> dict[str, float]:
        texts, references = (
            prompt_tokenizer.decode(np.where(ids == IGNORED, prompt_tokenizer.tokenizer.pad_token_id, ids))
            for ids in (prediction.predictions, prediction.label_ids)
        )
        scores = rouge.score(texts, [(reference,) for reference in references])
        return {"rouge_mean": 100 * fmean(row.mean for row in scores)}

    return compute
