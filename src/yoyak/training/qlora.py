"""Adapters over (4-bit) base weights of a decoder-only model, on TRL's `SFTTrainer`."""

import random
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import DataCollatorWithFlattening, GenerationConfig, TrainerCallback
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTConfig, SFTTrainer

from yoyak.modeling import isolation
from yoyak.modeling.loading import Loaded
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training import adapters, attention, memory, packing, sharding
from yoyak.training.arguments import trainer_arguments
from yoyak.training.base_model import dequantize
from yoyak.training.dev import rouge_of
from yoyak.training.memory import TokenBudget
from yoyak.training.params import EVALUATED_ROWS, TrainingConfig, TrainingParams
from yoyak.training.recomputing import Trial
from yoyak.training.rows import IGNORED, Row, Rows
from yoyak.training.steps import MicroBatching

BEST = {
    "loss": {"metric_for_best_model": "eval_loss", "greater_is_better": False},
    "rouge": {"metric_for_best_model": "eval_rouge_mean", "greater_is_better": True},
}
SUMMARISED_ROWS = 16
"""Dev rows that are summarised at once: a constant, as `EVALUATED_ROWS` is."""
COMPILED_FROM = 1_500_000
"""Tokens of a training from which on compiling, about a minute, takes less time than it saves.

On an H200 Qwen2.5-Coder-1.5B goes from 13,000 tokens/s to 47,000 after 70 s: worth it from 1.2 million on.
"""


class SummaryLossTrainer(MicroBatching, SFTTrainer):
    """`SFTTrainer` on packed rows without padding, with logits at the summary's positions alone.

    A micro-batch is one sequence of all its rows; position ids that begin anew at each row, and on a GPU the rows'
    borders, keep the rows from seeing each other. What it gains, step by step: docs/performance.md. Where they do not
    keep them apart, a micro-batch is of a single row.
    """

    longest_of_all: int
    """Tokens of the longest row of train and dev."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over the whole vocabulary, in training alone."""
    summarised: Sequence[Row] = ()
    """Dev rows whose summaries are scored after each epoch."""
    prompt_tokenizer: PromptTokenizer
    """What makes texts of their tokens."""
    one_by_one: bool = False
    """Whether dev rows, too, go through the model one at a time."""

    def micro_batches(self, inputs: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
        left = packing.split(inputs)
        while left:
            # The budget changes once the first micro-batch has been measured.
            count = memory.next_rows([row["input_ids"].shape[1] for row in left], self.budget.tokens)
            micro_batch, left = packing.joined(left[:count]), left[count:]
            yield packing.for_loss(micro_batch), micro_batch["input_ids"].shape[1]

    def of_few_shapes(self, micro_batch: dict[str, Any]) -> dict[str, Any]:
        return packing.of_few_shapes(micro_batch, self.args.train_batch_size)

    def lengths(self, inputs: dict[str, Any]) -> list[int]:
        return packing.lengths(inputs)

    def select(self, inputs: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        each = packing.split(inputs)
        return packing.joined([each[row] for row in rows])

    def rows_of(self, inputs: dict[str, Any]) -> list[list[int]]:
        return [row["input_ids"][0].tolist() for row in packing.split(inputs)]

    def real_tokens(self, inputs: dict[str, Any]) -> int:
        return int(inputs["input_ids"].numel())

    def longest_row(self, inputs: dict[str, Any]) -> int:
        return max(packing.lengths(inputs))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        total, outputs = self._summed_loss(model, inputs)
        loss = total / (len(inputs["labels"]) if num_items_in_batch is None else num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Over the labels of what `packing.for_loss` made; and the model's outputs."""
        # `use_cache` and the absent attention mask are what makes transformers see the rows' borders.
        outputs = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            use_cache=False,
            logits_to_keep=inputs["places"],
            **attention.options(model, inputs["borders"], max(self.longest_of_all, packing.MOST_IDLE_TOKENS)),
        )
        total = cross_entropy(
            # A view: the gradient of an index would be filled with zeros first, a sixteenth of a step on a CPU.
            outputs.logits.flatten(0, 1).float(),
            inputs["labels"],
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing if model.training else 0.0,
        )
        return total, outputs

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The mean loss of a label, exactly: the trainer's own averages batches, however many they have."""
        model = self.model.eval()
        # Compiling for the forward pass alone would take longer than dev does without.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            metrics = {f"{metric_key_prefix}_loss": self._dev_loss(model, list(dataloader.dataset))}
            if self.summarised:
                metrics[f"{metric_key_prefix}_rouge_mean"] = self._rouge(model)
        return EvalLoopOutput(None, None, metrics, num_samples=len(dataloader.dataset))

    def _dev_loss(self, model: Any, rows: list[Row]) -> float:
        def summed(batch: Sequence[Row]) -> tuple[float, int]:
            inputs = packing.for_loss(self.data_collator(batch))
            total, _ = self._summed_loss(model, self._prepare_inputs(inputs))
            return total.item(), len(inputs["labels"])

        at_once = 1 if self.one_by_one else EVALUATED_ROWS["lora"]
        totals, labels = zip(*self.in_dev_batches("loss", rows, at_once, summed), strict=True)
        return float(sum(totals) / sum(labels))

    def _rouge(self, model: Any) -> float:
        """Of greedy summaries of `summarised`, the mean of ROUGE-1/2/L in percent."""

        def scored(rows: Sequence[Row]) -> list[float]:
            prompts = [row["input_ids"][: row["labels"].count(IGNORED)] for row in rows]
            summaries = [row["input_ids"][row["labels"].count(IGNORED) :] for row in rows]
            generated = self._greedy(model, prompts, max(map(len, summaries)) + 1)
            return rouge_of(self.prompt_tokenizer, generated, summaries)

        at_once = 1 if self.one_by_one else SUMMARISED_ROWS
        return 100 * fmean(chain.from_iterable(self.in_dev_batches("ROUGE", self.summarised, at_once, scored)))

    def _greedy(self, model: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Token ids that follow each prompt, at most `max_new_tokens`."""
        width = max(map(len, prompts))
        padding = self.processing_class.pad_token_id
        ids = torch.tensor([[padding] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        # A new one: some models come with a repetition penalty, which is not greedy.
        greedy = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=padding,
            eos_token_id=self.summarised[0]["input_ids"][-1],
        )
        with attention.with_padding(model), self.accelerator.autocast():
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=greedy,
                # All ranks run as many steps as the longest summary on any of them.
                synced_gpus=self.ranks.sharded,
            )
        return [row[width:] for row in output.tolist()]


def trainer(
    config: TrainingConfig, loaded: Loaded, train: Rows, dev: Rows, scratch: Path, callbacks: list[TrainerCallback]
) -> SummaryLossTrainer:
    """A trainer that keeps the epoch with the lowest dev loss, or the best dev ROUGE."""
    lora = config.lora
    assert lora is not None, "the preflight gives it to each model with method: lora"
    layers = adapters.linear_layers(loaded.model)
    adapters.check_targets(lora, layers)
    model, base_weights = dequantize(loaded.model)
    chosen, longest = attention.use_best(model), max(train.longest, dev.longest)
    seen = _what_rows_see(model, train, longest, config.training)
    budget = memory.ONE_ROW if seen else memory.MAX_TOKENS if chosen in attention.OURS else memory.MAX_MASKED_TOKENS
    if (shards := sharding.shards_of(model)) > 1:
        budget = min(budget, memory.most_tokens(scratch))
    arguments = SFTConfig(
        **trainer_arguments(config, loaded.precision.dtype, scratch, len(train.rows)),
        **BEST[config.training.best_by],
        per_device_eval_batch_size=EVALUATED_ROWS["lora"],
        gradient_checkpointing=False,
        prediction_loss_only=True,
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    with adapters.refused_layers_told(layers):
        result = SummaryLossTrainer(
            budget=TokenBudget(budget, shards),
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(train.rows),
            eval_dataset=Dataset.from_list(dev.rows),
            data_collator=DataCollatorWithFlattening(),
            processing_class=loaded.tokenizer,
            peft_config=adapters.peft_config(lora),
            callbacks=callbacks,
        )
    result.label_smoothing = config.training.label_smoothing
    result.longest_of_all, result.one_by_one = longest, seen is not None
    result.prompt_tokenizer = loaded.prompt_tokenizer
    if config.training.best_by == "rouge":
        result.summarised = random.Random(config.seed).sample(dev.rows, min(config.training.rouge_rows, len(dev.rows)))
    adapters.train_in_fp32(result.model)
    adapters.leave_routers_alone(result.model)
    if seen is None and torch.cuda.is_available():
        result.trial = Trial(result.budget)
    compiled = _compile(result.model, round(train.tokens * config.training.epochs))
    graphs = result.record_passes(_why_not_graphed(result.model))
    result.ran_with = {
        "base": base_weights,
        "attention": seen or chosen,
        "compiled": compiled,
        "cuda_graphs": graphs,
    }
    return result


def _what_rows_see(model: Any, train: Rows, longest: int, training: TrainingParams) -> str | None:
    """Why rows must go through one at a time, for the record; None where they need not."""
    rows = [row["input_ids"] for row in train.rows[:2]]
    if not isolation.packs(
        model, rows, lambda positions: attention.options(model, packing.borders(positions), longest)
    ):
        return "one row at a time: rows packed together would see each other"
    with attention.with_padding(model):
        if training.best_by == "rouge" and not isolation.pads(model, rows, "left"):
            return "one row at a time: padding would change summaries of dev"
    return None


def _compile(model: Any, tokens: int) -> str:
    """Compile the decoder's layers where that pays; tells whether, and why not."""
    if sharding.shards_of(model) > 1:
        return "no: weights are sharded"
    if not torch.cuda.is_available():
        return "no: not on a GPU"
    if tokens < COMPILED_FROM:
        return f"no: {tokens} tokens are fewer than {COMPILED_FROM}"
    if not _builds_kernels():
        return (
            "no: no C compiler, or no Python.h; `apt install gcc python3-dev` makes training on a GPU nearly twice as "
            "fast"
        )
    compile_layers(model)
    return "yes"


def compile_layers(model: Any) -> None:
    """All alike, so that one is compiled and serves them all. Compiling takes half as long so (a twin, on a CPU)."""
    # Else the first one's input, which frozen embeddings give, has no gradient, and it is compiled by itself.
    model.enable_input_require_grads()
    # Else floats such as the adapters' scaling are inputs: each layer is traced twice, and takes them anew at each call
    # (findings/compile_takes_floats_as_inputs.sh).
    torch._dynamo.config.specialize_float = True
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True)


def _why_not_graphed(model: Any) -> str | None:
    if not torch.cuda.is_available():
        return "not on a GPU"
    if model.config._attn_implementation != attention.KERNEL:
        return "no kernel keeps packed rows apart"
    if sharding.shards_of(model) > 1:
        return "weights are sharded"
    rope = model.config.get_text_config().rope_parameters
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)}
    if kinds & {"dynamic", "longrope"}:
        return "the host looks how long rows are, to place them"
    return None


def _builds_kernels() -> bool:
    """Triton compiles C against Python's headers before its first kernel."""
    compiler = any(map(shutil.which, ("cc", "gcc", "clang")))
    return compiler and Path(sysconfig.get_paths()["include"], "Python.h").is_file()
