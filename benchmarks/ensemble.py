"""Minimum Bayes risk over as many candidates as the competition's test brings, beside loops over pairs of them.

    python benchmarks/ensemble.py

499 rows: summaries of the sample data with some words dropped, exchanged and moved, a member's own way and then a
candidate's. One loop scores with the library `rouge`; the other is what this project did before it compared all
candidates of a row at once. A loop is given the first rows alone, on as many cores, and taken to need as long for each
of the others.
"""

import random
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
COMMAND = "python benchmarks/ensemble.py"
Looped = list[int]


def main() -> None:
    recording.require_clean_tree()
    few, today, many = predictions(3, 8), predictions(5, 16), predictions(5, 128)
    by_library, few_pools = looped(few, by_the_library, rows=4), pooled(few)
    by_pair, pools = looped(today, pair_by_pair, rows=40), pooled(today)
    pools_of_many = pooled(many)
    recording.record(
        "ensemble",
        [
            row("mbr", 3, 8, few_pools, by_library, "a triple loop with rouge 1.0.1, from 4 rows"),
            row("mbr_80", 5, 16, pools, by_pair, "pair by pair, from 40 rows"),
            row("mbr_640", 5, 128, pools_of_many, by_pair, "pair by pair, 5 x 16 candidates, from 40 rows"),
        ],
    )
