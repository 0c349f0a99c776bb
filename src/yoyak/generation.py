"""Summaries of prompts: batches of candidates with their log-probabilities, kept as they are done."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import set_seed

from yoyak import decoding, search
from yoyak.decoding import Answers
from yoyak.errors import UserError
from yoyak.machine import LimitsParams, check_shortened, device
from yoyak.models import Loaded, ModelSpec
from yoyak.records import Candidate, Prediction, Prompt
from yoyak.search import GenerationJob, GenerationParams

SCORED_TOGETHER = 4
"""Finished texts whose log-probabilities are computed in one pass."""


@dataclass(frozen=True)
class Generated:
    """Predictions in the order of their prompts, and what happened on the way."""

    predictions: list[Prediction]
    shortened_prompts: int
    """Prompts that lost turns to fit the token budget."""
    done_before: int
    """Dialogues that a run which was killed had done."""

    @property
    def empty(self) -> list[str]:
        """The rows whose summary is empty."""
        return [prediction.fname for prediction in self.predictions if not prediction.text]

    @property
    def unfinished(self) -> list[str]:
        """The rows whose summary was cut off at `max_new_tokens`."""
        return [prediction.fname for prediction in self.predictions if not prediction.candidates[0].finished]


def generate(loaded: Loaded, prompts: Sequence[Prompt], job: GenerationJob, title: str, kept: Path) -> Generated:
    """A prediction for each prompt. Batches are of like length, so that little is padding.

    `kept` is a file that each batch is added to as it is done, for the next run should this one be killed.
    """
    encoded = [loaded.encoder.prompt(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(encoded[row].ids), reverse=True)
    size = job.generation.batch_size
    found = _read_kept(kept)
    done_before = len(found)
    if found:
        print(f"{title}: {len(found)} of {len(prompts)} dialogues were done before; going on", flush=True)
    with _progress(title, len(prompts), len(found)) as progress:
        for batch in (order[start : start + size] for start in range(0, len(order), size)):
            if set(batch) <= set(found):
                continue
            decoded = _within_memory(loaded, [(row, encoded[row].ids) for row in batch], job)
            _keep(kept, dict(zip(batch, decoded, strict=True)))
            found.update(zip(batch, decoded, strict=True))
            progress.update(progress.task_ids[0], completed=len(found))
    predictions = [
        Prediction(fname=prompt.fname, text=found[row][0].text, candidates=tuple(found[row]))
        for row, prompt in enumerate(prompts)
    ]
    return Generated(predictions, sum(prompt.shortened for prompt in encoded), done_before)


class KeptBatch(BaseModel):
    """A line of the file that a killed run leaves."""

    rows: dict[int, list[Candidate]]
    """Of prompts, by their place."""


def _keep(path: Path, rows: dict[int, list[Candidate]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(KeptBatch(rows=rows).model_dump_json() + "\n")


def _read_kept(path: Path) -> dict[int, list[Candidate]]:
    """Rows of whole batches: the last line may have been cut."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return {row: found for line in lines for row, found in KeptBatch.model_validate_json(line).rows.items()}


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


class Rate(ProgressColumn):
    """Dialogues a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _progress(title: str, rows: int, done: int) -> Progress:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("dialogues,"),
        Rate(),
        TimeRemainingColumn(),
        speed_estimate_period=300,
    )
    progress.add_task(title, total=rows, completed=done)
    return progress


def _within_memory(loaded: Loaded, prompts: list[tuple[int, list[int]]], job: GenerationJob) -> list[list[Candidate]]:
    """Decode a batch of numbered prompts, in halves where the GPU runs out of memory."""
    import torch

    try:
        return _decode(loaded, prompts, job)
    except torch.cuda.OutOfMemoryError:
        if len(prompts) == 1:
            raise UserError(
                "a single dialogue does not fit into the GPU's memory; lower generation.candidates, "
                "generation.num_beams, generation.max_new_tokens or the model's max_prompt_tokens"
            ) from None
    # Outside `except`, where the error no longer holds the tensors of the failed attempt.
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    print(
        f"out of GPU memory with {len(prompts)} dialogues: going on in halves, which may change their texts; lower "
        "generation.batch_size to have the same texts on every machine",
        flush=True,
    )
    return [row for part in (prompts[:half], prompts[half:]) for row in _within_memory(loaded, part, job)]


def _decode(loaded: Loaded, prompts: list[tuple[int, list[int]]], job: GenerationJob) -> list[list[Candidate]]:
    """The candidates of each prompt, best first."""
    params, ids = job.generation, [prompt for _, prompt in prompts]
    if params.search != "beam" and decoding.supports(loaded.model):
        # Each batch draws from its own seed: those that a killed run had done change nothing.
        seed = zlib.crc32(repr((params.seed, prompts[0][0])).encode())
        choose = search.chooser(params, _end_ids(loaded), loaded.model.device, seed)
        answers = decoding.decode(loaded.model, ids, params.candidates, choose, _end_ids(loaded), params.max_new_tokens)
    else:
        set_seed(params.seed + prompts[0][0])
        answers = _with_transformers(loaded, ids, job)
    pairs = zip(answers.ids, answers.log_probabilities, strict=True)
    groups = [_candidates(loaded, *pair) for pair in pairs]
    if params.search == "sample":
        return [sorted(group, key=lambda candidate: -candidate.log_probability) for group in groups]
    return groups


def _candidates(loaded: Loaded, answers: list[list[int]], log_probabilities: list[float]) -> list[Candidate]:
    texts = loaded.tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [
        Candidate(text=text.strip(), log_probability=value, finished=answer[-1] in _end_ids(loaded))
        for text, answer, value in zip(texts, answers, log_probabilities, strict=True)
    ]


def _with_transformers(loaded: Loaded, prompts: list[list[int]], job: GenerationJob) -> Answers:
    """Beams, and models that `decoding` does not know."""
    import torch

    # A decoder goes on from the last token, an encoder reads from the first: padding stands at the other end.
    side = "right" if job.model.method == "full" else "left"
    inputs = loaded.tokenizer.pad({"input_ids": prompts}, padding_side=side, return_tensors="pt").to(device())
    prompt_length = 1 if job.model.method == "full" else inputs["input_ids"].shape[1]
    # In place of the model's own, whose penalties and forced tokens `generate` would mix in.
    loaded.model.generation_config = _config(loaded, job.generation)
    with torch.inference_mode():
        sequences = loaded.model.generate(**inputs, logits_processor=_of_answers(loaded, job.generation, prompt_length))
        answers = [_until_end(ids, _end_ids(loaded)) for ids in sequences[:, prompt_length:].tolist()]
        repeated = [prompt for prompt in prompts for _ in range(job.generation.candidates)]
        log_probabilities = _log_probabilities(loaded, job.model, repeated, answers)
    width = job.generation.candidates
    starts = range(0, len(answers), width)
    return Answers(
        [answers[start : start + width] for start in starts],
        [log_probabilities[start : start + width] for start in starts],
    )


def _end_ids(loaded: Loaded) -> list[int]:
    """A chat model's end of turn is often not its tokenizer's end token: either ends a summary."""
    return sorted({loaded.encoder.end_id, loaded.tokenizer.eos_token_id})


def _config(loaded: Loaded, params: GenerationParams) -> Any:
    from transformers import GenerationConfig

    of_the_search: dict[str, Any] = {
        "greedy": {},
        "beam": {"length_penalty": params.length_penalty},
        "sample": {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k},
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


def _of_answers(loaded: Loaded, params: GenerationParams, prompt_length: int) -> list[Any]:
    """Processors that look at the summary alone: a decoder-only model may well repeat what the dialogue says."""

    def behind_the_prompt(process: search.Processor) -> search.Processor:
        return lambda ids, scores: process(ids[:, prompt_length:], scores)

    return [behind_the_prompt(process) for process in search.processors(params, _end_ids(loaded))]


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
