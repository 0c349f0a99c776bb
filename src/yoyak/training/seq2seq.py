"""Every weight of an encoder-decoder, on transformers' `Trainer`."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import EvalLoopOutput

from yoyak.modeling import encoder_decoder
from yoyak.modeling.loading import Loaded
from yoyak.training import greedy
from yoyak.training.arguments import trainer_arguments
from yoyak.training.dev import rouge_of
from yoyak.training.memory import TokenBudget
from yoyak.training.params import EVALUATED_ROWS, TrainingConfig
from yoyak.training.rows import IGNORED, Row, Rows
from yoyak.training.steps import MicroBatching

BEST = {"metric_for_best_model": "eval_rouge_mean", "greater_is_better": True}
SUMMARISED_ROWS = 128
"""Dev rows that are summarised at once: a constant, as `EVALUATED_ROWS` is."""
GPU_WIDTH_STEP = 32
"""To multiples of which rows are padded for graphs, so that few shapes are to be recorded."""


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


@dataclass(frozen=True)
class Padded:
    """Makes rows a batch: ids and labels padded on the right, and the decoder's inputs."""

    model: Any
    pad_token_id: int
    width_step: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        labels = self._padded([row["labels"] for row in rows], IGNORED)
        return {
            **self.of_prompts([row["input_ids"] for row in rows]),
            "labels": labels,
            "decoder_input_ids": self.model.prepare_decoder_input_ids_from_labels(labels=labels),
        }

    def of_prompts(self, prompts: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """What the encoder takes."""
        ids = self._padded(prompts, self.pad_token_id)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        return {"input_ids": ids, "attention_mask": mask.long()}

    def _padded(self, sequences: Sequence[list[int]], fill: int) -> torch.Tensor:
        ids = pad_sequence([torch.tensor(each) for each in sequences], batch_first=True, padding_value=fill)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        width = -(-ids.shape[1] // self.width_step) * self.width_step
        if positions is not None:
            width = max(ids.shape[1], min(width, positions))
        return pad(ids, (0, width - ids.shape[1]), value=fill)


class TokenMeanTrainer(MicroBatching):
    """A `Trainer` whose loss is the mean over all summary tokens of an optimiser step, whatever the micro-batch.

    transformers 5.23 takes BART and T5, whose loss is already a mean of the micro-batch, for models that divide by the
    step's token count, and so sums the gradients of micro-batches: twice as large with half the micro-batch.
    """

    loaded: Loaded
    """Whose model it is."""
    max_new_tokens: int
    """Of a summary of dev."""

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
        lengths = [len(row["input_ids"]) for row in self.train_dataset]
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
        outputs = model(**inputs, use_cache=False)
        total = cross_entropy(
            outputs.logits.flatten(0, 1).float(),
            labels.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.args.label_smoothing_factor,
            reduction="sum",
        )
        loss = total / ((labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Of what is missing. Transformers says so of tied weights, too, which are saved under one name of theirs."""
        weights = dict(self.model.named_parameters(remove_duplicate=False))
        loaded = {id(weight) for name, weight in weights.items() if name not in load_result.missing_keys}
        missing = [name for name in load_result.missing_keys if id(weights.get(name)) not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss of a label, and ROUGE of a greedy summary of each row."""
        # Of like length side by side.
        rows = sorted(dataloader.dataset, key=lambda row: len(row["input_ids"]), reverse=True)
        self.model.eval()
        with torch.no_grad():
            figures = {"loss": self._dev_loss(rows), "rouge_mean": self._rouge(rows)}
        metrics = {f"{metric_key_prefix}_{name}": figure for name, figure in figures.items()}
        return EvalLoopOutput(None, None, metrics, num_samples=len(rows))

    def _dev_loss(self, rows: list[Row]) -> float:
        def summed(batch: Sequence[Row]) -> float:
            inputs = self._prepare_inputs(self.data_collator(batch))
            with self.accelerator.autocast():
                return float(self.compute_loss(self.model, inputs, num_items_in_batch=1))

        total = sum(self.in_dev_batches("loss", rows, EVALUATED_ROWS["full"], summed))
        return total / sum(len(row["labels"]) for row in rows)

    def _rouge(self, rows: list[Row]) -> float:
        """The mean of ROUGE-1/2/L in percent."""
        model = self._as_inference_loads_it()

        def scored(batch: Sequence[Row]) -> list[float]:
            generated = self._greedy(model, [row["input_ids"] for row in batch])
            return rouge_of(self.loaded.prompt_tokenizer, generated, [row["labels"] for row in batch])

        return 100 * fmean(chain.from_iterable(self.in_dev_batches("ROUGE", rows, SUMMARISED_ROWS, scored)))

    def _as_inference_loads_it(self) -> Any:
        """In the dtype of its computations, which its weights have not, being trained."""
        dtype = self.loaded.precision.torch_dtype
        return self.model if dtype == self.model.dtype else copy.deepcopy(self.model).to(dtype)

    def _greedy(self, model: Any, prompts: list[list[int]]) -> list[list[int]]:
        """Token ids of each prompt's summary."""
        if encoder_decoder.is_known(model):
            return greedy.summaries(model, prompts, self.max_new_tokens, self.loaded.end_ids)
        return self._by_generate(model, prompts)

    def _by_generate(self, model: Any, prompts: list[list[int]]) -> list[list[int]]:
        """Of a family that ours does not know."""
        tokenizer, limit = self.loaded.tokenizer, self.max_new_tokens
        # A new one: some models come with a repetition penalty, which is not greedy.
        config = GenerationConfig(
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=self.loaded.end_ids,
            pad_token_id=tokenizer.pad_token_id,
            decoder_start_token_id=model.config.decoder_start_token_id,
        )
        batch = self._prepare_inputs(self.data_collator.of_prompts(prompts))
        output = model.generate(**batch, generation_config=config)
        return [row[1:] for row in output.tolist()]


def trainer(
    config: TrainingConfig, loaded: Loaded, train: Rows, dev: Rows, scratch: Path, callbacks: list[TrainerCallback]
) -> TokenMeanTrainer:
    """A trainer that keeps the epoch with the best dev ROUGE of greedy summaries."""
    longest = max(len(row["labels"]) for row in [*train.rows, *dev.rows])
    # Saved with the model, for whoever opens it: greedy, and as long as the longest summary and the token before it.
    loaded.model.generation_config.max_length = 1 + longest
    why_not = _why_not_graphed(loaded.model)
    arguments = TrainingArguments(
        **trainer_arguments(config, loaded.precision.dtype, scratch, len(train.rows)),
        **BEST,
        per_device_eval_batch_size=EVALUATED_ROWS["full"],
        label_smoothing_factor=config.training.label_smoothing,
        remove_unused_columns=False,
        prediction_loss_only=True,
    )
    result = TokenMeanTrainer(
        budget=TokenBudget(),
        model=loaded.model,
        args=arguments,
        train_dataset=train.rows,
        eval_dataset=dev.rows,
        data_collator=Padded(loaded.model, loaded.tokenizer.pad_token_id, 1 if why_not else GPU_WIDTH_STEP),
        processing_class=loaded.tokenizer,
        callbacks=callbacks,
    )
    result.loaded, result.max_new_tokens = loaded, longest
    result.ran_with = {"cuda_graphs": result.record_passes(why_not)}
    return result


def _why_not_graphed(model: Any) -> str | None:
    if not torch.cuda.is_available():
        return "not on a GPU"
    if not encoder_decoder.is_known(model):
        return f"{model.config.model_type} may wait for the GPU within a pass"
    if any(getattr(module, "layerdrop", 0) for module in model.modules()):
        return "layers are dropped by the host"
    return None
