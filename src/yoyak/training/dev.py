"""Summaries of dev while a model trains, and what they are worth."""

from collections.abc import Sequence

from yoyak.metrics import rouge
from yoyak.modeling.tokenization import PromptTokenizer


def rouge_of(
    prompt_tokenizer: PromptTokenizer, generated: Sequence[list[int]], summaries: Sequence[list[int]]
) -> list[float]:
    """The mean of ROUGE-1/2/L of each, both given as token ids."""
    texts, references = ([text.strip() for text in prompt_tokenizer.decode(ids)] for ids in (generated, summaries))
    return [score.mean for score in rouge.score(texts, [(reference,) for reference in references])]
