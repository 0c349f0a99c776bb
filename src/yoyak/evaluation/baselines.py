"""What any model must beat, and what none is likely to: summaries that cost no training."""

from collections.abc import Sequence

import numpy as np

from yoyak.core.records import Floats
from yoyak.core.stale_outputs import PREFIX
from yoyak.metrics import rouge
from yoyak.metrics.rouge import Metric

HUMAN = f"{PREFIX}human"


def extracts(dialogues: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Turns of each dialogue quoted as its summary."""
    return {
        f"{PREFIX}lead_1": [turns[0] for turns in dialogues],
        f"{PREFIX}lead_2": ["\n".join(turns[:2]) for turns in dialogues],
        f"{PREFIX}longest_turn": [max(turns, key=len) for turns in dialogues],
    }


def human(references: Sequence[Sequence[str]], metric: Metric) -> Floats | None:
    """Each reference scored against the row's others, and their mean: shape (rows, 3); none where a row has but one.

    A ceiling of sorts: a model that agrees with the annotators better than they with each other says little by it.
    """
    if any(len(row) < 2 for row in references):
        return None
    texts = [text for row in references for text in row]
    others = [[*row[:place], *row[place + 1 :]] for row in references for place in range(len(row))]
    scores = np.array(rouge.score(texts, others, metric))
    ends = np.cumsum([len(row) for row in references])
    return np.array([part.mean(axis=0) for part in np.split(scores, ends[:-1])])
