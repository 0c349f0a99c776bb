"""Inference of the true shape of Llama-3.2-3B with random weights and real lengths: ours beside others.

    python benchmarks/generation.py LENGTHS FOLDER
    VLLM=/path/to/site-packages python benchmarks/generation.py LENGTHS FOLDER
    python benchmarks/generation.py LENGTHS FOLDER '{"side": "ours", "search": "greedy", "profile": true}'

On a GPU. LENGTHS and FOLDER as in benchmarks/training.py; where FOLDER has a folder `tokenizer`, Llama-3's, the script
guard is made for it, else there is none. Random weights never end a summary, so each is made to end where the real one
does. Each side runs in a process of its own, three times over all dialogues, of which the best counts: the first
compiles kernels. vLLM (0.26, its engine in the process, else with its defaults) forgets all prompts after each.

The third form measures one side and prints which kernels take the time. It knows `"shape": "llama_8b"` or
`"qwen3_14b"`, `"four_bits": true`, `"tokens": 128` for summaries of that many tokens each, and `"cap": 23.0`, in GiB.
"""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

if '"side": "vllm"' in sys.argv[-1]:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

import recording
import torch
from training import CAP_GIB, four_bits, random_weights
from transformers import AutoModelForCausalLM, AutoTokenizer

from yoyak.core import gpu
from yoyak.core.limits import LimitsParams
from yoyak.core.params import read_yaml
from yoyak.data.dialogues import read_dialogues
from yoyak.inference import decoding, sampling
from yoyak.inference.decoding import Request
from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import GeneratedTokens
from yoyak.inference.script_guard import ScriptGuard

END = 128009
OLD_ROWS, OLD_BATCH, OLD_BEAMS = 24, 4, 4
SHAPE = "llama_3b"
PASSES = 3
SEARCHES = {"greedy": {"search": "greedy", "candidates": 1}, "8 candidates": {"search": "sample", "candidates": 8}}
DRAWS = {"temperature": 0.7, "top_k": 50, "top_p": 0.9}


def main() -> None:
    lengths, folder, *side = sys.argv[1:]
    if side:
        print(json.dumps(measure(json.loads(side[0]), json.loads(Path(lengths).read_text()), Path(folder))))
        return
    recording.require_clean_tree()
    site = os.environ.get("VLLM")

    def run(which: str, **options: Any) -> dict[str, float]:
        environment = {**os.environ, "PYTHONPATH": f"{site}:benchmarks:src"} if which == "vllm" else None
        arguments = json.dumps({"side": which, **options})
        result: dict[str, float] = recording.in_a_process(__file__, lengths, folder, arguments, environment=environment)
        print(arguments, result, flush=True)
        return result

    old = None if site else run("old")
    rows = []
    for search, options in SEARCHES.items():
        for cap in ({}, {"cap": CAP_GIB}):
            mine = run("ours", **options, **cap)
            other = old or run("vllm", **options, **cap)
            whose = f"NF4, batches of {OLD_BATCH}, {OLD_BEAMS} beams" if old else "vLLM 0.26.0"
            rates = mine["dialogues_per_second"], other["dialogues_per_second"]
            name = f"{search}, {CAP_GIB:g} GiB" if cap else search
            command = "python benchmarks/generation.py LENGTHS FOLDER"
            rows.append(recording.row(name, "dialogues/s", *rates, whose, mine["used_gib"], command))
    recording.record("generation_vllm" if site else "generation", rows)


def measure(options: dict[str, Any], lengths: list[tuple[int, int]], folder: Path) -> dict[str, float]:
    """Dialogues a second of one side, and what the card had in use at its end, PyTorch's reserve and the driver's own
    included."""
    base = random_weights(options.pop("shape", SHAPE), folder)
    if tokens := options.pop("tokens", None):
        lengths = [(prompt, tokens) for prompt, _ in lengths]
    side = {"old": old_recipe, "ours": ours, "vllm": vllm}[options.pop("side")]
    rate = side(base, lengths, options)
    free, total = torch.cuda.mem_get_info()
    return {"dialogues_per_second": rate, "used_gib": (total - free) / 2**30}


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
    """With the defaults of `params.yaml`."""
    profiled, cap = options.pop("profile", False), options.pop("cap", None)
    if cap:
        gpu.limit(LimitsParams(gpu_gib=cap))
    model = four_bits(base).eval() if options.pop("four_bits", False) else merged(base)
    tokenizer = base.parent / "tokenizer"
    guard = guard_of(tokenizer, model) if tokenizer.exists() else None
    seconds = [decode_all(model, guard, lengths, options) for _ in range(PASSES)]
    if profiled:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            decode_all(model, guard, lengths, options)
        print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=30, max_name_column_width=70))
    return len(lengths) / min(seconds)


def vllm(base: Path, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    from vllm import LLM, SamplingParams

    cap, count = options.pop("cap", None), options["candidates"]
    total = torch.cuda.get_device_properties(0).total_memory
    llm = LLM(
        model=str(base),
        skip_tokenizer_init=True,
        dtype="bfloat16",
        max_model_len=2048,
        gpu_memory_utilization=cap * 2**30 / total if cap else 0.85,
    )
    prompts, wanted = prompts_of(lengths)
    rows = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
    draws = DRAWS if count > 1 else {"temperature": 0.0}
    params = [
        SamplingParams(n=count, **draws, ignore_eos=True, max_tokens=wanted[row], detokenize=False) for row in rows
    ]
    seconds = []
    for _ in range(PASSES):
        llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = llm.generate([{"prompt_token_ids": prompts[row]} for row in rows], params, use_tqdm=False)
        seconds.append(time.perf_counter() - started)
        written = sum(len(each.token_ids) for output in outputs for each in output.outputs)
        assert written == count * sum(wanted)
    return len(lengths) / min(seconds)


def merged(base: Path) -> Any:
    """In bf16, as the stage `infer` loads weights and adapter."""
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16, device_map={"": 0}).eval()


def decode_all(model: Any, guard: ScriptGuard | None, lengths: list[tuple[int, int]], options: dict[str, Any]) -> float:
    """Seconds, the longest prompts first."""
    defaults = read_yaml(Path("params.yaml"))["generation"]
    params = GenerationParams.model_validate(defaults | DRAWS | {"max_new_tokens": 512} | options)
    together = min(params.batch_size, 1024 // params.candidates)
    texts = [row.dialogue for row in read_dialogues(Path("data/sample/train.csv"), with_summary=True)]
    prompts, wanted = prompts_of(lengths)
    rows = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
    torch.cuda.synchronize()
    started = time.perf_counter()
    request = request_for(
        params, model, guard, [texts[row % len(texts)] for row in rows], [wanted[row] for row in rows]
    )
    done = decoding.decode([model], [[prompts[row] for row in rows]], together, request)
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
