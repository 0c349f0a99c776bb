"""Summaries of prompts: batches of candidates with their log-probabilities, kept as they are done."""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pydantic import BaseModel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import set_seed

from yoyak import decoding, hf_decoding, search
from yoyak.errors import UserError
from yoyak.machine import LimitsParams, check_shortened
from yoyak.models import Loaded
from yoyak.records import Candidate, Prediction, Prompt
from yoyak.scripts import ScriptGuard, foreign_words
from yoyak.search import GenerationJob

SECOND_SEARCH = {"repetition_penalty": 1.2, "min_new_tokens": 4, "script_guard": True}
"""Against what makes summaries endless, empty or foreign."""


@dataclass(frozen=True)
class Generated:
    """Predictions in the order of their prompts, and what happened on the way."""

    predictions: list[Prediction]
    shortened_prompts: int
    """Prompts that lost turns to fit the token budget."""
    generated_again: int
    """Dialogues whose first candidates all had faults."""
    done_before: int
    """Dialogues that a run which was killed had done."""

    @property
    def empty(self) -> list[str]:
        """The rows whose summary is empty."""
        return [prediction.fname for prediction in self.predictions if not prediction.text]

    @property
    def faults(self) -> Counter[str]:
        """Summaries with each fault, after the second search."""
        return Counter(fault for prediction in self.predictions for fault in prediction.faults or ())


class Asked(NamedTuple):
    """A prompt of a batch."""

    row: int
    """Its place among all prompts."""
    ids: list[int]
    dialogue: str


def generate(loaded: Loaded, prompts: Sequence[Prompt], job: GenerationJob, title: str, kept: Path) -> Generated:
    """A prediction for each prompt. Where each candidate has a fault, others are searched for, with `SECOND_SEARCH`.

    `kept` is a folder to which each batch is added as it is done, for the next run should this one be killed.
    """
    encoded = [loaded.encoder.prompt(prompt) for prompt in prompts]
    asked = [Asked(row, prompt.ids, "\n".join(prompts[row].turns)) for row, prompt in enumerate(encoded)]
    done_before, found = _searched(loaded, asked, job, title, kept / "first.jsonl")
    faulty = [
        prompt for prompt in asked if all(faults_of(candidate, prompt.dialogue) for candidate in found[prompt.row])
    ]
    second = job.model_copy(update={"generation": job.generation.model_copy(update=SECOND_SEARCH)})
    _, again = _searched(loaded, faulty, second, f"{title}, again", kept / "second.jsonl")
    predictions = [
        _prediction(prompts[prompt.row].fname, prompt.dialogue, found[prompt.row], again.get(prompt.row))
        for prompt in asked
    ]
    return Generated(predictions, sum(prompt.shortened for prompt in encoded), len(faulty), done_before)


def faults_of(candidate: Candidate, dialogue: str) -> tuple[str, ...]:
    """For which a summary is searched for again."""
    found = {
        "empty": not candidate.text,
        "unfinished": not candidate.finished,
        "foreign_script": not foreign_words(candidate.text) <= foreign_words(dialogue),
    }
    return tuple(fault for fault, there in found.items() if there)


def _prediction(fname: str, dialogue: str, first: list[Candidate], second: list[Candidate] | None) -> Prediction:
    """Of the second search, if it is better; candidates with the fewest faults before others."""

    def fewest_first(candidates: list[Candidate]) -> list[Candidate]:
        return sorted(candidates, key=lambda candidate: len(faults_of(candidate, dialogue)))

    searches = [fewest_first(candidates) for candidates in (first, second) if candidates]
    best, *others = min(searches, key=lambda candidates: len(faults_of(candidates[0], dialogue)))
    faults = faults_of(best, dialogue) or None
    return Prediction(fname=fname, text=best.text, candidates=(best, *others), faults=faults)


def _searched(
    loaded: Loaded, asked: list[Asked], job: GenerationJob, title: str, kept: Path
) -> tuple[int, dict[int, list[Candidate]]]:
    """How many were done before; and the candidates of each. Batches are of like length, so that little is padding."""
    order = sorted(asked, key=lambda prompt: len(prompt.ids), reverse=True)
    size = job.generation.batch_size
    found = _read_kept(kept)
    done_before = len(found)
    if found:
        print(f"{title}: {len(found)} of {len(asked)} dialogues were done before; going on", flush=True)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    missing = [batch for batch in batches if not {prompt.row for prompt in batch} <= set(found)]
    if not missing:
        return done_before, found
    guard = _guard(loaded) if job.generation.script_guard else None
    with _progress(title, len(asked), done_before) as progress:
        for batch in missing:
            decoded = _within_memory(loaded, batch, job, guard)
            rows = dict(zip([prompt.row for prompt in batch], decoded, strict=True))
            _keep(kept, rows)
            found.update(rows)
            progress.update(progress.task_ids[0], completed=len(found))
    return done_before, found


class KeptBatch(BaseModel):
    """A line of the file that a killed run leaves."""

    rows: dict[int, list[Candidate]]
    """Of prompts, by their place."""


def _keep(path: Path, rows: dict[int, list[Candidate]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
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


def _within_memory(
    loaded: Loaded, batch: list[Asked], job: GenerationJob, guard: ScriptGuard | None
) -> list[list[Candidate]]:
    """Decode a batch, in halves where the GPU runs out of memory."""
    import torch

    try:
        return _decode(loaded, batch, job, guard)
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise UserError(
                "a single dialogue does not fit into the GPU's memory; lower generation.candidates, "
                "generation.num_beams, generation.max_new_tokens or the model's max_prompt_tokens"
            ) from None
    # Outside `except`, where the error no longer holds the tensors of the failed attempt.
    torch.cuda.empty_cache()
    half = len(batch) // 2
    print(
        f"out of GPU memory with {len(batch)} dialogues: going on in halves, which may change their texts; lower "
        "generation.batch_size to have the same texts on every machine",
        flush=True,
    )
    return [row for part in (batch[:half], batch[half:]) for row in _within_memory(loaded, part, job, guard)]


def _decode(loaded: Loaded, batch: list[Asked], job: GenerationJob, guard: ScriptGuard | None) -> list[list[Candidate]]:
    """The candidates of each prompt, best first."""
    params, prompts = job.generation, [asked.ids for asked in batch]
    forbidden = guard.forbidden([asked.dialogue for asked in batch]) if guard else None
    if params.search != "beam" and decoding.supports(loaded.model):
        # Each batch draws from its own seed: those that a killed run had done change nothing.
        seed = zlib.crc32(repr((params.seed, batch[0].row)).encode())
        choose = search.chooser(params, _end_ids(loaded), loaded.model.device, seed, forbidden)
        answers = decoding.decode(
            loaded.model, prompts, params.candidates, choose, _end_ids(loaded), params.max_new_tokens
        )
    else:
        set_seed(params.seed + batch[0].row)
        answers = hf_decoding.decode(loaded, prompts, job, _end_ids(loaded), forbidden)
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


def _end_ids(loaded: Loaded) -> list[int]:
    """A chat model's end of turn is often not its tokenizer's end token: either ends a summary."""
    return sorted({loaded.encoder.end_id, loaded.tokenizer.eos_token_id})


_guards: WeakKeyDictionary[Any, ScriptGuard] = WeakKeyDictionary()
"""By model, and no longer there than it: a guard must not keep its model in memory."""


def _guard(loaded: Loaded) -> ScriptGuard:
    """Made once a model: a large vocabulary takes seconds."""
    model = loaded.model
    if model not in _guards:
        size = model.get_output_embeddings().weight.shape[0]
        _guards[model] = ScriptGuard(loaded.tokenizer, _end_ids(loaded), size, model.device)
    return _guards[model]
