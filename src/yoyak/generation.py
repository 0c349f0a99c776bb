"""Summaries of prompts: batched decoding into candidates with their log-probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from yoyak.errors import UserError
from yoyak.machine import LimitsParams, check_shortened, device
from yoyak.models import Loaded, ModelSpec
from yoyak.parameters import Section
from yoyak.records import Candidate, Prediction, Prompt

SCORED_TOGETHER = 4
"""Finished texts whose log-probabilities are computed in one pass."""


class GenerationParams(Section):
    """Defaults of the top-level section `generation`, which each model may override."""

    search: Literal["greedy", "beam", "sample"]
    max_new_tokens: int = Field(ge=1)
    """Longest summary, in tokens."""
    num_beams: int = Field(default=1, ge=1)
    """Width of the beam search."""
    length_penalty: float = 1.0
    """Beam scores are divided by length to this power: above 1 favours longer summaries."""
    temperature: float = Field(default=1.0, gt=0)
    """For `search: sample`."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """For `search: sample`: the smallest set of tokens with this much probability is drawn from."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No n-gram of tokens twice in a summary; 0 is off. A person tag is several tokens: a small size forbids naming a
    person twice."""
    candidates: int = Field(default=1, ge=1)
    """Summaries kept for each dialogue, for the ensemble to choose from."""
    batch_size: int = Field(ge=1)
    """Dialogues decoded together. In bf16 it changes texts a little, so it is a parameter, not the machine's choice."""

    @model_validator(mode="after")
    def _search_gives_the_candidates(self) -> "GenerationParams":
        if self.search == "greedy" and (self.num_beams, self.candidates) != (1, 1):
            raise ValueError("search: greedy has num_beams: 1 and candidates: 1")
        if self.search == "beam" and not self.candidates <= self.num_beams >= 2:
            raise ValueError("search: beam needs num_beams of at least 2 and no more candidates than beams")
        if self.search == "sample" and self.num_beams != 1:
            raise ValueError("search: sample has num_beams: 1")
        return self


class GenerationJob(Section):
    """What decides summaries beside weights and prompts: the content of `data/resolved/<model>/generation.yaml`."""

    model: ModelSpec
    generation: GenerationParams
    seed: int


@dataclass(frozen=True)
class Generated:
    """Predictions in the order of their prompts, and what happened on the way."""

    predictions: list[Prediction]
    shortened_prompts: int
    """Prompts that lost turns to fit the token budget."""

    @property
    def empty(self) -> list[str]:
        """The rows whose summary is empty."""
        return [prediction.fname for prediction in self.predictions if not prediction.text]

    @property
    def unfinished(self) -> list[str]:
        """The rows whose summary was cut off at `max_new_tokens`."""
        return [prediction.fname for prediction in self.predictions if not prediction.candidates[0].finished]


def generate(loaded: Loaded, prompts: Sequence[Prompt], job: GenerationJob, title: str) -> Generated:
    """A prediction for each prompt. Batches are of like length, so that little is padding."""
    from transformers import set_seed

    set_seed(job.seed)
    encoded = [loaded.encoder.prompt(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(encoded[row].ids), reverse=True)
    found: dict[int, list[Candidate]] = {}
    with _progress() as progress:
        for start in range(0, len(order), job.generation.batch_size):
            batch = order[start : start + job.generation.batch_size]
            decoded = _within_memory(loaded, [encoded[row].ids for row in batch], job)
            found.update(zip(batch, decoded, strict=True))
            progress.update(progress.task_ids[0], description=title, completed=len(found), total=len(order))
    predictions = [
        Prediction(fname=prompt.fname, text=found[row][0].text, candidates=tuple(found[row]))
        for row, prompt in enumerate(prompts)
    ]
    return Generated(predictions, sum(prompt.shortened for prompt in encoded))


def check_generated(generated: Generated, limits: LimitsParams, model: str) -> None:
    """Stop where more summaries are empty, or more prompts shortened, than the user allows."""
    rows = len(generated.predictions)
    check_shortened(generated.shortened_prompts, rows, limits, model)
    empty = generated.empty
    percent = 100 * len(empty) / rows
    if percent > limits.empty_percent:
        raise UserError(
            f"{model}: {len(empty)} of {rows} summaries are empty ({percent:.1f} %), the first {empty[0]}; "
            f"limits.empty_percent is {limits.empty_percent:g}: train longer, change models.{model}.generation, or "
            "raise it"
        )


def _progress() -> Progress:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("dialogues"),
        TimeRemainingColumn(),
    )
    progress.add_task("")
    return progress


def _within_memory(loaded: Loaded, prompts: list[list[int]], job: GenerationJob) -> list[list[Candidate]]:
    """Decode a batch, in halves where the GPU runs out of memory."""
    import torch

    try:
        return _decode(loaded, prompts, job)
    except torch.cuda.OutOfMemoryError:
        if len(prompts) == 1:
            raise UserError(
                "a single dialogue does not fit into the GPU's memory; lower generation.num_beams, "
                "generation.max_new_tokens or the model's max_prompt_tokens"
            ) from None
    # Outside `except`, where the error no longer holds the tensors of the failed attempt.
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    print(f"out of GPU memory with {len(prompts)} dialogues: going on in halves", flush=True)
    return [row for part in (prompts[:half], prompts[half:]) for row in _within_memory(loaded, part, job)]


def _decode(loaded: Loaded, prompts: list[list[int]], job: GenerationJob) -> list[list[Candidate]]:
    """The candidates of each prompt, best first."""
    import torch

    # A decoder goes on from the last token, an encoder reads from the first: padding stands at the other end.
    side = "right" if job.model.method == "full" else "left"
    inputs = loaded.tokenizer.pad({"input_ids": prompts}, padding_side=side, return_tensors="pt").to(device())
    prompt_length = 1 if job.model.method == "full" else inputs["input_ids"].shape[1]
    # In place of the model's own, whose penalties and forced tokens `generate` would mix in.
    loaded.model.generation_config = _config(loaded, job.generation)
    with torch.inference_mode():
        sequences = loaded.model.generate(**inputs, logits_processor=_processors(job.generation, prompt_length))
        answers = [_until_end(ids, _end_ids(loaded)) for ids in sequences[:, prompt_length:].tolist()]
        repeated = [prompt for prompt in prompts for _ in range(job.generation.candidates)]
        log_probabilities = _log_probabilities(loaded, job.model, repeated, answers)
    texts = [text.strip() for text in loaded.tokenizer.batch_decode(answers, skip_special_tokens=True)]
    finished = [answer[-1] in _end_ids(loaded) for answer in answers]
    candidates = [
        Candidate(text=text, log_probability=value, finished=ended)
        for text, value, ended in zip(texts, log_probabilities, finished, strict=True)
    ]
    width = job.generation.candidates
    groups = [candidates[start : start + width] for start in range(0, len(candidates), width)]
    if job.generation.search == "sample":
        return [sorted(group, key=lambda candidate: -candidate.log_probability) for group in groups]
    return groups


def _end_ids(loaded: Loaded) -> list[int]:
    """A chat model's end of turn is often not its tokenizer's end token: either ends a summary."""
    return sorted({loaded.encoder.end_id, loaded.tokenizer.eos_token_id})


def _config(loaded: Loaded, params: GenerationParams) -> Any:
    from transformers import GenerationConfig

    of_the_search: dict[str, Any] = {
        "greedy": {},
        "beam": {"length_penalty": params.length_penalty},
        "sample": {"temperature": params.temperature, "top_p": params.top_p, "top_k": 0},
    }[params.search]
    model = loaded.model.config
    return GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        do_sample=params.search == "sample",
        num_beams=params.num_beams,
        num_return_sequences=params.candidates,
        eos_token_id=_end_ids(loaded),
        pad_token_id=loaded.tokenizer.pad_token_id,
        bos_token_id=loaded.tokenizer.bos_token_id,
        decoder_start_token_id=model.decoder_start_token_id if model.is_encoder_decoder else None,
        **of_the_search,
    )


def _processors(params: GenerationParams, prompt_length: int) -> list[Any]:
    if not params.no_repeat_ngram_size:
        return []
    from transformers import NoRepeatNGramLogitsProcessor

    ban = NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size)
    # Looking at the summary alone: a decoder-only model may well repeat what the dialogue says.
    return [lambda ids, scores: ban(ids[:, prompt_length:], scores)]


def _until_end(ids: list[int], end_ids: list[int]) -> list[int]:
    """The generated tokens up to the first end token, that one included; what follows is padding."""
    for position, token in enumerate(ids):
        if token in end_ids:
            return ids[: position + 1]
    return ids


def _log_probabilities(
    loaded: Loaded, spec: ModelSpec, prompts: list[list[int]], answers: list[list[int]]
) -> list[float]:
    """Mean log-probability of each answer's tokens under the model itself, whatever search and penalties found it.

    A second pass over the finished texts: `generate` would keep the logits of every step and beam to tell the same.
    """
    if spec.method == "full":
        return [_seq2seq_log_probability(loaded.model, *pair) for pair in zip(prompts, answers, strict=True)]
    chunks = (slice(start, start + SCORED_TOGETHER) for start in range(0, len(prompts), SCORED_TOGETHER))
    return [value for rows in chunks for value in _causal_log_probabilities(loaded.model, prompts[rows], answers[rows])]


def _causal_log_probabilities(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
    """Of rows joined to one sequence; position ids that begin anew keep the rows from seeing each other."""
    import torch

    rows = [torch.tensor(prompt + answer) for prompt, answer in zip(prompts, answers, strict=True)]
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
    before_answers = torch.cat(
        [torch.arange(end - len(answer) - 1, end - 1) for end, answer in zip(ends, answers, strict=True)]
    )
    logits = model(
        input_ids=torch.cat(rows)[None].to(device()),
        position_ids=positions[None].to(device()),
        use_cache=False,
        logits_to_keep=before_answers.to(device()),
    ).logits[0]
    tokens = torch.tensor([token for answer in answers for token in answer], device=device())
    split = _log_probabilities_of(logits, tokens).split([len(answer) for answer in answers])
    return [float(values.mean()) for values in split]


def _seq2seq_log_probability(model: Any, prompt: list[int], answer: list[int]) -> float:
    import torch

    labels = torch.tensor([answer], device=device())
    logits = model(input_ids=torch.tensor([prompt], device=device()), labels=labels).logits
    return float(_log_probabilities_of(logits[0], labels[0]).mean())


def _log_probabilities_of(logits: Any, tokens: Any) -> Any:
    return logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
