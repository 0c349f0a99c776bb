"""Training adapters over base weights that two GPUs share, a part on each, of true shapes with random weights.

    python benchmarks/sharded.py LENGTHS FOLDER
    python benchmarks/sharded.py --smoke FOLDER

On two GPUs or more, of which it takes two, each limited to the memory of a 24 GB card. LENGTHS and FOLDER as in
benchmarks/training.py. First Llama-3.2-3B's shape in 4 bits, by one GPU, by two with a copy each, and by two with a
part each: the losses of the steps are held to those of one GPU. Then Qwen3-14B's in 16 bits, 30 GB, which fits on none
of them. Each run is a process of its own, which starts the others as the stage does, and prints what it measured,
losses too. With --smoke both are a tiny shape, on the CPU, and nothing is written.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import recording
import torch
from several_gpus import lengths_in
from training import CAP_GIB, random_weights, rate_and_losses

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.limits import LimitsParams
from yoyak.core.workers import Work, Workers
from yoyak.training.ranks import Ranks

COMMAND = "python benchmarks/sharded.py LENGTHS FOLDER"
Options = dict[str, Any]


def main() -> None:
    lengths, folder, *side = sys.argv[1:]
    smoke = lengths == "--smoke"
    if side:
        options = json.loads(side[0])
        print(json.dumps(weights(options, Path(folder)) if options["side"] == "weights" else train(options)))
        return
    if not smoke:
        recording.require_clean_tree()

    def run(**options: Any) -> Any:
        arguments = json.dumps({**options, "lengths": lengths, "folder": folder})
        result = recording.in_a_process(__file__, lengths, folder, arguments)
        print(json.dumps({**options, **result}), flush=True)
        return result

    small, large = ("tiny", "tiny") if smoke else ("llama_3b", "qwen3_14b")
    run(side="weights", shape=small)
    # Compiled layers would round otherwise, and be compiled for a minute.
    of_small = {"side": "train", "shape": small, "bits": 4, "rows": 8 if smoke else 64, "compiled": False}
    one = run(**of_small, gpus=1, sharded=False)
    copies = run(**of_small, gpus=2, sharded=False)
    parts = run(**of_small, gpus=2, sharded=True)
    rows = [
        row(f"{small}, 4 bits, 2 GPUs with a copy each", copies, one, "one GPU"),
        row(f"{small}, 4 bits, 2 GPUs with a part each", parts, one, "one GPU"),
        row(f"{small}, 4 bits, 2 GPUs with a part each", parts, copies, "2 GPUs with a copy each"),
    ]
    run(side="weights", shape=large)
    of_large = run(**of_small | {"shape": large, "bits": 16, "long_every": 32, "cap": CAP_GIB}, gpus=2, sharded=True)
    rows.append(row(f"{large}, 16 bits, 2 GPUs with a part each", of_large, parts, f"{small} in 4 bits, sharded, too"))
    if not smoke:
        recording.record("sharded", rows)


def row(name: str, mine: Options, other: Options, whose: str) -> Options:
    if len(mine["losses"]) == len(other["losses"]) and mine["shape"] == other["shape"]:
        furthest = max(abs(ours / theirs - 1) for ours, theirs in zip(mine["losses"], other["losses"], strict=True))
        name += f"; a step's loss differs by at most {100 * furthest:.3f} %"
    peak = max(mine["peak_gib"])
    return recording.row(name, "real tokens/s", mine["rate"], other["rate"], whose, peak, COMMAND)


def weights(options: Options, folder: Path) -> Options:
    started = time.perf_counter()
    random_weights(options["shape"], folder)
    return {"seconds": round(time.perf_counter() - started, 1)}


def train(options: Options) -> Options:
    """As the stage: a process for each GPU, beside this one."""
    gpus = gpu.allowed(LimitsParams(gpus=options["gpus"])) if device() == "cuda" else [""] * options["gpus"]
    assert len(gpus) == options["gpus"], f"{len(gpus)} GPUs are visible"
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, Workers("train", gpus, partial(begin, options)) as workers:
        workers.tell([Ranks(number, len(gpus), f"{folder}/meeting", options["sharded"]) for number in range(len(gpus))])
        measured = sorted(workers.results(), key=lambda each: each["rank"])
    losses = [each["losses"] for each in measured]
    assert all(each == losses[0] for each in losses), losses
    return {
        "shape": options["shape"],
        "rate": min(each["rate"] for each in measured),
        "losses": losses[0],
        "seconds": round(time.perf_counter() - started, 1),
        **{key: [each[key] for each in measured] for key in ("peak_gib", "reserved_gib")},
    }


def begin(options: Options) -> Work:
    gpu.limit(LimitsParams(gpu_gib=CAP_GIB))
    return partial(trained, options)


def trained(options: Options, ranks: Ranks) -> Iterator[Options]:
    """By one rank."""
    base = Path(options["folder"], options["shape"])
    rate, losses = rate_and_losses(base, lengths_in(options["lengths"]), options, ranks)
    reserved = torch.cuda.max_memory_reserved() / gpu.GIB if device() == "cuda" else 0.0
    yield {
        "rank": ranks.number,
        "rate": rate,
        "losses": losses,
        "peak_gib": round(gpu.peak_memory_gib(), 2),
        "reserved_gib": round(reserved, 2),
    }


if __name__ == "__main__":
    main()
