"""Inference of the true shape of Llama-3.2-3B with random weights and real lengths: ours beside the recipe before it.

    python benchmarks/generation.py LENGTHS FOLDER

On a GPU. LENGTHS and FOLDER as in benchmarks/training.py; FOLDER has a folder `tokenizer`, Llama-3's, which the script
guard is made for. Random weights never end a summary, so each is made to end where the real one does. Each side runs in
a process of its own.
"""

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import recording
import torch
from training import CAP_GIB, four_bits, random_weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from yoyak.core.environment import device
from yoyak.data.dialogues import read_dialogues
from yoyak.inference import decoding, sampling
from yoyak.inference.decoding import Request
from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import GeneratedTokens
from yoyak.inference.script_guard import ScriptGuard

END = 128009
OLD_ROWS, OLD_BATCH, OLD_BEAMS = 24, 4, 4
SHAPE = "llama_3b"
DEFAULT = {"search": "sample", "candidates": 8, "batch_size": 128}


def main() -> None:
    lengths, folder, *side = sys.argv[1:]
    if side:
        print(json.dumps(measure(json.loads(side[0]), json.loads(Path(lengths).read_text()), Path(folder))))
        return
    recording.require_clean_tree()

    def run(which: str, **options: Any) -> dict[str, float]:
        arguments = json.dumps({"side": which, **options})
        result: dict[str, float] = recording.in_a_process(__file__, lengths, folder, arguments)
        print(arguments, result, flush=True)
        return result

    def row(name: str, mine: dict[str, float], other: dict[str, float], whose: str) -> dict[str, Any]:
        rates = mine["dialogues_per_second"], other["dialogues_per_second"]
        command = "python benchmarks/generation.py LENGTHS FOLDER"
        return recording.row(name, "dialogues/s", *rates, whose, mine["peak_gib"], command)

    greedy = {"search": "greedy", "batch_size": 256}
    old, whose = run("old"), f"NF4, batches of {OLD_BATCH}, {OLD_BEAMS} beams"
    recording.record(
        "generation",
        [
            row("greedy, 256 together", run("ours", **greedy), old, whose),
            row("8 candidates, 32 together", run("ours", **DEFAULT), old, whose),
            row(f"8 candidates, 32 together, {CAP_GIB:g} GiB", run("ours", **DEFAULT, cap=CAP_GIB), old, whose),
        ],
    )


def measure(options: dict[str, Any], lengths: list[tuple[int, int]], folder: Path) -> dict[str, float]:
    """Dialogues a second and peak memory of one side."""
    options = dict(options)
    if cap := options.pop("cap", None):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(cap * 2**30 / total)
    base = random_weights(SHAPE, folder)
    side = {"old": old_recipe, "ours": ours}[options.pop("side")]
    rate = side(base, lengths, options)
    return {"dialogues_per_second": rate, "peak_gib": torch.cuda.max_memory_allocated() / 2**30}


def prompts_of(lengths: list[tuple[int, int]]) -> tuple[list[list[int]], list[int]]:
    """Random tokens; and how many tokens the summary of each has, its end counted."""
    draw = random.Random(0)
    return [[draw.randrange(128000) for _ in range(prompt)] for prompt, _ in lengths], [most for _, most in lengths]


def old_recipe(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """4-bit weights, batches as they come, beams, penalties on every step."""
    model = four_bits(base).eval()
    prompts, wanted = prompts_of(lengths[: OLD_ROWS + OLD_BATCH])
    started = 0.0
    for start in range(0, len(prompts), OLD_BATCH):
        if start == OLD_BATCH:
            torch.cuda.synchronize()
            started = time.perf_counter()
        rows = slice(start, start + OLD_BATCH)
        width = max(map(len, prompts[rows]))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts[rows]], device="cuda")
        mask = torch.tensor(
            [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts[rows]], device="cuda"
        )
        most = max(wanted[rows])
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            min_new_tokens=most,
            num_beams=OLD_BEAMS,
            do_sample=False,
            no_repeat_ngram_size=3,
            repetition_penalty=1.1,
            pad_token_id=0,
            eos_token_id=END,
        )
    torch.cuda.synchronize()
    return OLD_ROWS / (time.perf_counter() - started)


def ours(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """The best of three passes, as the peers are measured: the first compiles kernels."""
    model, profiled = merged(base), options.pop("profile", False)
    tokenizer = base.parent / "tokenizer"
    guard = guard_of(tokenizer, model) if tokenizer.exists() else None
    seconds = [decode_all(model, guard, lengths, options) for _ in range(3)]
    print("seconds of three passes:", *(f"{each:.2f}" for each in seconds), flush=True)
    if profiled:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            decode_all(model, guard, lengths, options)
        print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=70))
    return len(lengths) / min(seconds)


def merged(base: Path) -> Any:
    """In bf16, as the stage `infer` loads weights and adapter."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map={"": device()}).eval()


def decode_all(model: Any, guard: ScriptGuard | None, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """Seconds, the longest prompts first."""
    params = GenerationParams(max_new_tokens=512, temperature=0.7, top_p=0.9, **options)
    texts = [row.dialogue for row in read_dialogues(Path("data/sample/train.csv"), with_summary=True)]
    prompts, wanted = prompts_of(lengths)
    rows = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
    torch.cuda.synchronize()
    started = time.perf_counter()
    request = request_for(
        params, model, guard, [texts[row % len(texts)] for row in rows], [wanted[row] for row in rows]
    )
    done = decoding.decode([model], [[prompts[row] for row in rows]], params.batch_size, request)
    assert sum(1 for _ in done) == len(rows)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def request_for(params: Any, model: Any, guard: ScriptGuard | None, texts: list[str], wanted: list[int]) -> Request:
    """As the stage `infer` asks, but with the end token where the real summary ends and nowhere else."""
    forbidden = (lambda rows: guard.forbidden([texts[row] for row in rows])) if guard else None
    chooser = sampling.Chooser(params, [END], model.device, range(len(texts)), forbidden)

    def choose(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
        logits[..., END] = -torch.inf
        last = generated.counts + 1 == generated.facts["wanted"]
        return chooser.choose(logits, generated).where(~last[:, None], END)

    def facts(rows: list[int]) -> dict[str, torch.Tensor]:
        return chooser.facts(rows) | {"wanted": torch.tensor([wanted[row] for row in rows], device=model.device)}

    return Request(params.candidates, params.max_new_tokens, [END], choose, facts)


def guard_of(tokenizer: Path, model: Any) -> ScriptGuard:
    return ScriptGuard(AutoTokenizer.from_pretrained(tokenizer), [END], model.config.vocab_size, model.device)


if __name__ == "__main__":
    main()
