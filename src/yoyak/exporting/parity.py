"""Whether an exported folder is the model that the pipeline has, measured on rows of dev; and what was lost on the way.

The pipeline's side is its own prompts and its own decoder. The export's side is transformers or PEFT, from nothing but
the folder and messages as its card shows them.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from yoyak.core.errors import UserError
from yoyak.core.records import Prompt
from yoyak.evaluation import leaderboard
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.exporting import gguf_file, plain
from yoyak.exporting.conversation import Asked, Conversation
from yoyak.exporting.llama_cpp import LlamaCpp
from yoyak.inference.generate import generate
from yoyak.inference.hf_decoding import bears_padding
from yoyak.inference.params import InferenceConfig
from yoyak.modeling.loading import Loaded
from yoyak.modeling.tokenization import SPEAKER

EQUAL_TEXTS = 0.99
"""Least share of greedy summaries that are the same to the letter, in fp32."""
ROUGE_DELTA = 0.1
"""Most that the mean of ROUGE-1/2/L, in percent, may differ in 16 bits, unless the difference may be chance."""
SAME_LOSS = 0.001
"""Nats a token: what the same weights may differ by, computed in fp32 in another order."""


class Row(NamedTuple):
    """A row of dev, as the pipeline reads it."""

    prompt: Prompt
    ids: list[int]
    summary: list[int]


class Rows(NamedTuple):
    """Those that are compared."""

    rows: list[Row]
    shortened: int
    """Left out: the pipeline drops turns of theirs, which an exported model's user must do."""
    steering: int
    """Left out: they have texts of control tokens, which the pipeline reads letter by letter."""

    @property
    def pairs(self) -> list[tuple[list[int], list[int]]]:
        return [(row.ids, row.summary) for row in self.rows]

    @property
    def prompts(self) -> list[Prompt]:
        return [row.prompt for row in self.rows]


class Measured(NamedTuple):
    """A model on these rows."""

    loss: float
    """Mean negative log-likelihood of the reference summaries, nats a token."""
    texts: list[str]
    """Its greedy summaries."""


def read_rows(loaded: Loaded, prompts: Sequence[Prompt], most: int) -> Rows:
    """The first `most` of `prompts` (0: all), less those that a chat template cannot say."""
    asked = loaded.prompt_tokenizer
    rows, shortened, steering = [], 0, 0
    for prompt in prompts[:most] if most else prompts:
        encoded = asked.encode_prompt(prompt)
        if encoded.shortened:
            shortened += 1
        elif _steers(loaded, prompt):
            steering += 1
        else:
            rows.append(Row(prompt, encoded.ids, asked.encode_summary(prompt.summary or "")))
    if not rows:
        raise UserError("data/prompts/dev.jsonl: no row that an exported model could be compared on")
    return Rows(rows, shortened, steering)


def _steers(loaded: Loaded, prompt: Prompt) -> bool:
    request = loaded.prompt_tokenizer.request(prompt, prompt.turns)
    ids = loaded.tokenizer(request, add_special_tokens=False).input_ids
    return loaded.prompt_tokenizer.control_tokens.count(ids) > 0


def check_prompts(prompt_ids: Callable[[Asked], list[int]], conversation: Conversation, rows: Rows) -> None:
    """Stop unless the exported tokenizer makes of each row's messages the very tokens that the pipeline reads."""
    for row in rows.rows:
        found = prompt_ids(conversation.asked(row.prompt))
        if found != row.ids:
            place = next((at for at, pair in enumerate(zip(found, row.ids, strict=False)) if pair[0] != pair[1]), -1)
            raise UserError(
                f"{row.prompt.fname}: the exported tokenizer and chat template make other tokens of it than the "
                f"pipeline, the first at {place if place >= 0 else min(len(found), len(row.ids))} of {len(row.ids)}; "
                "this model cannot be exported"
            )


def of_pipeline(loaded: Loaded, config: InferenceConfig, rows: Rows, title: str) -> Measured:
    """By the pipeline's own decoder."""
    greedy = config.generation.model_copy(
        update={
            "search": "greedy",
            "num_beams": 1,
            "num_beam_groups": 1,
            "candidates": 1,
            "script_guard": False,
            "repetition_penalty": 1.0,
            "no_repeat_ngram_size": 0,
            "min_new_tokens": 0,
        }
    )
    config = config.model_copy(update={"generation": greedy})
    with tempfile.TemporaryDirectory() as kept:
        generated = generate(loaded, rows.prompts, config, title, Path(kept), repaired=False)
    return Measured(plain.loss(loaded.model, rows.pairs), [row.text.strip() for row in generated.predictions])


def of_folder(
    folder: Path, dtype: torch.dtype, rows: Rows, conversation: Conversation, most: int, at_once: int
) -> Measured:
    """By `generate`, from the exported folder alone."""
    model, tokenizer = plain.load(folder, dtype)
    check_prompts(lambda asked: plain.prompt_ids(tokenizer, asked), conversation, rows)
    return of_plain(model, tokenizer, rows, conversation, most, at_once)


def of_gguf(file: Path, config: Any, rows: Rows, conversation: Conversation, most: int, title: str) -> Measured:
    """Prompts and summaries by llama.cpp; the loss by transformers, of the weights as fp32, by the model's `config`."""
    context = max(len(row.ids) for row in rows.rows) + most + 1
    llama_cpp = LlamaCpp(file, context)
    check_prompts(llama_cpp.prompt_ids, conversation, rows)
    texts = llama_cpp.greedy([row.ids for row in rows.rows], most, title)
    return Measured(plain.loss(gguf_file.load(file, config), rows.pairs), as_tags(texts, conversation))


def of_plain(model: Any, tokenizer: Any, rows: Rows, conversation: Conversation, most: int, at_once: int) -> Measured:
    written = plain.greedy(model, tokenizer, [row.ids for row in rows.rows], most, at_once)
    return Measured(plain.loss(model, rows.pairs), as_tags(plain.texts(tokenizer, written), conversation))


def as_tags(texts: list[str], conversation: Conversation) -> list[str]:
    """With the data's own tags, where the model writes `화자1`."""
    if conversation.prompt_tokenizer.persons == "tags":
        return texts
    return [SPEAKER.sub(r"#Person\1#", text) for text in texts]


def together(loaded: Loaded) -> int:
    """Dialogues of a batch of `generate`."""
    return plain.AT_ONCE if bears_padding([loaded]) else 1


def equal(one: Sequence[str], other: Sequence[str]) -> float:
    """Share of texts that are the same to the letter."""
    return float(np.mean([a == b for a, b in zip(one, other, strict=True)]))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class Judge:
    """Scores summaries of these rows as the pipeline does."""

    def __init__(self, rows: Rows, params: ScoringParams) -> None:
        self._params = params
        split = leaderboard.read_split("dev")
        references = dict(zip(split.fnames, split.references, strict=True))
        self._references = [references[row.prompt.fname] for row in rows.rows]

    def scores(self, texts: Sequence[str]) -> Any:
        return leaderboard.score(texts, self._references, self._params.metric)

    def entry(self, texts: Sequence[str]) -> dict[str, Any]:
        """As in `metrics/scores.json`."""
        (entry,) = leaderboard.entries_of([self.scores(texts)], self._params)
        return entry

    def delta(self, texts: Sequence[str], than: Sequence[str]) -> dict[str, Any]:
        """How much better `texts` are than others, with interval, and whether it may be chance."""
        return leaderboard.deltas({"": self.scores(texts) - self.scores(than)}, 1, self._params)[""]


def check_texts(name: str, pipeline: Sequence[str], exported: Sequence[str]) -> float:
    """Their share of equal texts in fp32; stop where it is too small."""
    share = equal(pipeline, exported)
    if share < EQUAL_TEXTS:
        raise UserError(
            f"{name}: {percent(share)} of the exported model's greedy summaries in fp32 are the pipeline's, and "
            f"{percent(EQUAL_TEXTS)} are asked for; it is not exported"
        )
    return share


def check_rouge(name: str, delta: dict[str, Any], how: str) -> None:
    """`delta` is of the exported model's ROUGE; `how` both were computed."""
    if abs(delta["rouge_mean"]) > ROUGE_DELTA and not delta["noise"]:
        raise UserError(
            f"{name}: {how} the exported model's ROUGE is {delta['rouge_mean']:+.2f} to the pipeline's, which is "
            f"no chance (p {delta['p']}); it is not exported"
        )


def check_loss(name: str, delta: float) -> None:
    """Of weights that were rewritten, not rounded."""
    if abs(delta) > SAME_LOSS:
        raise UserError(
            f"{name}: the converted weights have another loss ({delta:+.4f} nats a token); it is not exported"
        )
