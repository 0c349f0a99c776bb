"""Training of koBART's and pko-T5's true shapes: ours beside transformers' `Seq2SeqTrainer`.

    python benchmarks/seq2seq.py KOBART DATA
    python benchmarks/seq2seq.py KOBART DATA 200
    python benchmarks/seq2seq.py --smoke

KOBART is a folder with koBART's tokenizer, which makes the rows of both shapes; weights are random. DATA has the
competition's `train.csv` and `dev.csv`; a number takes so many rows of train, for a machine without a GPU, and a tenth
as many of dev. Both sides train for three epochs, 8 rows a step, in bf16 where it is fast, and after each epoch look at
dev's loss and ROUGE of greedy summaries, and save a checkpoint. Random weights never end a summary, so each of dev is
made to end where the real one does. Each side runs in a process of its own. Rates are of real tokens, padding not
counted, in the epochs after the first. With --smoke it is of tiny shapes, on any machine, and writes no file.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import recording
import torch
from beams import SMALLER
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.params import read_yaml
from yoyak.core.records import Prompt
from yoyak.data.dialogues import clean, read_dialogues
from yoyak.data.prompts import PromptParams, build
from yoyak.modeling.loading import Loaded, assembled, read_tokenizer
from yoyak.modeling.precision import choose
from yoyak.modeling.spec import ModelSpec
from yoyak.sweeps.true_size import KOBART, PKO_T5
from yoyak.training import greedy, seq2seq
from yoyak.training.dev import rouge_of
from yoyak.training.from_scratch import _learned_tokenizer
from yoyak.training.params import TrainingConfig
from yoyak.training.rows import IGNORED, Rows, seq2seq_rows

SMOKE = "--smoke"
EPOCHS, ROWS = 3, 8
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "kobart": ("bart", KOBART),
    "pko_t5": ("t5", PKO_T5),
    "tiny_bart": ("bart", KOBART | SMALLER | {"vocab_size": 1000}),
    "tiny_t5": ("t5", PKO_T5 | {"d_model": 64, "d_ff": 96, "num_layers": 2, "vocab_size": 1000}),
}
"""By name: transformers' `model_type`, and its configuration."""
PARAMS = read_yaml(Path("params.yaml"))


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[-1].startswith("{"):
        options = json.loads(arguments.pop())
        print(json.dumps(measure(options["side"], options["shape"], arguments)))
        return
    smoke = arguments == [SMOKE]
    if not smoke:
        recording.require_clean_tree()
    rows = []
    for shape in (name for name in SHAPES if name.startswith("tiny") == smoke):
        figures = {}
        for side in SIDES:
            options = json.dumps({"side": side, "shape": shape})
            figures[side] = recording.in_a_process(__file__, *arguments, options)
            print(options, figures[side], flush=True)
        rows += compared(shape, figures["ours"], figures["recipe"])
    if not smoke:
        recording.record("seq2seq", rows)


def compared(shape: str, ours: dict[str, float], recipe: dict[str, float]) -> list[dict[str, Any]]:
    def row(what: str, unit: str, key: str) -> dict[str, Any]:
        whose = f"Seq2SeqTrainer, batches of {ROWS}"
        command = "python benchmarks/seq2seq.py KOBART DATA"
        return recording.row(f"{shape}, {what}", unit, ours[key], recipe[key], whose, ours["peak_gib"], command)

    return [
        row(f"{ROWS} rows a step", "real tokens/s", "tokens_per_second"),
        row("a look at dev", "seconds", "dev_seconds"),
        row(f"{EPOCHS} epochs with looks at dev and checkpoints", "seconds", "seconds"),
    ]


def measure(side: str, shape: str, arguments: list[str]) -> dict[str, float]:
    """Real tokens a second, seconds of a look at dev and of the whole training, and peak memory."""
    torch.manual_seed(0)
    train, dev = data(arguments)
    loaded = random_weights(shape, tokenizer_of(arguments, train))
    rows = [seq2seq_rows(prompts, loaded.prompt_tokenizer) for prompts in (train, dev)]
    clock = Clock(rows[0].tokens)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SIDES[side](loaded, *rows, Path(scratch))
        trainer.add_callback(clock)
        started = time.perf_counter()
        trainer.train()
        seconds = synchronised() - started
    return {**clock.figures(), "seconds": seconds, "peak_gib": gpu.peak_memory_gib()}


def data(arguments: list[str]) -> list[list[Prompt]]:
    """Prompts of train and of dev."""
    smoke = arguments == [SMOKE]
    folder = Path("data/sample" if smoke else arguments[1])
    most = 24 if smoke else int(arguments[2]) if len(arguments) > 2 else None
    prompts = []
    for split in ("train", "dev"):
        dialogues = read_dialogues(folder / f"{split}.csv", with_summary=True)
        prompts.append([build(clean(row), PromptParams(**PARAMS["prompts"]), for_training=True) for row in dialogues])
    return prompts if most is None else [prompts[0][:most], prompts[1][: most // 10 or 1]]


def tokenizer_of(arguments: list[str], train: list[Prompt]) -> Any:
    if arguments == [SMOKE]:
        return _learned_tokenizer(["\n".join(prompt.turns) for prompt in train], 1000)
    return read_tokenizer(Path(arguments[0]), Path(arguments[0]))


def spec() -> ModelSpec:
    return ModelSpec(weights="./random", method="full", dtype="bf16", prompt="dialogue")


def random_weights(shape: str, tokenizer: Any) -> Loaded:
    kind, sizes = SHAPES[shape]
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(**{"model_type": kind, **sizes, **ids}, decoder_start_token_id=tokenizer.eos_token_id)
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    return assembled(spec(), model, choose("bf16"), tokenizer)


def synchronised() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(TrainerCallback):
    """Times steps, looks at dev and checkpoints, each by itself, of the epochs after the first."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.epoch = tokens, 0
        """Of an epoch; which one it is."""
        self.steps: list[float] = []
        self.dev: list[float] = []
        self.saves: list[float] = []
        """Seconds of each epoch."""
        self.lapped = 0.0

    def lap(self) -> float:
        now = synchronised()
        seconds, self.lapped = now - self.lapped, now
        return seconds

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.lap()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.steps.append(self.lap())

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.dev.append(self.lap())

    def on_save(self, *_: Any, **__: Any) -> None:
        self.saves.append(self.lap())

    def figures(self) -> dict[str, float]:
        later = self.steps[1:]
        return {
            "tokens_per_second": len(later) * self.tokens / sum(later),
            "first_epoch_seconds": self.steps[0],
            "dev_seconds": sum(self.dev[1:]) / len(later),
            "checkpoint_seconds": sum(self.saves[1:]) / len(later),
        }


def ending(logits: torch.Tensor, last: torch.Tensor, end: int) -> torch.Tensor:
    """Of logits (rows, vocabulary) the end's alone where a row's token is the `last` (rows,), else all but it."""
    is_end = torch.arange(logits.shape[-1], device=logits.device) == end
    return logits.where(last[:, None] == is_end, -torch.inf)


# Ours


def ours(loaded: Loaded, train: Rows, dev: Rows, scratch: Path) -> Any:
    """The trainer of the stage `train`, as it comes."""
    config = TrainingConfig.model_validate(
        {
            "model": spec(),
            "lora": None,
            "quantization": None,
            "training": {**PARAMS["training"], "epochs": EPOCHS, "effective_batch_size": ROWS, "learning_rate": 5e-5},
            "seed": 0,
        }
    )
    EndsWhereTold.lengths = {tuple(row["input_ids"]): len(row["labels"]) for row in dev.rows}
    greedy.Batch = EndsWhereTold  # type: ignore[misc]
    return seq2seq.trainer(config, loaded, train, dev, scratch, [])


class EndsWhereTold(greedy.Batch):
    lengths: dict[tuple[int, ...], int]
    """Tokens of each prompt's summary."""

    def __init__(self, model: Any, prompts: Any, max_new_tokens: int, end_ids: list[int]) -> None:
        self.end = end_ids[0]
        self.last = torch.tensor([self.lengths[tuple(prompt)] - 1 for prompt in prompts], device=model.device)
        super().__init__(model, prompts, max_new_tokens, end_ids)

    def _add(self, logits: torch.Tensor) -> torch.Tensor:
        return super()._add(ending(logits, self.number == self.last[self.prompts], self.end))


# The recipe's


class SummariesEndWhereTold(Seq2SeqTrainer):
    """As transformers has it, but for where summaries end."""

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        lengths = (inputs["labels"] != IGNORED).sum(-1)

        def end_where_told(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return ending(scores, lengths == tokens.shape[1], self.processing_class.eos_token_id)

        self._gen_kwargs["logits_processor"] = [end_where_told]
        return super().prediction_step(model, inputs, *args, **kwargs)


def recipe(loaded: Loaded, train: Rows, dev: Rows, scratch: Path) -> Any:
    """As its documentation and the public baselines have it: batches as rows come, each padded to its longest row."""
    tokenizer = loaded.tokenizer

    def rouge(prediction: Any) -> dict[str, float]:
        generated, labels = (
            np.where(ids == IGNORED, tokenizer.pad_token_id, ids).tolist()
            for ids in (prediction.predictions, prediction.label_ids)
        )
        return {"rouge_mean": float(np.mean(rouge_of(loaded.prompt_tokenizer, generated, labels)))}

    return SummariesEndWhereTold(
        model=loaded.model,
        args=Seq2SeqTrainingArguments(
            output_dir=str(scratch),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=ROWS,
            per_device_eval_batch_size=ROWS,
            learning_rate=5e-5,
            bf16=loaded.precision.dtype == "bf16",
            use_cpu=device() == "cpu",
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=2,
            load_best_model_at_end=True,
            metric_for_best_model="rouge_mean",
            predict_with_generate=True,
            generation_max_length=1 + max(len(row["labels"]) for row in [*train.rows, *dev.rows]),
            report_to=[],
        ),
        train_dataset=Dataset.from_list(train.rows),
        eval_dataset=Dataset.from_list(dev.rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=loaded.model),
        processing_class=tokenizer,
        compute_metrics=rouge,
    )


SIDES: dict[str, Callable[[Loaded, Rows, Rows, Path], Any]] = {"ours": ours, "recipe": recipe}


if __name__ == "__main__":
    main()
