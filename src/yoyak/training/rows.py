"""Prompts and summaries as rows of token ids and labels."""

from dataclasses import dataclass

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training.params import LossOn

IGNORED = -100
"""The label that PyTorch's cross-entropy leaves out."""

Row = dict[str, list[int]]


@dataclass(frozen=True)
class Rows:
    """A split ready for a trainer."""

    rows: list[Row]
    names: list[str]
    """The `fname` of each."""
    shortened: int
    """Rows whose dialogue lost turns to fit the token budget; no summary is ever cut."""
    tokens: int
    """Of prompts and summaries."""

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(len(row["input_ids"]) for row in self.rows)


def causal_rows(prompts: list[Prompt], prompt_tokenizer: PromptTokenizer, loss_on: LossOn = "summary") -> Rows:
    """Prompt and summary in one sequence; labels on the summary and its end token, or on all of it."""
    encoded = [prompt_tokenizer.encode_prompt(prompt) for prompt in prompts]
    summaries = [prompt_tokenizer.encode_summary(_summary(prompt)) for prompt in prompts]
    rows = [
        {
            "input_ids": prompt.ids + summary,
            "labels": (prompt.ids if loss_on == "text" else [IGNORED] * len(prompt.ids)) + summary,
        }
        for prompt, summary in zip(encoded, summaries, strict=True)
    ]
    names = [prompt.fname for prompt in prompts]
    return Rows(rows, names, sum(prompt.shortened for prompt in encoded), sum(len(row["input_ids"]) for row in rows))


def seq2seq_rows(prompts: list[Prompt], prompt_tokenizer: PromptTokenizer) -> Rows:
    """The dialogue for the encoder, the summary and its end token for the decoder."""
    encoded = [prompt_tokenizer.encode_prompt(prompt) for prompt in prompts]
    rows = [
        {"input_ids": dialogue.ids, "labels": prompt_tokenizer.encode_summary(_summary(prompt))}
        for dialogue, prompt in zip(encoded, prompts, strict=True)
    ]
    tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)
    names = [prompt.fname for prompt in prompts]
    return Rows(rows, names, sum(dialogue.shortened for dialogue in encoded), tokens)


def _summary(prompt: Prompt) -> str:
    if prompt.summary is None:
        raise UserError(f"{prompt.fname}: a training prompt without a summary; run `dvc repro prepare_prompts`")
    return prompt.summary
