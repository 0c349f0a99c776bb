"""Summaries of prompts: candidates with their log-probabilities, kept as they are done."""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from yoyak.core import gpu
from yoyak.core.errors import UserError
from yoyak.core.limits import LimitsParams, check_shortened
from yoyak.core.progress import Reporter
from yoyak.core.records import Candidate, Prediction, Prompt
from yoyak.core.run import entry_of
from yoyak.core.text import foreign_words
from yoyak.core.workers import Workers
from yoyak.inference import beams, decoding, hf_decoding
from yoyak.inference.averaging import Averaged
from yoyak.inference.decoding import Candidates, Request
from yoyak.inference.fused import supports_fused
from yoyak.inference.params import GenerationParams, InferenceConfig
from yoyak.inference.partial import append, read_partial
from yoyak.inference.progress import Pace
from yoyak.inference.sampling import Chooser
from yoyak.inference.script_guard import ScriptGuard
from yoyak.modeling.attention import has_plain_attention
from yoyak.modeling.loading import Loaded, vocabulary_of

REPETITION_PENALTY, NEW_TOKENS = 1.2, 4
"""The least of a second search, against what makes summaries endless, and empty."""


@dataclass(frozen=True)
class Generated:
    """Predictions in the order of their prompts, and what happened on the way."""

    predictions: list[Prediction]
    shortened_prompts: int
    """Prompts that lost turns to fit the token budget, of an average: a member's."""
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
    ids: list[list[int]]
    """As each member's tokenizer and template have it."""
    dialogue: str


def generate(
    loaded: Loaded | Averaged,
    prompts: Sequence[Prompt],
    config: InferenceConfig,
    title: str,
    partial: Path,
    repaired: bool = True,
    workers: Workers | None = None,
) -> Generated:
    """A prediction for each prompt. Where each candidate has a fault, others are searched for, less freely, if
    `repaired`. Each of the `workers`, whose work is `search` with models of their own, does as much as this process.

    `partial` is a folder to which each dialogue's candidates are written as they are done: a run after a kill reads
    them.
    """
    encoded = [[member.prompt_tokenizer.encode_prompt(prompt) for member in loaded.members] for prompt in prompts]
    asked = [
        Asked(row, [each.ids for each in of_members], "\n".join(prompts[row].turns))
        for row, of_members in enumerate(encoded)
    ]
    done_before, found = _searched(loaded, asked, config, title, partial / "first.jsonl", workers)
    faulty = [
        prompt
        for prompt in asked
        if repaired and all(faults_of(candidate, prompt.dialogue) for candidate in found[prompt.row])
    ]
    second = config.model_copy(update={"generation": _less_freely(config.generation)})
    _, again = _searched(loaded, faulty, second, f"{title}, second search", partial / "second.jsonl", workers)
    predictions = [
        _prediction(prompts[prompt.row].fname, prompt.dialogue, found[prompt.row], again.get(prompt.row))
        for prompt in asked
    ]
    shortened = sum(any(each.shortened for each in of_members) for of_members in encoded)
    return Generated(predictions, shortened, len(faulty), done_before)


def _less_freely(params: GenerationParams) -> GenerationParams:
    """What the user has set as strictly or more so stays."""
    update = {
        "repetition_penalty": max(params.repetition_penalty, REPETITION_PENALTY),
        "min_new_tokens": min(max(params.min_new_tokens, NEW_TOKENS), params.max_new_tokens),
    }
    return params.model_copy(update=update)


def faults_of(candidate: Candidate, dialogue: str) -> tuple[str, ...]:
    """For which a summary is searched for again."""
    found = {
        "empty": not candidate.text,
        "truncated": not candidate.finished,
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
    loaded: Loaded | Averaged,
    asked: list[Asked],
    config: InferenceConfig,
    title: str,
    partial: Path,
    workers: Workers | None,
) -> tuple[int, dict[int, list[Candidate]]]:
    """How many were done before; and the candidates of each. Those of like length are
    batched together, so that little is padding."""
    found = read_partial(partial)
    done_before = len(found)
    if found:
        print(f"{title}: {len(found)} of {len(asked)} dialogues were done before; going on", flush=True)
    missing = [prompt for prompt in asked if prompt.row not in found]
    missing.sort(key=lambda prompt: sum(map(len, prompt.ids)), reverse=True)
    if not missing:
        return done_before, found
    ranks = 1 + (len(workers) if workers else 0)
    at_work = ranks * at_once(loaded, config) if _is_ours(loaded, config) else 0
    with Reporter(title, "dialogues") as reporter:
        pace = Pace(reporter, len(missing), len(asked), at_work)
        for group in _shared(loaded, missing, config, workers) if workers else search(loaded, missing, config):
            for row, candidates in group:
                found[row] = candidates
                _check_numbers(candidates, f"{title}, dialogue {row + 1}")
                append(partial, row, candidates)
            pace.show(len(found) - done_before)
        pace.end()
    return done_before, found


Found = list[tuple[int, list[Candidate]]]
"""Rows that were done at the same time, and their candidates."""


def _shared(
    loaded: Loaded | Averaged, missing: list[Asked], config: InferenceConfig, workers: Workers
) -> Iterator[Found]:
    """As `search`; those of like length are dealt out one by one, so that all have as much to do."""
    ranks = 1 + len(workers)
    orders = [(missing[rank::ranks], config) for rank in range(ranks)]
    return workers.share(lambda order: search(loaded, *order), orders)


def search(loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig) -> Iterator[Found]:
    """Candidates of each prompt, best first, as they are done."""
    for group in within_memory(loaded, asked, config):
        yield [(prompt.row, _candidates(loaded, candidates, config.generation)) for prompt, candidates in group]


def _check_numbers(candidates: list[Candidate], where: str) -> None:
    """Weights may be sound, and what is computed from them overflow."""
    if not all(math.isfinite(candidate.log_probability) for candidate in candidates):
        raise UserError(
            f"{where}: the model computes what is no number (NaN or infinite); set its dtype to fp32, or train it anew "
            "with a lower learning_rate"
        )


def check_generated(generated: Generated, limits: LimitsParams, model: str) -> None:
    """Stop where more summaries are empty, or more prompts shortened, than the user allows."""
    rows = len(generated.predictions)
    check_shortened(generated.shortened_prompts, rows, limits, model)
    empty = generated.empty
    percent = 100 * len(empty) / rows
    if percent > limits.empty_percent:
        raise UserError(
            f"{model}: {len(empty)} of {rows} summaries are empty ({percent:.1f} %), the first {empty[0]}; "
            f"limits.empty_percent is {limits.empty_percent:g}: train longer, change "
            f"models.{entry_of(model)}.generation, or raise it"
        )


Group = list[tuple[Asked, Candidates]]
"""Prompts that are done at the same time, with their candidates."""


def within_memory(loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig) -> Iterator[Group]:
    """Candidates of each prompt, half as many at once from where memory runs out."""
    left, max_batch_size = {prompt.row: prompt for prompt in asked}, at_once(loaded, config)
    while left:
        try:
            for group in _decoded(loaded, list(left.values()), config, max_batch_size):
                for prompt, _ in group:
                    del left[prompt.row]
                yield group
        except gpu.MAY_BE_OOM as error:
            if not gpu.is_oom(error):
                raise
            of = gpu.memory_of(error)
        else:
            return
        # Outside `except`, where the error no longer holds the tensors of the failed attempt.
        gpu.release_memory()
        if max_batch_size == 1:
            raise UserError(
                f"a single dialogue does not fit into the {of}; lower generation.candidates, "
                "generation.num_beams, generation.max_new_tokens or the model's max_prompt_tokens"
            )
        max_batch_size = min(max_batch_size, len(left) + 1) // 2
        print(
            f"out of {of}: {max_batch_size} dialogues together from here, which may change their texts; lower "
            "generation.batch_size to have the same texts on every machine",
            flush=True,
        )


def _decoded(
    loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig, max_batch_size: int
) -> Iterator[Group]:
    """Candidates as they are done."""
    if not _is_ours(loaded, config):
        decode = _by_transformers
    else:
        decode = _by_beams if config.generation.search == "beam" else _by_us
    yield from decode(loaded, asked, config, max_batch_size)


def _is_ours(loaded: Loaded | Averaged, config: InferenceConfig) -> bool:
    """Whether `decoding` or `beams` does this search of these models, which begins with one prompt as it ends with
    another."""
    known = {"greedy": has_plain_attention, "sample": has_plain_attention, "beam": beams.is_known}
    is_known = known.get(config.generation.search)
    return is_known is not None and all(is_known(member.model) for member in loaded.members)


def at_once(loaded: Loaded | Averaged, config: InferenceConfig) -> int:
    """How many dialogues are decoded together: `batch_size`, or fewer where that is more than a step gets faster by, or
    than memory holds."""
    if is_one_at_a_time(loaded, config):
        return 1
    params = config.generation
    # Constants, so that texts do not depend on the machine.
    paged = (
        _is_ours(loaded, config)
        and params.search != "beam"
        and all(supports_fused(each.model) for each in loaded.members)
    )
    dialogues, candidates = (params.batch_size, 1024) if paged else (min(params.batch_size, 32), 256)
    return min(dialogues, max(1, candidates // max(params.candidates, params.num_beams)))


def is_one_at_a_time(loaded: Loaded | Averaged, config: InferenceConfig) -> bool:
    """Whether padding would change what a model writes."""
    return not _is_ours(loaded, config) and not hf_decoding.bears_padding(loaded.members)


def _of_members(asked: list[Asked]) -> list[list[list[int]]]:
    """Each member's prompts."""
    return [list(prompts) for prompts in zip(*(prompt.ids for prompt in asked), strict=True)]


def _by_us(
    loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig, max_batch_size: int
) -> Iterator[Group]:
    params, device = config.generation, loaded.members[0].model.device
    # Its own draws for each dialogue: which ones a killed run had done, or stand beside it, changes nothing.
    seeds = [zlib.crc32(repr((params.seed, prompt.row)).encode()) for prompt in asked]
    chooser = Chooser(params, loaded.end_ids, device, seeds, _forbidden(loaded, asked, params))
    request = Request(params.candidates, params.max_new_tokens, loaded.end_ids, chooser.choose, chooser.facts)
    models = [member.model for member in loaded.members]
    for number, candidates in decoding.decode(models, _of_members(asked), max_batch_size, request):
        yield [(asked[number], candidates)]


def _by_beams(
    loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig, max_batch_size: int
) -> Iterator[Group]:
    request = beams.Request(config.generation, loaded.end_ids, _forbidden(loaded, asked, config.generation))
    models = [member.model for member in loaded.members]
    for number, candidates in beams.decode(models, _of_members(asked), max_batch_size, request):
        yield [(asked[number], candidates)]


def _by_transformers(
    loaded: Loaded | Averaged, asked: list[Asked], config: InferenceConfig, max_batch_size: int
) -> Iterator[Group]:
    forbidden = _forbidden(loaded, asked, config.generation)
    for start in range(0, len(asked), max_batch_size):
        batch = asked[start : start + max_batch_size]
        torch.manual_seed(config.generation.seed + batch[0].row)
        tokens = forbidden([*range(start, start + len(batch))]) if forbidden else None
        candidates = hf_decoding.decode(loaded.members, _of_members(batch), config.generation, tokens)
        yield list(zip(batch, candidates, strict=True))


def _forbidden(
    loaded: Loaded | Averaged, asked: list[Asked], params: GenerationParams
) -> Callable[[list[int]], Any] | None:
    """From numbers of prompts to tokens that must not stand in their summaries, shape (prompts, vocabulary)."""
    guard = _guard(loaded) if params.script_guard else None
    return (lambda numbers: guard.forbidden([asked[number].dialogue for number in numbers])) if guard else None


def as_texts(loaded: Loaded | Averaged, decoded: Candidates) -> list[Candidate]:
    """In the order in which they were found."""
    texts = loaded.prompt_tokenizer.decode(decoded.ids)
    return [
        Candidate(text=text.strip(), log_probability=value, finished=ids[-1] in loaded.end_ids)
        for text, ids, value in zip(texts, decoded.ids, decoded.log_probabilities, strict=True)
    ]


def _candidates(loaded: Loaded | Averaged, decoded: Candidates, params: GenerationParams) -> list[Candidate]:
    """Best first: as beams rank, else by log-probability."""
    candidates = as_texts(loaded, decoded)
    if params.search == "beam":
        return candidates
    return sorted(candidates, key=lambda candidate: -candidate.log_probability)


_guards: WeakKeyDictionary[Any, ScriptGuard] = WeakKeyDictionary()
"""By model, and no longer there than it: a guard must not keep its model in memory."""


def _guard(loaded: Loaded | Averaged) -> ScriptGuard:
    """Made once a model: a large vocabulary takes seconds. An average has the logits of its smallest one."""
    model = min((member.model for member in loaded.members), key=vocabulary_of)
    if model not in _guards:
        _guards[model] = ScriptGuard(loaded.tokenizer, loaded.end_ids, vocabulary_of(model), model.device)
    return _guards[model]
