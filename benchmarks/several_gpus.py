"""Inference and QLoRA training of the shape of Llama-3.2-3B on 1, 2 … GPUs of a host, with random weights.

    python benchmarks/several_gpus.py LENGTHS FOLDER
    python benchmarks/several_gpus.py --smoke FOLDER

On all GPUs that are visible: one of them, and then twice as many each time. An inference and a training on one GPU run
side by side, so that the host has as much to do as with two. LENGTHS and FOLDER as in benchmarks/training.py. Each run
is a process of its own, which starts the others as the stages do. Random weights never end a summary, so each is made
to end where the real one does; there are `DIALOGUES`, so that many GPUs have work, too. The losses of the steps are
held to those of one GPU. With --smoke it is a tiny shape, by one and two processes on the CPU, and nothing is written.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import recording
import torch
from generation import guard_of, merged, prompts_of, request_for
from training import random_weights, rate_and_losses

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.limits import LimitsParams
from yoyak.core.workers import Work, Workers
from yoyak.data.dialogues import read_dialogues
from yoyak.inference import decoding
from yoyak.inference.params import GenerationParams
from yoyak.training.ranks import Ranks

DIALOGUES = 2_000
PASSES = 2
"""Of an inference; the first compiles kernels."""
SEARCH = {"search": "sample", "candidates": 8, "batch_size": 128}
STEP_ROWS = 64
SIDES = ("infer", "train")

Options = dict[str, Any]


def main() -> None:
    lengths, folder, *side = sys.argv[1:]
    smoke = lengths == "--smoke"
    if side:
        print(json.dumps(measure(json.loads(side[0]), lengths, Path(folder))))
        return
    if not smoke:
        recording.require_clean_tree()

    def run(only: int | None = None, **options: Any) -> Any:
        arguments = json.dumps(options)
        environment = None if only is None else os.environ | {"CUDA_VISIBLE_DEVICES": str(only)}
        result = recording.in_a_process(__file__, lengths, folder, arguments, environment=environment)
        print(arguments, {key: value for key, value in result.items() if key != "losses"}, flush=True)
        return result

    run(side="weights", gpus=1)
    rows = []
    with ThreadPoolExecutor(len(SIDES)) as side_by_side:
        running = [side_by_side.submit(run, only, side=side, gpus=1) for only, side in enumerate(SIDES)]
        ones = [each.result() for each in running]
    for side, one in zip(SIDES, ones, strict=True):
        for count in counts(smoke)[1:]:
            rows.append(row(side, run(side=side, gpus=count), one))
    if not smoke:
        recording.record("several_gpus", rows)


def counts(smoke: bool) -> list[int]:
    there = 2 if smoke else torch.cuda.device_count()
    return sorted({*(2**power for power in range(there.bit_length())), there})


def row(side: str, several: Options, one: Options) -> Options:
    if side == "infer":
        unit, detail = "dialogues/s", f"{SEARCH['candidates']} candidates"
    else:
        furthest = max(abs(mine / other - 1) for mine, other in zip(several["losses"], one["losses"], strict=True))
        differ = f"a step's loss differs by at most {100 * furthest:.3f} %"
        unit, detail = "real tokens/s", f"{STEP_ROWS} rows a step, {differ}"
    command = "python benchmarks/several_gpus.py LENGTHS FOLDER"
    name = f"{side} on {several['gpus']} GPUs, {detail}"
    return recording.row(name, unit, several["rate"], one["rate"], "one GPU", several["peak_gib"], command)


def lengths_in(path: str) -> list[tuple[int, int]]:
    """Tokens of prompt and summary."""
    draw = random.Random(0)
    if path == "--smoke":
        return [(draw.randrange(20, 60), draw.randrange(3, 20)) for _ in range(40)]
    return [(prompt, summary) for prompt, summary in json.loads(Path(path).read_text())]


def measure(options: Options, path: str, folder: Path) -> Options:
    """Rate and peak memory of one side."""
    shape = "tiny" if path == "--smoke" else "llama_3b"
    if options["side"] == "weights":
        return {"weights": str(random_weights(shape, folder))}
    gpus = gpu.allowed(LimitsParams(gpus=options["gpus"])) if path != "--smoke" else [""] * options["gpus"]
    assert len(gpus) == options["gpus"], f"{len(gpus)} GPUs are visible"
    side = {"infer": infer, "train": train}[options["side"]]
    return {"gpus": len(gpus), **side(lengths_in(path), folder / shape, gpus)}


def infer(lengths: list[tuple[int, int]], base: Path, gpus: list[str]) -> Options:
    """As the stage: this process has the first GPU, and deals the dialogues out."""
    gpu.use_one()
    draw = random.Random(0)
    lengths = sorted(draw.choices(lengths, k=DIALOGUES if device() == "cuda" else len(lengths)), reverse=True)
    with Workers("infer", gpus[1:], partial(begin_to_search, lengths, base)) as workers:
        work = begin_to_search(lengths, base)
        orders = [list(range(rank, len(lengths), len(gpus))) for rank in range(len(gpus))]
        seconds = []
        for _ in range(PASSES):
            started = time.perf_counter()
            done = sorted(workers.share(work, orders))
            seconds.append(time.perf_counter() - started)
            assert done == list(range(len(lengths)))
        peak = max(gpu.peak_memory_gib(), workers.peak_memory_gib)
    return {"rate": len(lengths) / min(seconds), "peak_gib": peak}


def begin_to_search(lengths: list[tuple[int, int]], base: Path) -> Work:
    model, tokenizer = merged(base), base.parent / "tokenizer"
    guard = guard_of(tokenizer, model) if tokenizer.exists() else None
    texts = [row.dialogue for row in read_dialogues(Path("data/sample/train.csv"), with_summary=True)]
    params = GenerationParams(max_new_tokens=512, temperature=0.7, top_p=0.9, **SEARCH)
    together = params.batch_size if device() == "cuda" else 4
    prompts, wanted = prompts_of(lengths)

    def searched(rows: list[int]) -> Iterator[int]:
        """The numbers of those that are done."""
        of_rows = [texts[row % len(texts)] for row in rows], [wanted[row] for row in rows]
        request = request_for(params, model, guard, *of_rows)
        for number, _ in decoding.decode([model], [[prompts[row] for row in rows]], together, request):
            yield rows[number]

    return searched


def train(lengths: list[tuple[int, int]], base: Path, gpus: list[str]) -> Options:
    """As the stage: a process for each GPU, beside this one."""
    begin = partial(begin_to_train, lengths, base)
    with tempfile.TemporaryDirectory() as folder, Workers("train", gpus, begin) as workers:
        workers.tell([Ranks(number, len(gpus), f"{folder}/meeting") for number in range(len(gpus))])
        rates, losses = zip(*workers.results(), strict=True)
        assert all(each == losses[0] for each in losses)
        return {"rate": min(rates), "losses": losses[0], "peak_gib": workers.peak_memory_gib}


def begin_to_train(lengths: list[tuple[int, int]], base: Path) -> Work:
    return lambda ranks: iter([rate_and_losses(base, lengths, {"rows": STEP_ROWS}, ranks)])


if __name__ == "__main__":
    main()
