"""What an answer is worth: the competition's metric against the reference, less what the others are worth."""

from collections.abc import Sequence
from typing import NamedTuple

from yoyak.core.records import Candidate, Prompt
from yoyak.inference.generate import faults_of
from yoyak.metrics import rouge


class Judged(NamedTuple):
    """A summary beside its reference."""

    rouge: float
    """Mean of ROUGE-1/2/L, in [0, 1]."""
    length: float
    """Characters, over the reference's."""
    faulty: bool

    def reward(self, max_length_ratio: float) -> float:
        """In [0, 1]: nothing with a fault; beyond the bound it falls as the length grows."""
        if self.faulty:
            return 0.0
        return self.rouge * min(1.0, max_length_ratio / self.length)


def judge(prompts: Sequence[Prompt], candidates: Sequence[Sequence[Candidate]]) -> list[list[Judged]]:
    """Each prompt's candidates, beside its reference."""
    flat = [(prompt, candidate) for prompt, row in zip(prompts, candidates, strict=True) for candidate in row]
    references = [prompt.summary or "" for prompt, _ in flat]
    scores = rouge.score([candidate.text for _, candidate in flat], [(reference,) for reference in references])
    judged = iter(
        Judged(
            score.mean,
            len(candidate.text) / len(reference),
            bool(faults_of(candidate, "\n".join(prompt.turns))),
        )
        for (prompt, candidate), score, reference in zip(flat, scores, references, strict=True)
    )
    return [[next(judged) for _ in row] for row in candidates]


def advantages(values: Sequence[float]) -> list[float]:
    """Each less the mean of the others: REINFORCE with a baseline that leaves one out (Kool et al. 2019; Ahmadian et
    al. 2024, arXiv:2402.14740)."""
    others = len(values) - 1
    return [value - (sum(values) - value) / others for value in values]
