"""What `SummaryLossTrainer` buys over TRL's `SFTTrainer`: one epoch of the same short rows, on this machine.

    python benchmarks/summary_loss.py

Needs `make weights`. Each side trains once, in a process of its own.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from yoyak import machine, weights
from yoyak.models import load_for_training
from yoyak.preflight import read_params, read_splits, resolve
from yoyak.prompts import build
from yoyak.training import qlora
from yoyak.training.memory import CPU_ROWS, Plan
from yoyak.training.rows import Rows, causal_rows

MODEL = "gemma3_270m"
ROWS = 16
RESULT = Path("benchmarks/results/summary_loss.json")


def main() -> None:
    if side := sys.argv[1:]:
        print(json.dumps(measure(side[0])))
        return
    if subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout:
        sys.exit("error: uncommitted changes; commit them, so that the figures belong to a commit")
    report(in_a_process("ours"), in_a_process("trl"))


def in_a_process(side: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, side], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


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
    ratio = ours["tokens_per_second"] / trl["tokens_per_second"]
    versions = machine.describe()
    name = f"SFTTrainer's own loss, TRL {versions['trl']}"
    table = Table("", "tokens/s", "loss", "peak GiB", title=f"{MODEL}, NF4, {ROWS} rows, {versions['device']}")
    for label, run in (("SummaryLossTrainer", ours), (name, trl)):
        table.add_row(label, f"{run['tokens_per_second']:.1f}", f"{run['loss']:.3f}", f"{run['peak_gib']:.2f}")
    Console().print(table, f"ratio {ratio:.2f}")
    row = {
        "name": "summary_loss",
        "device": versions["device"],
        "unit": "real tokens/s",
        "ours": round(ours["tokens_per_second"], 1),
        "baseline": round(trl["tokens_per_second"], 1),
        "baseline_name": name,
        "ratio": round(ratio, 2),
        "peak_gib": round(ours["peak_gib"], 2),
        "commit": machine.commit(),
        "command": "python benchmarks/summary_loss.py",
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps([row], indent=2) + "\n")


if __name__ == "__main__":
    main()
