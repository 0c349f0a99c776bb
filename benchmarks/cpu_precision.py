"""QLoRA training on a CPU: in what the machine computes fast, beside what `params.yaml` asks for whatever the machine.

    python benchmarks/cpu_precision.py
    python benchmarks/cpu_precision.py --without-bf16

The shape of `gemma3_270m` with random weights, one optimiser step of eight rows as long as the sample's, in tokens of
Gemma's tokenizer. The other side is the trainer of commit d18a2ae: bf16 on every CPU, rows packed behind a mask. It
trains on one row where the CPU has no bf16, a step of eight would take it half an hour. The second command masks a
CPU's bf16 by switching oneDNN off, for both sides. Each side runs in a process of its own; rates are of real tokens.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import recording
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast, set_seed

from yoyak.core import environment, gpu
from yoyak.core.params import read_yaml
from yoyak.modeling import precision
from yoyak.modeling.loading import Loaded, quantised
from yoyak.modeling.spec import LoraParams, ModelSpec, QuantizationParams
from yoyak.training import attention, qlora
from yoyak.training.from_scratch import _learned_tokenizer
from yoyak.training.params import TrainingConfig
from yoyak.training.rows import IGNORED, Rows

SHAPE: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
}
LENGTHS = ((150, 40), (180, 44), (166, 38), (140, 52), (210, 48), (160, 36), (175, 50), (147, 44))
"""Tokens of prompt and summary of each row."""
MASK = "--without-bf16"


def main() -> None:
    if sys.argv[1:2] == ["side"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    recording.require_clean_tree()
    masked = MASK in sys.argv
    options = [MASK] * masked
    ours = recording.in_a_process(__file__, "side", "ours", *options)
    before = recording.in_a_process(__file__, "side", "before", *options)
    name = "gemma3_270m's shape, a step of 8 rows" + ", oneDNN off" * masked
    command = " ".join(["python benchmarks/cpu_precision.py", *options])
    what = f"bf16, a mask ({before['rows']} rows)"
    row = recording.row(name, "real tokens/s", ours["rate"], before["rate"], what, ours["peak_gib"], command)
    recording.record("cpu_precision_masked" if masked else "cpu_precision", [row])


def measure(side: str, *options: str) -> dict[str, float]:
    """Real tokens a second of one step, and peak memory."""
    if MASK in options:
        torch.backends.mkldnn.set_flags(_enabled=False)
    rows_of_step = len(LENGTHS)
    if side == "before":
        rows_of_step = len(LENGTHS) if environment.cpu_has_bf16() else 1
        precision.choose = lambda asked: precision.Precision(asked, precision.ASKED_FOR)
        attention.use_best = lambda model: str(model.config._attn_implementation)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(Path(folder))
        trainer.create_optimizer_and_scheduler(1)
        # Threads, buffers and kernels are made by the first pass.
        step(trainer, [(8, 8)])
        seconds = step(trainer, LENGTHS[:rows_of_step])
    print(trainer.ran_with, file=sys.stderr)
    tokens = sum(prompt + summary for prompt, summary in LENGTHS[:rows_of_step])
    return {"rate": tokens / seconds, "rows": rows_of_step, "peak_gib": gpu.peak_memory_gib()}


def trainer_of(folder: Path) -> qlora.SummaryLossTrainer:
    """The stage's, of random weights."""
    set_seed(0)
    tokenizer: PreTrainedTokenizerFast = _learned_tokenizer(["#Person1#: 안녕하세요."], 300)
    save_random_weights(folder)
    defaults = read_yaml(Path("params.yaml"))
    quantization = QuantizationParams(**defaults["quantization"])
    config = TrainingConfig.model_validate(
        {
            "model": ModelSpec(weights=str(folder), method="lora", dtype="bf16", prompt="structured"),
            "lora": LoraParams(**defaults["lora"]),
            "quantization": quantization,
            "training": defaults["training"],
            "seed": 0,
        }
    )
    chosen = precision.choose("bf16")
    loaded = Loaded(quantised(chosen, quantization, folder), tokenizer, None, chosen)
    rows = Rows([row(*LENGTHS[0])], ["row"], 0, sum(LENGTHS[0]))
    return qlora.trainer(config, loaded, rows, rows, folder / "scratch", [])


def save_random_weights(folder: Path) -> None:
    AutoModelForCausalLM.from_config(Gemma3TextConfig(**SHAPE), dtype=torch.bfloat16).save_pretrained(folder)


def step(trainer: qlora.SummaryLossTrainer, lengths: Any) -> float:
    """Seconds of all micro-batches, forward and backward."""
    batch = trainer.data_collator([row(*each) for each in lengths])
    started = time.perf_counter()
    trainer.training_step(trainer.model, batch)
    return time.perf_counter() - started


def row(prompt: int, summary: int) -> dict[str, list[int]]:
    ids = [random.randrange(SHAPE["vocab_size"]) for _ in range(prompt + summary)]
    return {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:]}


if __name__ == "__main__":
    main()
