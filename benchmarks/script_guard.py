"""What the script guard costs the default search, on the true shape of Llama-3.2-3B: with it and without, by turns.

    python benchmarks/script_guard.py LENGTHS FOLDER

On a GPU. LENGTHS and FOLDER as in benchmarks/generation.py.
"""

import json
import sys
from pathlib import Path

import generation
import recording
import torch
from training import random_weights

TURNS = 4


def main() -> None:
    lengths, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    recording.require_clean_tree()
    model = generation.merged(random_weights(generation.SHAPE, folder))
    guard = generation.guard_of(folder / "tokenizer", model)
    generation.decode_all(model, guard, lengths[:64], generation.SEARCHES["8 candidates"])
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * TURNS):
        # By turns of two, the other one first each time.
        guarded = (turn + turn // 2) % 2 == 0
        took = generation.decode_all(model, guard if guarded else None, lengths, generation.SEARCHES["8 candidates"])
        seconds[guarded].append(took)
        print(f"{'with' if guarded else 'without'} the guard: {took:.2f} s", flush=True)
    with_guard, without = (len(lengths) * TURNS / sum(seconds[guarded]) for guarded in (True, False))
    peak = torch.cuda.max_memory_allocated() / 2**30
    command = "python benchmarks/script_guard.py LENGTHS FOLDER"
    row = recording.row("8 candidates", "dialogues/s", with_guard, without, "without the script guard", peak, command)
    recording.record("script_guard", [row])


if __name__ == "__main__":
    main()
