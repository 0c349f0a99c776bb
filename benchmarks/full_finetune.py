"""Full fine-tuning of koBART's shape: ours beside transformers' plain `Seq2SeqTrainer`.

    python benchmarks/full_finetune.py KOBART TRAIN

KOBART is a folder with the model's `config.json` and tokenizer; the weights are random. TRAIN is a CSV of the
competition. Each side trains in a process of its own, a step for each 8 of its first 1,200 rows; rates are of real
tokens, dialogue and summary, after the first steps.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import recording
import torch
from datasets import Dataset
from training import Clock, counting
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from yoyak.core import gpu
from yoyak.core.params import read_yaml
from yoyak.data.dialogues import read_dialogues
from yoyak.data.prompts import PromptParams, build
from yoyak.modeling.loading import Loaded, read_tokenizer
from yoyak.modeling.precision import choose
from yoyak.modeling.spec import ModelSpec
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training import seq2seq
from yoyak.training.params import TrainingConfig
from yoyak.training.rows import IGNORED, Rows, seq2seq_rows

STEPS, SKIPPED = 150, 30
ROWS = 8


def main() -> None:
    kobart, train, *side = sys.argv[1:]
    if side:
        print(json.dumps(measure(side[0], Path(kobart), Path(train))))
        return
    recording.require_clean_tree()
    ours, plain = (recording.in_a_process(__file__, kobart, train, name) for name in ("ours", "plain"))
    rates = ours["tokens_per_second"], plain["tokens_per_second"]
    what = "Seq2SeqTrainer, batches of 8 as they come"
    command = "python benchmarks/full_finetune.py KOBART TRAIN"
    recording.record(
        "full_finetune",
        [recording.row("koBART, 8 rows a step", "real tokens/s", *rates, what, ours["peak_gib"], command)],
    )


def measure(side: str, kobart: Path, train: Path) -> dict[str, float]:
    """Real tokens a second, and peak memory."""
    torch.manual_seed(0)
    tokenizer = read_tokenizer(kobart, kobart)
    loaded = Loaded(
        AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(kobart), dtype=torch.float32),
        tokenizer,
        PromptTokenizer(tokenizer, "dialogue", 1024),
        choose("bf16"),
    )
    params = read_yaml(Path("params.yaml"))
    dialogues = read_dialogues(train, with_summary=True)
    prompts = [build(row, PromptParams(**params["prompts"]), for_training=True) for row in dialogues]
    rows = seq2seq_rows(prompts[: STEPS * ROWS], loaded.prompt_tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = {"ours": ours, "plain": plain}[side](loaded, rows, params, scratch)
        clock = Clock(skip=SKIPPED)
        trainer.training_step = counting(trainer, clock, real_tokens)
        trainer.add_callback(clock)
        trainer.train()
    return {"tokens_per_second": clock.tokens / clock.seconds, "peak_gib": gpu.peak_memory_gib()}


def real_tokens(inputs: dict[str, Any]) -> int:
    return int(inputs["attention_mask"].sum() + (inputs["labels"] != IGNORED).sum())


def ours(loaded: Loaded, rows: Rows, params: dict[str, Any], scratch: str) -> Any:
    """The trainer of the stage `train`, as it comes."""
    config = TrainingConfig.model_validate(
        {
            "model": ModelSpec(weights="./kobart", method="full", dtype="bf16", prompt="dialogue"),
            "lora": None,
            "quantization": None,
            "training": {**params["training"], "epochs": 1, "effective_batch_size": ROWS, "learning_rate": 5e-5},
            "seed": 0,
        }
    )
    trainer = seq2seq.trainer(config, loaded, rows, rows, Path(scratch), [])
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    return trainer


def plain(loaded: Loaded, rows: Rows, params: dict[str, Any], scratch: str) -> Any:
    """transformers' own, as its documentation has it."""
    return Seq2SeqTrainer(
        model=loaded.model,
        args=Seq2SeqTrainingArguments(
            output_dir=scratch,
            num_train_epochs=1,
            per_device_train_batch_size=ROWS,
            learning_rate=5e-5,
            bf16=True,
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=Dataset.from_list(rows.rows),
        data_collator=DataCollatorForSeq2Seq(loaded.tokenizer, model=loaded.model),
        processing_class=loaded.tokenizer,
    )


if __name__ == "__main__":
    main()
