"""What any model must beat, and what none is likely to: summaries that cost no training."""

from collections.abc import Sequence

import numpy as np

from yoyak.core.records import Floats
from yoyak.core.stale_outputs import PREFIX
from yoyak.metrics import rouge
from yoyak.metrics.rouge import Metric

HUMAN = f"{PREFIX}human"
EXTRACTS = (f"{PREFIX}lead_1", f"{PREFIX}lead_2", f"{PREFIX}longest_turn")


def extracts(dialogues: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Baselines by name: turns of each dialogue, quoted as its summary."""
    columns = zip(*map(extracts_of, dialogues), strict=True)
    return {name: list(texts) for name, texts in zip(EXTRACTS, columns, strict=True)}


def extracts_of(turns: Sequence[str]) -> tuple[str, str, str]:
    """A dialogue's summary by each baseline of `EXTRACTS`."""
    return turns[0], "\n".join(turns[:2]), max(turns, key=len)


def human(references: Sequence[Sequence[str]], metric: Metric) -> Floats | None:
    """F1 of each reference against the row's others, their mean, in [0, 1], shape (rows, 3); None where a row has
    a single reference.

    A ceiling of sorts: it means little if a model agrees with the annotators better than they agree with each other.
    """
    if any(len(row) < 2 for row in references):
        return None
    texts = [text for row in references for text in row]
    others = [[*row[:place], *row[place + 1 :]] for row in references for place in range(len(row))]
    scores = np.array(rouge.score(texts, others, metric))
    ends = np.cumsum([len(row) for row in references])
    return np.array([part.mean(axis=0) for part in np.split(scores, ends[:-1])])
