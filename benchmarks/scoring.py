"""What our scoring buys over konlpy and `rouge` in the loop that everyone writes, with the same scores.

    python benchmarks/scoring.py

12,457 pairs, as many as the competition's training rows, put together from the sample's summaries so that no text
stands twice and no cache helps. Each side starts in a process of its own, loading its analyser included. The counting
alone, without the analyser, is compared, too, and the bootstrap of eight models. Needs `make test` once, for konlpy's
engine.
"""

import csv
import json
import os
import random
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import recording
from konlpy_mecab import konlpy_mecab
from rouge import Rouge

from yoyak.core import gpu, records
from yoyak.evaluation import significance
from yoyak.metrics import rouge
from yoyak.metrics.morphemes import morphemes

PAIRS = 12_457
MODELS = 8
SAMPLES = 2_000
COMMAND = "python benchmarks/scoring.py"


def main() -> None:
    if side := sys.argv[1:]:
        print(json.dumps(globals()[side[0]](*side[1:])))
        return
    recording.require_clean_tree()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pairs.json")
        Path(path).write_text(json.dumps(pairs()))
        with_konlpy = {**os.environ, "PYTHONPATH": f"src:{Path('.cache/mecab-ko').resolve()}"}
        sides = {
            side: recording.in_a_process(__file__, side, path, environment=with_konlpy)
            for side in ("plain_loop", "ours", "count_by_rouge", "count_ours", "draw_plainly", "draw_ours")
        }
    for ours, theirs in (("ours", "plain_loop"), ("count_ours", "count_by_rouge"), ("draw_ours", "draw_plainly")):
        # Means of all pairs to 1e-9; of the bootstrap, whose draws are the same, the bounds.
        if not np.allclose(sides[ours]["result"], sides[theirs]["result"], rtol=0, atol=1e-9):
            sys.exit(f"error: {ours} and {theirs} disagree: {sides[ours]['result']}, {sides[theirs]['result']}")

    def row(name: str, unit: str, ours: str, theirs: str, what: str) -> dict[str, Any]:
        seconds = sides[ours]["seconds"], sides[theirs]["seconds"]
        return recording.row(name, unit, *seconds, what, sides[ours]["peak_gib"], COMMAND)

    recording.record(
        "scoring",
        [
            row(
                "score", f"seconds for {PAIRS} pairs", "ours", "plain_loop", "konlpy 0.6.0's Mecab + rouge 1.0.1, loop"
            ),
            row("count", "seconds for 2000 pairs of tokens", "count_ours", "count_by_rouge", "rouge 1.0.1"),
            row(
                "bootstrap",
                f"seconds for {SAMPLES} samples of {MODELS} models, {PAIRS} rows",
                "draw_ours",
                "draw_plainly",
                "numpy, sample by sample",
            ),
        ],
    )


def pairs() -> list[tuple[str, str]]:
    """Texts of one or two sentences, the length of real summaries, no two alike."""
    summaries = []
    for name in ("train", "dev"):
        with Path(f"data/sample/{name}.csv").open(encoding="utf-8", newline="") as file:
            summaries += [row["summary"] for row in csv.DictReader(file)]
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in summaries]
    mixed = [first[0] + second[1] for first, second in product(halves, halves)]
    texts = random.Random(0).sample(sorted(set(mixed)), 2 * PAIRS)
    return list(zip(texts[:PAIRS], texts[PAIRS:], strict=True))


def _timed(work: Any) -> dict[str, Any]:
    started = time.perf_counter()
    result = work()
    return {"seconds": time.perf_counter() - started, "result": result, "peak_gib": gpu.peak_memory_gib()}


def _read(path: str) -> list[tuple[str, str]]:
    return [(text, reference) for text, reference in json.loads(Path(path).read_text())]


def plain_loop(path: str) -> dict[str, Any]:
    rows = _read(path)

    def work() -> list[float]:
        mecab, library = konlpy_mecab(), Rouge()
        totals = np.zeros(3)
        for text, reference in rows:
            (scores,) = library.get_scores(" ".join(mecab.morphs(text)), " ".join(mecab.morphs(reference)))
            totals += [scores[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")]
        return list(totals / len(rows))

    return _timed(work)


def ours(path: str) -> dict[str, Any]:
    rows = _read(path)

    def work() -> list[float]:
        scores = rouge.score([text for text, _ in rows], [(reference,) for _, reference in rows])
        return list(np.array(scores).mean(axis=0))

    return _timed(work)


def _tokens(path: str) -> list[tuple[str, str]]:
    return [(" ".join(morphemes(text)), " ".join(morphemes(reference))) for text, reference in _read(path)[:2000]]


def count_by_rouge(path: str) -> dict[str, Any]:
    tokens = _tokens(path)

    def work() -> list[float]:
        scores = Rouge().get_scores([text for text, _ in tokens], [reference for _, reference in tokens])
        return [float(np.mean([row[name]["f"] for row in scores])) for name in ("rouge-1", "rouge-2", "rouge-l")]

    return _timed(work)


def count_ours(path: str) -> dict[str, Any]:
    tokens = _tokens(path)

    def work() -> list[float]:
        # Blanks part the morphemes already: no analyser runs.
        metric = rouge.Metric("whitespace", "rouge", "mean")
        scores = rouge.score([text for text, _ in tokens], [(reference,) for _, reference in tokens], metric)
        return list(np.array(scores).mean(axis=0))

    return _timed(work)


def _values() -> records.Floats:
    return np.random.default_rng(1).normal(40, 10, (PAIRS, MODELS))


def draw_ours(_: str) -> dict[str, Any]:
    values = _values()
    return _timed(lambda: significance.interval(significance.resampled_means(values, SAMPLES, 0)).tolist())


def draw_plainly(_: str) -> dict[str, Any]:
    values = _values()

    def work() -> Any:
        draw = np.random.default_rng(0)
        means = np.array([values[draw.integers(PAIRS, size=PAIRS)].mean(axis=0) for _ in range(SAMPLES)])
        return np.percentile(means, [2.5, 97.5], axis=0).T.tolist()

    return _timed(work)


if __name__ == "__main__":
    main()
