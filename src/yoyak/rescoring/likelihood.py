"""Log-probabilities of given summaries under a model: a prompt goes through it once for many of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy, pad
from transformers.modeling_outputs import BaseModelOutput

from yoyak.core import gpu
from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.progress import Reporter
from yoyak.core.records import Likelihood, Prompt, Rescored
from yoyak.inference import hf_decoding
from yoyak.inference.groups import Group, laid_out, log_probabilities, use_shared_prompts
from yoyak.inference.partial import append_line, read_lines
from yoyak.inference.progress import Pace
from yoyak.modeling.attention import has_plain_attention
from yoyak.modeling.loading import Loaded

ANSWER_TOKENS = 1024
"""Of the summaries that share a prompt's pass: in attention each token meets all of the group's, and most in vain."""
CPU_TOKENS = 1024
FIRST_TOKENS = 2048
"""On a GPU the first pass is of so many, and its memory is measured."""
MAX_TOKENS = 24_576
IGNORED = -100
"""A label behind an answer's end."""
SHARE = 0.85
"""Of the memory that seems free: allocations leave holes, and groups have more or fewer summary tokens, whose logits
take most."""


class Asked(NamedTuple):
    """Summaries to one prompt."""

    row: int
    """The prompt's place among all."""
    places: list[int]
    """The summaries' places among those of the row."""
    prompt: list[int]
    answers: list[list[int]]
    """Tokens; the end token is the last one."""

    @property
    def tokens(self) -> int:
        """That go through a model which reads the prompt once."""
        return len(self.prompt) + sum(map(len, self.answers))

    def halves(self) -> list["Asked"]:
        half = len(self.answers) // 2
        return [
            Asked(self.row, self.places[part], self.prompt, self.answers[part])
            for part in (slice(half), slice(half, None))
        ]


def rescore_rows(
    loaded: Loaded, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], title: str, partial: Path
) -> list[Rescored]:
    """How likely the model finds each of the `texts` of each prompt, in the order of the prompts.

    To `partial`, a file, each row is written as it is done: a run after a kill reads them.
    """
    found = {row.fname: row for row in read_lines(partial, Rescored)}
    if found:
        print(f"{title}: {len(found)} of {len(prompts)} dialogues were done before; going on", flush=True)
    missing = [row for row, prompt in enumerate(prompts) if prompt.fname not in found]
    if missing:
        with Reporter(title, "dialogues") as reporter:
            pace = Pace(reporter, len(missing), len(prompts), 0)
            for done, (row, likelihoods) in enumerate(_rows(loaded, prompts, texts, missing), start=1):
                rescored = Rescored(fname=prompts[row].fname, texts=likelihoods)
                _check_numbers(rescored, title)
                append_line(partial, rescored)
                found[rescored.fname] = rescored
                pace.show(done)
            pace.end()
    return [found[prompt.fname] for prompt in prompts]


def _check_numbers(rescored: Rescored, title: str) -> None:
    """Weights may be sound, and what is computed from them overflow."""
    if not all(math.isfinite(each.log_probability) for each in rescored.texts):
        raise UserError(
            f"{title}, {rescored.fname}: the model computes what is no number (NaN or infinite); set its dtype to "
            "fp32, or train it anew with a lower learning_rate"
        )


def _rows(
    loaded: Loaded, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], rows: Sequence[int]
) -> Iterator[tuple[int, tuple[Likelihood, ...]]]:
    """Each of the `rows` as soon as all of its texts are done."""
    tokenizer = loaded.prompt_tokenizer
    answers = {row: [tokenizer.encode_summary(text) for text in texts[row]] for row in rows}
    ids = {row: tokenizer.encode_prompt(prompts[row]).ids for row in rows}
    asked = [part for row in rows for part in _parts(Asked(row, [*range(len(answers[row]))], ids[row], answers[row]))]
    values: dict[int, dict[int, float]] = {row: {} for row in rows}
    yield from ((row, ()) for row in rows if not answers[row])
    for part, sums in _within_memory(loaded, asked):
        of_row = values[part.row]
        of_row.update(zip(part.places, sums, strict=True))
        if len(of_row) == len(answers[part.row]):
            yield (
                part.row,
                tuple(
                    Likelihood(text=text, log_probability=of_row[place], tokens=len(answer))
                    for place, (text, answer) in enumerate(zip(texts[part.row], answers[part.row], strict=True))
                ),
            )


def _parts(asked: Asked) -> list[Asked]:
    """Of like size, none with many more than `ANSWER_TOKENS`; none where there are no answers."""
    if not asked.answers:
        return []
    if asked.tokens - len(asked.prompt) <= ANSWER_TOKENS or len(asked.answers) == 1:
        return [asked]
    return [part for half in asked.halves() for part in _parts(half)]


Pass = Callable[[Sequence[Asked]], list[list[float]]]
"""From some that fit into memory to the sums of their answers' log-probabilities."""


class Budget:
    """Most tokens that go through a model at once: the machine's choice, found as it works."""

    def __init__(self) -> None:
        self._measured = device() == "cpu"
        self.tokens = CPU_TOKENS if self._measured else FIRST_TOKENS

    @contextmanager
    def measuring(self, tokens: int) -> Iterator[None]:
        """Learn from the first pass, of `tokens`, how many fit into the GPU's memory."""
        if self._measured:
            yield
            return
        gpu.reset_peak_memory()
        yield
        per_token = (torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()) / tokens
        self.tokens = max(1, min(MAX_TOKENS, int(SHARE * gpu.free_memory() / per_token)))
        self._measured = True

    def shrink(self, tokens: int, of: str) -> None:
        """After running out of memory, `of` which kind, with so many tokens."""
        self._measured, self.tokens = True, tokens // 2
        print(f"out of {of}: {self.tokens} tokens at once from here", flush=True)


def _within_memory(loaded: Loaded, asked: Sequence[Asked]) -> Iterator[tuple[Asked, list[float]]]:
    """Sums of log-probabilities of each one's answers; fewer tokens at once from where memory runs out."""
    with _attention_of(loaded.model):
        yield from _in_batches(sorted(asked, key=lambda each: each.tokens), _pass_of(loaded))


def _in_batches(left: list[Asked], run: Pass) -> Iterator[tuple[Asked, list[float]]]:
    budget = Budget()
    while left:
        if left[-1].tokens > budget.tokens and len(left[-1].answers) > 1:
            left += left.pop().halves()
            continue
        batch = _next(left, budget.tokens)
        tokens = sum(each.tokens for each in batch)
        try:
            with torch.inference_mode(), budget.measuring(tokens):
                sums = run(batch)
        except gpu.MAY_BE_OOM as error:
            if not gpu.is_oom(error):
                raise
            of = gpu.memory_of(error)
        else:
            del left[-len(batch) :]
            yield from zip(batch, sums, strict=True)
            continue
        # Outside `except`, where the error no longer holds the tensors of the failed attempt.
        gpu.release_memory()
        if len(batch) == len(batch[0].answers) == 1:
            raise UserError(
                f"a single dialogue and summary of {tokens} tokens do not fit into the {of}; raise limits.gpu_gib, or "
                "lower the model's max_prompt_tokens"
            )
        budget.shrink(tokens, of)


def _next(left: Sequence[Asked], tokens: int) -> list[Asked]:
    """The last of those that are left: as many as have so many tokens together, at least one."""
    sums = accumulate(each.tokens for each in reversed(left))
    count = max(1, sum(total <= tokens for total in sums))
    return list(left[-count:])


@contextmanager
def _attention_of(model: Any) -> Iterator[None]:
    """What the groups need while they go through the model: whoever asks it next may need another."""
    before = model.config._attn_implementation
    if not model.config.is_encoder_decoder and has_plain_attention(model):
        use_shared_prompts(model)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _pass_of(loaded: Loaded) -> Pass:
    """How this model is asked: so that it computes what it computes for one prompt and one answer."""
    model = loaded.model
    if model.config.is_encoder_decoder:
        return lambda batch: [_by_encoder_decoder(model, asked) for asked in batch]
    if has_plain_attention(model):
        return lambda batch: _by_groups(model, batch)
    return lambda batch: [_one_by_one(model, asked) for asked in batch]


def _by_groups(model: Any, batch: Sequence[Asked]) -> list[list[float]]:
    groups = [Group(asked.prompt, asked.answers, [1.0] * len(asked.answers)) for asked in batch]
    values: Any = log_probabilities(model, laid_out(groups, model.device))
    lengths = [len(answer) for asked in batch for answer in asked.answers]
    sums = iter(torch.stack([part.sum() for part in values.split(lengths)]).tolist())
    return [[next(sums) for _ in asked.answers] for asked in batch]


def _by_encoder_decoder(model: Any, asked: Asked) -> list[float]:
    """The prompt is encoded once; answers are padded behind their ends, where they see nothing of it."""
    rows, device = len(asked.answers), model.device
    encoded = model.get_encoder()(input_ids=torch.tensor([asked.prompt], device=device)).last_hidden_state
    answers = [torch.tensor(answer, device=device) for answer in asked.answers]
    labels = torch.nn.utils.rnn.pad_sequence(answers, batch_first=True, padding_value=IGNORED)
    before = pad(labels[:, :-1].clamp(min=0), (1, 0), value=model.config.decoder_start_token_id)
    output = model(
        encoder_outputs=BaseModelOutput(encoded.expand(rows, -1, -1)), decoder_input_ids=before, use_cache=False
    )
    losses = cross_entropy(output.logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return [-value for value in losses.sum(1).tolist()]


def _one_by_one(model: Any, asked: Asked) -> list[float]:
    """A decoder whose attention `groups` does not know."""
    means = hf_decoding.log_probabilities([model], [[asked.prompt] * len(asked.answers)], asked.answers)
    return [mean * len(answer) for mean, answer in zip(means, asked.answers, strict=True)]
