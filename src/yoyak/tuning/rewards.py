"""What an answer is worth: the competition's metric against the reference, less what the others are worth."""

from collections.abc import Sequence

from yoyak.core.records import Candidate, Prompt
from yoyak.inference.generate import faults_of
from yoyak.metrics import rouge


def rewards(prompts: Sequence[Prompt], candidates: Sequence[Sequence[Candidate]]) -> list[list[float]]:
    """The mean of ROUGE-1/2/L, in [0, 1], of each prompt's candidates; 0 for those with a fault."""
    flat = [(prompt, candidate) for prompt, row in zip(prompts, candidates, strict=True) for candidate in row]
    scores = rouge.score([candidate.text for _, candidate in flat], [(prompt.summary or "",) for prompt, _ in flat])
    values = iter(
        0.0 if faults_of(candidate, "\n".join(prompt.turns)) else score.mean
        for (prompt, candidate), score in zip(flat, scores, strict=True)
    )
    return [[next(values) for _ in row] for row in candidates]


def advantages(values: Sequence[float]) -> list[float]:
    """Each less the mean of the others: REINFORCE with a baseline that leaves one out (Kool et al. 2019; Ahmadian et
    al. 2024, arXiv:2402.14740)."""
    others = len(values) - 1
    return [value - (sum(values) - value) / others for value in values]
