"""QLoRA training of true shapes with random weights and real lengths: ours beside the recipes that others use.

    python benchmarks/training.py LENGTHS FOLDER 3b
    python benchmarks/training.py LENGTHS FOLDER 8b
    python benchmarks/training.py LENGTHS FOLDER 14b
    UNSLOTH=/path/to/site-packages python benchmarks/training.py LENGTHS FOLDER 3b
    python benchmarks/training.py LENGTHS FOLDER 8b '{"side": "ours", "shape": "llama_8b", "profile": true}'

On a GPU. LENGTHS is a JSON list of pairs, tokens of prompt and summary of each row. FOLDER has room for the weights (6,
16 and 30 GB, made there once) and may hold a folder `tokenizer`, which Unsloth looks at and nobody else. Each side
trains in a process of its own, and what it measured is kept in FOLDER, so that a run that was cut off goes on. The
memory of some sides is capped to that of a 24 GB card. Rates are of real tokens, padding not counted, and of steps
after the first ones, in which kernels are compiled. The last form measures one side, ours, and prints which kernels
take the time of one more step; it knows `"cap": 23.0`, in GiB, and `"long_every": 32`.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Unsloth patches the others, and must come before them.
if '"side": "unsloth"' in sys.argv[-1]:
    os.environ |= {"UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_RETURN_LOGITS": "0", "HF_HUB_OFFLINE": "1"}
    import unsloth  # noqa: F401

import recording
import torch
from transformers import TrainerCallback

from yoyak.core import repository
from yoyak.core.environment import describe, device

SHAPES: dict[str, dict[str, Any]] = {
    "llama_3b": {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "llama_8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "qwen3_14b": {
        "model_type": "qwen3",
        "hidden_size": 5120,
        "intermediate_size": 17408,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
}
NAMED = {"3b": "llama_3b", "8b": "llama_8b", "14b": "qwen3_14b"}
CAP_GIB = 23.0
LONGEST = 1224
"""Tokens of a row, prompt and summary: the longest prompt that the defaults allow, and a long summary."""
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    lengths, folder, what, *side = sys.argv[1:]
    if side:
        print(json.dumps(measure(json.loads(side[0]), json.loads(Path(lengths).read_text()), Path(folder))))
        return

    recording.require_clean_tree()

    def run(which: str, **options: Any) -> dict[str, float]:
        site = os.environ.get("UNSLOTH") if which == "unsloth" else None
        environment = {**os.environ, **({"PYTHONPATH": f"{site}:benchmarks:src"} if site else {})}
        arguments = json.dumps({"side": which, "shape": NAMED[what], **options})
        key = repr((arguments, Path(lengths).read_bytes(), describe(), repository.commit()))
        kept = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if not kept.exists():
            measured = recording.in_a_process(__file__, lengths, folder, what, arguments, environment=environment)
            print(arguments, measured, flush=True)
            kept.write_text(json.dumps(measured))
        result: dict[str, float] = json.loads(kept.read_text())
        return result

    def row(name: str, mine: dict[str, float], other: dict[str, float], whose: str) -> dict[str, Any]:
        figures = mine["tokens_per_second"], other["tokens_per_second"]
        command = f"python benchmarks/training.py LENGTHS FOLDER {what}"
        return recording.row(name, "real tokens/s", *figures, whose, mine["peak_gib"], command)

    recording.record(f"training_{what}", {"3b": of_3b, "8b": of_a_card, "14b": of_a_card}[what](run, row))


Run = Callable[..., dict[str, float]]
Row = Callable[..., dict[str, Any]]
OLD = "batches of 8, padded, checkpointing, all logits"


def of_3b(run: Run, row: Row) -> list[dict[str, Any]]:
    old, trl = run("old"), run("trl")
    ours = run("ours")
    capped, small, dropout = run("ours", cap=CAP_GIB), run("ours", rows=8), run("ours", dropout=0.05)
    rows = [
        row("64 rows a step", ours, old, OLD),
        row(f"64 rows a step, {CAP_GIB:g} GiB", capped, old, OLD),
        row("8 rows a step", small, old, OLD),
        row("64 rows a step", ours, trl, "SFTTrainer as documented for QLoRA"),
        row("64 rows a step, LoRA dropout 0.05", dropout, ours, "ours without dropout"),
    ]
    if "UNSLOTH" not in os.environ:
        return rows
    unsloth, uncheckpointed = "Unsloth with its checkpointing", "Unsloth without checkpointing"
    peer = run("unsloth", rows=64, checkpointing=False, most=30_000)
    capped_peer = run("unsloth", rows=64, checkpointing="unsloth", cap=CAP_GIB)
    small_peer = run("unsloth", rows=8, checkpointing=False)
    return [
        *rows,
        row("64 rows a step", ours, peer, uncheckpointed),
        row(f"64 rows a step, {CAP_GIB:g} GiB", capped, capped_peer, unsloth),
        row("8 rows a step", small, small_peer, uncheckpointed),
    ]


def of_a_card(run: Run, row: Row) -> list[dict[str, Any]]:
    ours, old = run("ours", cap=CAP_GIB, long_every=32), run("old", rows=1, cap=CAP_GIB, long_every=32)
    return [row(f"64 rows a step, two of {LONGEST} tokens, {CAP_GIB:g} GiB", ours, old, "the same, batches of 1")]


def measure(options: dict[str, Any], lengths: list[tuple[int, int]], folder: Path) -> dict[str, float]:
    """Real tokens a second and peak memory of one side."""
    base = random_weights(options["shape"], folder)
    # Not before: in 16 bits, as they are made, some do not fit.
    if cap := options.get("cap"):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / total)
    side = {"old": old_recipe, "trl": documented_trl, "unsloth": unsloth_loop, "ours": ours}[options["side"]]
    rate = side(base, lengths, options)
    return {"tokens_per_second": rate, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def random_weights(shape: str, folder: Path) -> Path:
    """A folder with a model of that shape, and a tokenizer, which nothing here asks for a token."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from yoyak.training.from_scratch import _learned_tokenizer

    path = folder / shape
    if not (path / "model.safetensors.index.json").exists() and not (path / "model.safetensors").exists():
        known = {"model_type": "llama", "rms_norm_eps": 1e-5, "bos_token_id": 128000, "eos_token_id": 128009}
        config = AutoConfig.for_model(**known | SHAPES[shape])
        with torch.device(device()):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        _learned_tokenizer(["가나다"], 300).save_pretrained(path)
        if (folder / "tokenizer").exists():
            shutil.copytree(folder / "tokenizer", path, dirs_exist_ok=True)
        model.save_pretrained(path)
        del model
        torch.cuda.empty_cache()
    return path


def rows_of(lengths: list[tuple[int, int]], count: int, long_every: int | None = None) -> list[dict[str, list[int]]]:
    """Random tokens, labels on the summary's. No row comes twice if there are enough; every so manieth is `LONGEST`."""
    draw = random.Random(0)
    drawn = draw.sample(lengths, count) if count <= len(lengths) else draw.choices(lengths, k=count)
    if long_every is not None:
        drawn[::long_every] = [(LONGEST - 160, 160)] * len(drawn[::long_every])
    rows = []
    for prompt, summary in drawn:
        ids = [draw.randrange(128000) for _ in range(prompt + summary)]
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def four_bits(base: Path) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa"
    )


def lora(dropout: float) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=16, lora_alpha=32, lora_dropout=dropout, bias="none", task_type="CAUSAL_LM", target_modules=ALL_LINEAR
    )


def old_recipe(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """As QLoRA is taught: norms and embeddings in fp32, all activations recomputed, rows padded as they come, logits
    everywhere, a paged optimiser."""
    import bitsandbytes
    from peft import get_peft_model, prepare_model_for_kbit_training

    model = prepare_model_for_kbit_training(
        four_bits(base), use_gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    model.config.use_cache = False
    model = get_peft_model(model, lora(0.05)).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = bitsandbytes.optim.PagedAdamW32bit(trained, lr=2e-5)
    size, steps = options.get("rows", 8), 20 if options.get("rows", 8) > 1 else 80
    rows, clock, tokens = rows_of(lengths, steps * size, options.get("long_every")), 0.0, 0
    for step in range(steps):
        if step == 3:
            torch.cuda.synchronize()
            clock, tokens = time.perf_counter(), 0
        batch = rows[step * size : (step + 1) * size]
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(**padded(batch)).loss
        loss.backward()
        if step % 8 == 7:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            optimiser.zero_grad()
        tokens += sum(len(row["input_ids"]) for row in batch)
    torch.cuda.synchronize()
    return tokens / (time.perf_counter() - clock)


def documented_trl(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """TRL's trainer as its documentation has it for QLoRA: packed rows, chunked loss, activations recomputed."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    steps, size = 6, 64
    rows = rows_of(lengths, 1000)
    tokens = sum(len(row["input_ids"]) for row in rows)
    masked = [
        {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
        for row in rows
    ]
    with tempfile.TemporaryDirectory() as scratch:
        packed = -(-tokens // 2048)
        arguments = SFTConfig(
            output_dir=scratch,
            max_steps=steps,
            per_device_train_batch_size=8,
            # About 64 rows a step.
            gradient_accumulation_steps=max(1, round(size / (len(rows) / packed) / 8)),
            packing=True,
            max_length=2048,
            gradient_checkpointing=True,
            bf16=True,
            learning_rate=2e-5,
            logging_steps=1000,
            save_strategy="no",
            report_to=[],
        )
        trainer = SFTTrainer(
            model=four_bits(base),
            args=arguments,
            train_dataset=Dataset.from_list(masked),
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=lora(options.get("dropout", 0.0)),
        )
        clock = Clock(skip=2)
        trainer.add_callback(clock)
        trainer.train()
        # The packs are full but the last: nearly all of their tokens are real.
        per_step = 2048 * 8 * arguments.gradient_accumulation_steps * tokens / (packed * 2048)
        return clock.steps * per_step / clock.seconds


def unsloth_loop(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """Unsloth's model, rows sorted by length, a step a batch, on a loop as plain as can be."""
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        str(base), max_seq_length=2048, load_in_4bit=True, dtype=torch.bfloat16, local_files_only=True
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=32,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing=options["checkpointing"],
        target_modules=ALL_LINEAR,
    )
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=2e-5, fused=True)
    model.train()
    size = options["rows"]
    steps, skipped = (7, 2) if size > 8 else (40, 5)
    rows = sorted(rows_of(lengths, steps * size), key=lambda row: len(row["input_ids"]))
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    random.Random(1).shuffle(batches)
    clock, tokens = 0.0, 0
    for step, batch in enumerate(batches):
        if step == skipped:
            torch.cuda.synchronize()
            clock, tokens = time.perf_counter(), 0
        for part in parts(batch, options.get("most")):
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(**padded(part)).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        tokens += sum(len(row["input_ids"]) for row in batch)
    torch.cuda.synchronize()
    return tokens / (time.perf_counter() - clock)


def parts(batch: list[dict[str, list[int]]], most: int | None) -> list[list[dict[str, list[int]]]]:
    """The batch, or its halves where it has more than `most` tokens, padding counted: 64 of the longest rows do not fit
    where all activations are kept."""
    if most is None or max(len(row["input_ids"]) for row in batch) * len(batch) <= most:
        return [batch]
    half = len(batch) // 2
    return [*parts(batch[:half], most), *parts(batch[half:], most)]


def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """One batch as wide as its longest row."""
    width = max(len(row["input_ids"]) for row in rows)

    def tensor(lists: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([each + [fill] * (width - len(each)) for each in lists], device="cuda")

    return {
        "input_ids": tensor([row["input_ids"] for row in rows], 0),
        "labels": tensor([row["labels"] for row in rows], -100),
        "attention_mask": tensor([[1] * len(row["input_ids"]) for row in rows], 0),
    }


def ours(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """The trainer of the stage `train`, as it comes."""
    rate, _ = rate_and_losses(base, lengths, options)
    return rate


def rate_and_losses(
    base: Path, lengths: list[tuple[int, int]], options: dict[str, Any], ranks: Any = None
) -> tuple[float, list[float]]:
    """Of all ranks together, where there are some; and the loss of each step."""
    from transformers import AutoTokenizer

    from yoyak.core.params import read_yaml
    from yoyak.modeling.loading import Loaded, quantised
    from yoyak.modeling.precision import choose
    from yoyak.modeling.spec import LoraParams, ModelSpec, QuantizationParams
    from yoyak.training import qlora, recomputing, sharding
    from yoyak.training.params import TrainingConfig
    from yoyak.training.ranks import Ranks
    from yoyak.training.rows import Rows

    size, steps, warm = options.get("rows", 64), 12 if options.get("rows", 64) > 8 else 60, 4
    if options.get("cap"):
        # By then it is known whether activations are better recomputed.
        warm = 2 * (recomputing.WARM_UP + recomputing.TIMED)
        steps = max(steps, warm + 10)
    rows = rows_of(lengths, size * steps, options.get("long_every"))
    spec = ModelSpec(weights=str(base), method="lora", dtype="bf16", prompt="structured")
    quantization = QuantizationParams(load_in_4bit=options.get("bits", 4) == 4, type="nf4", double=True)
    training = read_yaml(Path("params.yaml"))["training"]
    config = TrainingConfig.model_validate(
        {
            "model": spec,
            "lora": LoraParams(
                r=16, alpha=32, dropout=options.get("dropout", 0.0), bias="none", target_modules=ALL_LINEAR
            ),
            "quantization": quantization,
            "training": {**training, "epochs": 1, "effective_batch_size": size, "learning_rate": 2e-5},
            "seed": 0,
        }
    )
    # A run this short would not be compiled.
    qlora.COMPILED_FROM = 0 if options.get("compiled", True) else 10**12
    ranks = ranks or Ranks()
    with tempfile.TemporaryDirectory() as scratch, ranks.together():
        # Not through `load_for_training`, which would compare the weights with their pin, byte by byte.
        loading = choose("bf16"), quantization, base
        model = sharding.load_part(*loading, base.name) if ranks.sharded else quantised(*loading)
        tokenizer = AutoTokenizer.from_pretrained(base)
        split = Rows(rows, [str(number) for number in range(len(rows))], 0, sum(len(row["input_ids"]) for row in rows))
        trainer = qlora.trainer(config, Loaded(model, tokenizer, None, choose("bf16")), split, split, Path(scratch), [])
        trainer.args.eval_strategy = trainer.args.save_strategy = "no"
        trainer.args.load_best_model_at_end = False
        clock = Clock(skip=warm)
        trainer.training_step = counting(trainer, clock, trainer.real_tokens)
        trainer.add_callback(clock)
        if options.get("profile"):
            trainer.add_callback(Profile(after=clock.skip))
        trainer.ranks = ranks
        ranks.start_alike(trainer.model)
        trainer.train()
        print(trainer.ran_with, trainer.budget.describe(), file=sys.stderr)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return clock.tokens / clock.seconds, losses


class Clock(TrainerCallback):
    """Times the steps after the first ones."""

    def __init__(self, skip: int) -> None:
        self.skip, self.steps, self.seconds, self.started = skip, 0, 0.0, 0.0
        self.tokens = 0
        """Of the timed steps, where somebody counts them."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if device() == "cuda" and state.global_step in (self.skip, state.max_steps):
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step == self.skip:
            self.started, self.tokens = now, 0
        elif state.global_step > self.skip:
            self.steps, self.seconds = state.global_step - self.skip, now - self.started


class Profile(TrainerCallback):
    """Prints what the GPU did in the step after so many."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.after:
            self.profile.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.after + 1:
            torch.cuda.synchronize()
            self.profile.stop()
            averages = self.profile.key_averages()
            print(averages.table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=70), file=sys.stderr)


def counting(trainer: Any, clock: Clock, real_tokens: Callable[[Any], int]) -> Callable[..., Any]:
    """The trainer's step, its tokens added to the clock's."""
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], labels: Any = None) -> Any:
        clock.tokens += real_tokens(inputs)
        return step(model, inputs, labels)

    return counted


if __name__ == "__main__":
    main()
