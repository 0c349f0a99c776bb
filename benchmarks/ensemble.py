"""Minimum Bayes risk over as many candidates as the competition's test brings, beside loops over pairs of them.

    OMP_NUM_THREADS=1 python benchmarks/ensemble.py

499 rows: summaries of the sample data, two of three cut in two sentences, so that these are as long as the
competition's; with some words dropped, exchanged and moved, in a member's own way and then in a candidate's.

One loop scores with the library `rouge`, the other is this project's own before it compared all candidates of a row at
once. Time is that of one core, by the clock of the process, so that other work on the machine does not count. Each side
is given the first rows alone, and is taken to need as long for each of the others.
"""

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recording
from rouge import Rouge

from yoyak.core import gpu
from yoyak.core.records import Candidate, Prediction
from yoyak.data.dialogues import read_dialogues
from yoyak.ensembling import mbr
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes

ROWS = 499
OF_MEMBER, OF_CANDIDATE = 0.2, 0.1
"""Shares of words that are exchanged; half as many are dropped, and half as many change places with the next."""

Members = dict[str, list[Prediction]]


def main() -> None:
    recording.require_clean_tree()
    # One core, however many rows.
    mbr.PARALLEL_FROM = sys.maxsize
    few, many, most = predictions(3, 8), predictions(5, 16), predictions(5, 128)
    by_library, by_pair = looped(few, 4, by_the_library), looped(many, 20, pair_by_pair)

    def row(name: str, members: Members, rows: int, candidates: str, baseline: float, whose: str) -> dict[str, Any]:
        unit = f"seconds of a core for {ROWS} rows of {candidates} candidates"
        command = "OMP_NUM_THREADS=1 python benchmarks/ensemble.py"
        seconds, _ = chosen(members, rows)
        return recording.row(name, unit, seconds, baseline, whose, gpu.peak_memory_gib(), command)

    recording.record(
        "ensemble",
        [
            row("mbr", few, 200, "3 x 8", by_library, "a triple loop with rouge 1.0.1"),
            row("mbr_80", many, 100, "5 x 16", by_pair, "pair by pair"),
            row("mbr_640", most, 20, "5 x 128", by_pair, "5 x 16 candidates, pair by pair"),
        ],
    )


def chosen(members: Members, rows: int) -> tuple[float, list[int | None]]:
    """Seconds for all rows from the first of them; and their choices where all members count alike."""
    first = {name: predictions[:rows] for name, predictions in members.items()}
    morphemes.cache_clear()
    started = time.process_time()
    choices = [mbr.choose(pool, np.ones(len(members))) for pool in mbr.pools(first)]
    return (time.process_time() - started) * ROWS / rows, choices


def looped(members: Members, rows: int, loop: Callable[[Sequence[list[str]]], list[int]]) -> float:
    """Seconds that the loop would take for all rows, from the first of them; its choices are ours."""
    texts = [
        [candidate.text for prediction in row for candidate in prediction.candidates]
        for row in zip(*members.values(), strict=True)
    ]
    morphemes.cache_clear()
    started = time.process_time()
    choices = loop(texts[:rows])
    seconds = time.process_time() - started
    assert choices == chosen(members, rows)[1]
    return seconds * ROWS / rows


def by_the_library(rows: Sequence[list[str]]) -> list[int]:
    library = Rouge()

    def score(text: str, other: str) -> float:
        (scores,) = library.get_scores(*(" ".join(morphemes(each, "mecab")) for each in (text, other)))
        return float(sum(scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")))

    return [_best(texts, score) for texts in rows]


def pair_by_pair(rows: Sequence[list[str]]) -> list[int]:
    return [_best(texts, lambda text, other: rouge.pair(text, other, "mecab", "rouge").mean) for texts in rows]


def _best(texts: list[str], score: Callable[[str, str], float]) -> int:
    return int(np.argmax([round(sum(score(text, other) for other in texts), 8) for text in texts]))


def predictions(members: int, candidates: int) -> Members:
    rows = read_dialogues(Path("data/sample/train.csv"), with_summary=True)
    draw = random.Random(0)
    words = [word for row in rows for word in row.summaries[0].split()]

    def like(text: str, exchanged: float) -> str:
        said = text.split()
        for place in range(len(said) - 1):
            if draw.random() < exchanged / 2:
                said[place], said[place + 1] = said[place + 1], said[place]
        kept = [word for word in said if draw.random() > exchanged / 2]
        return " ".join(draw.choice(words) if draw.random() < exchanged else word for word in kept)

    def prediction(row: int) -> Prediction:
        said = rows[row % len(rows)].summaries[0].split()
        if row % 3:
            said[len(said) // 2] += "."
        summary = like(" ".join(said), OF_MEMBER)
        texts = [like(summary, OF_CANDIDATE) for _ in range(candidates)]
        candidates_of_row = tuple(Candidate(text=text, log_probability=-1.0, finished=True) for text in texts)
        return Prediction(fname=f"dev_{row}", text=texts[0], candidates=candidates_of_row)

    return {f"member_{member}": [prediction(row) for row in range(ROWS)] for member in range(members)}


if __name__ == "__main__":
    main()
