"""Minimum Bayes risk over as many candidates as the competition's dev brings, beside a plain triple loop.

    python benchmarks/ensemble.py

499 rows, 3 members, 8 candidates each: summaries of the sample data with some of their words exchanged. The loop scores
with the library `rouge`, on the first rows alone, and is taken to need as long for the others.
"""

import random
import time
from pathlib import Path

import numpy as np
import recording
from rouge import Rouge

from yoyak.core import gpu
from yoyak.core.records import Candidate, Prediction
from yoyak.data.dialogues import read_dialogues
from yoyak.ensembling import mbr
from yoyak.metrics.morphemes import morphemes

ROWS, MEMBERS, CANDIDATES = 499, 3, 8
LOOPED = 5
"""Rows that the loop is given."""
EXCHANGED = 0.3
"""Of a summary's words."""


def main() -> None:
    recording.require_clean_tree()
    members = predictions()
    started = time.perf_counter()
    pools = mbr.pools(members)
    ours = [mbr.choose(pool, np.ones(MEMBERS)) for pool in pools]
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    looped = [by_loop([candidate.text for candidate in pool.candidates]) for pool in pools[:LOOPED]]
    plain = (time.perf_counter() - started) * ROWS / LOOPED
    assert looped == ours[:LOOPED]
    what = f"seconds for {ROWS} rows of {MEMBERS} x {CANDIDATES} candidates"
    command = "python benchmarks/ensemble.py"
    whose = f"a triple loop with rouge 1.0.1, from {LOOPED} rows"
    recording.record("ensemble", [recording.row("mbr", what, seconds, plain, whose, gpu.peak_memory_gib(), command)])


def predictions() -> dict[str, list[Prediction]]:
    rows = read_dialogues(Path("data/sample/train.csv"), with_summary=True)
    summaries = [rows[row % len(rows)].summaries[0] for row in range(ROWS)]
    draw = random.Random(0)
    words = [word for summary in summaries for word in summary.split()]

    def candidate(summary: str) -> Candidate:
        said = [draw.choice(words) if draw.random() < EXCHANGED else word for word in summary.split()]
        return Candidate(text=" ".join(said), log_probability=-1.0, finished=True)

    def prediction(row: int) -> Prediction:
        candidates = tuple(candidate(summaries[row]) for _ in range(CANDIDATES))
        return Prediction(fname=f"dev_{row}", text=candidates[0].text, candidates=candidates)

    return {f"member_{member}": [prediction(row) for row in range(ROWS)] for member in range(MEMBERS)}


def by_loop(texts: list[str]) -> int:
    library, sums = Rouge(), []
    for text in texts:
        total = 0.0
        for other in texts:
            (scores,) = library.get_scores(*(" ".join(morphemes(each, "mecab")) for each in (text, other)))
            for name in ("rouge-1", "rouge-2", "rouge-l"):
                total += scores[name]["f"]
        sums.append(round(total, 8))
    return int(np.argmax(sums))


if __name__ == "__main__":
    main()
