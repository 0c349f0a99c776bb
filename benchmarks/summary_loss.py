"""What `SummaryLossTrainer` buys over TRL's `SFTTrainer`: one epoch of the same short rows, on this machine.

    python benchmarks/summary_loss.py

Needs `make weights`. Each side trains once, in a process of its own.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recording

from yoyak import machine, weights
from yoyak.models import load_for_training
from yoyak.preflight import read_params, read_splits, resolve
from yoyak.prompts import build
from yoyak.training import qlora
from yoyak.training.memory import CPU_ROWS, Plan
from yoyak.training.rows import Rows, causal_rows

MODEL = "gemma3_270m"
ROWS = 16


def main() -> None:
    if side := sys.argv[1:]:
        print(json.dumps(measure(side[0])))
        return
    recording.require_clean_tree()
    report(*(recording.in_a_process(__file__, side) for side in ("ours", "trl")))


def measure(side: str) -> dict[str, float]:
    """Real tokens/s over one epoch, mean loss, and the process's peak memory."""
    params = read_params(Path("params.yaml"))
    job = resolve(params, MODEL, weights.pin(params.models[MODEL]["weights"], MODEL)).training
    loaded = load_for_training(job.model, job.quantization, [])
    prompts = [build(row, params.prompts, for_training=True) for row in read_splits(params.data)["train"]]
    rows = causal_rows(sorted(prompts, key=lambda prompt: len("".join(prompt.turns)))[:ROWS], loaded.encoder)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = ours_or_trl(side, job, loaded, rows, Path(scratch))
        started = time.perf_counter()
        loss = trainer.train().training_loss
        seconds = time.perf_counter() - started
    return {"tokens_per_second": rows.tokens / seconds, "loss": loss, "peak_gib": machine.peak_memory_gib()}


def ours_or_trl(side: str, job: Any, loaded: Any, rows: Rows, scratch: Path) -> Any:
    """Our trainer, or TRL's with its own collator and loss; the rest of the arguments the same."""
    ours = qlora.trainer(job, loaded, rows, rows, Plan(CPU_ROWS, False, "benchmark"), scratch, ROWS // CPU_ROWS, [])
    ours.args.per_device_train_batch_size = CPU_ROWS
    ours.args.gradient_accumulation_steps = 1
    # Training alone is measured.
    ours.args.eval_strategy = ours.args.save_strategy = "no"
    ours.args.load_best_model_at_end = False
    if side == "ours":
        return ours
    # The model already carries the adapters, in fp32 as ours.
    return qlora.SFTTrainer(
        model=ours.model, args=ours.args, train_dataset=ours.train_dataset, processing_class=loaded.tokenizer
    )


def report(ours: dict[str, float], trl: dict[str, float]) -> None:
    if abs(ours["loss"] - trl["loss"]) > 0.01:
        sys.exit(f"error: the losses differ: {ours['loss']} and {trl['loss']}")
    name = f"SFTTrainer's own loss, TRL {machine.describe()['trl']}"
    speeds = ours["tokens_per_second"], trl["tokens_per_second"]
    command = "python benchmarks/summary_loss.py"
    recording.record(
        "summary_loss",
        [recording.row("summary_loss", "real tokens/s", *speeds, name, ours["peak_gib"], command)],
    )


if __name__ == "__main__":
    main()
