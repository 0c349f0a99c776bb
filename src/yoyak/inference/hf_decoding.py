"""Decoding by transformers' `generate`: searches and families that neither `decoding` nor `beams` knows."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch

from yoyak.core.environment import device
from yoyak.inference import sampling
from yoyak.inference.averaging import AveragedModel, mean_logits
from yoyak.inference.decoding import Candidates
from yoyak.inference.params import GenerationParams
from yoyak.modeling import isolation
from yoyak.modeling.loading import Loaded
from yoyak.modeling.precision import PROBE

SCORED_AT_ONCE = 4
"""Finished texts whose log-probabilities are computed in one pass, by a model that keeps packed rows apart."""
_packs: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_pads: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""By model: found once, and no longer there than it."""
Processor = Callable[[Any, Any], Any]
"""Of transformers' kind: from the tokens of summaries so far (summaries, steps) and scores (summaries, vocabulary) to
scores."""


def bears_padding(members: Sequence[Loaded]) -> bool:
    """Whether prompts of unlike length may stand in one batch: what a model writes must not depend on the others."""
    for member in members:
        if member.model not in _pads:
            probe = member.tokenizer(PROBE).input_ids
            _pads[member.model] = isolation.pads(member.model, [probe, probe[len(probe) // 2 :]], _side(member.model))
    return all(_pads[member.model] for member in members)


class Batch(NamedTuple):
    """A batch before its search."""

    model: Any
    inputs: dict[str, Any]
    """Of its `generate`."""
    rows: int
    prompt_length: int
    """Tokens of each sequence that come before the candidate."""
    forbidden: Any
    """Tokens that must not stand in the candidates, shape (rows, vocabulary); or none."""


def decode(
    members: Sequence[Loaded], prompts: Sequence[list[list[int]]], params: GenerationParams, forbidden: Any = None
) -> list[Candidates]:
    """The candidates of each prompt, whose tokens are given for each of the members: a model, or those to be averaged.

    `forbidden` are tokens, shape (prompts, vocabulary).
    """
    width = params.candidates
    with torch.inference_mode():
        batch = _batch(members, prompts, forbidden)
        chain = [_penalties(params, members[0].end_ids)]
        config = _config(batch.model, members[0], params)
        if params.search == "diverse_beam":
            candidates = _in_groups(batch, config, params, chain)
        else:
            candidates = _generated(batch, config, chain)
        repeated = [[prompt for prompt in of_member for _ in range(width)] for of_member in prompts]
        values = log_probabilities([member.model for member in members], repeated, candidates)
    starts = range(0, len(candidates), width)
    return [Candidates(candidates[start : start + width], values[start : start + width]) for start in starts]


def _batch(members: Sequence[Loaded], prompts: Sequence[list[list[int]]], forbidden: Any) -> Batch:
    rows = len(prompts[0])
    padded = [_padded(member, of_member) for member, of_member in zip(members, prompts, strict=True)]
    if len(members) > 1:
        return Batch(AveragedModel([member.model for member in members]), {"prompts": padded}, rows, 1, forbidden)
    model = members[0].model
    prompt_length = 1 if model.config.is_encoder_decoder else padded[0]["input_ids"].shape[1]
    return Batch(model, padded[0], rows, prompt_length, forbidden)


def _padded(member: Loaded, prompts: list[list[int]]) -> Any:
    padded = member.tokenizer.pad({"input_ids": prompts}, padding_side=_side(member.model), return_tensors="pt")
    return padded.to(device())


def _side(model: Any) -> str:
    """A decoder goes on from the last token, an encoder reads from the first: padding stands at the other end."""
    return "right" if model.config.is_encoder_decoder else "left"


def _generated(batch: Batch, config: Any, chain: list[Processor]) -> list[list[int]]:
    # In place of the model's own, whose penalties and forced tokens `generate` would mix in.
    batch.model.generation_config = config
    processors = for_candidates(chain, batch.prompt_length, batch.forbidden)
    sequences = batch.model.generate(**batch.inputs, logits_processor=processors)
    return [_until_end(ids, config.eos_token_id) for ids in sequences[:, batch.prompt_length :].tolist()]


def _in_groups(batch: Batch, config: Any, params: GenerationParams, chain: list[Processor]) -> list[list[int]]:
    """Diverse beam search: the best of each group, then the second of each, as many as candidates are asked for.

    transformers 5 has no groups of beams any more. A group depends on those before it alone, and so they are searched
    one after another.
    """
    size = params.num_beams // params.num_beam_groups
    config.num_beams = config.num_return_sequences = size
    apart = Diversity(params.diversity_penalty, batch.rows, config.eos_token_id)
    groups = []
    for _ in range(params.num_beam_groups):
        groups.append(_generated(batch, config, [*chain, apart]))
        apart.begin_group()
    by_row = [
        [group[row * size + rank] for rank in range(size) for group in groups][: params.candidates]
        for row in range(batch.rows)
    ]
    return [candidate for candidates in by_row for candidate in candidates]


class Diversity:
    """Vijayakumar et al. 2016 (arXiv:1610.02424), by Hamming distance: `penalty` off a token's score for each beam of
    an earlier group that has it at this step.

    Two exceptions: an end is never held against a later group, for what follows it is padding; nor is what the earlier
    groups wrote last before the limit, which `generate` does not return.
    """

    def __init__(self, penalty: float, rows: int, end_ids: list[int]) -> None:
        self.penalty, self.rows, self.end_ids = penalty, rows, end_ids
        self._earlier: dict[int, Any] = {}
        """Of each step, the tokens of earlier groups' beams, shape (rows, beams)."""
        self._own: dict[int, Any] = {}

    def __call__(self, ids: Any, scores: Any) -> Any:
        step = ids.shape[1]
        if step:
            # A beam's last token shows only now which beams went on.
            self._own[step - 1] = ids[:, -1].view(self.rows, -1)
        if step not in self._earlier:
            return scores
        tokens = self._earlier[step]
        times = torch.zeros_like(scores[:: len(scores) // self.rows])
        times.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=times.dtype))
        times[:, self.end_ids] = 0
        return scores - self.penalty * times.repeat_interleave(len(scores) // self.rows, 0)

    def begin_group(self) -> None:
        for step, tokens in self._own.items():
            before = self._earlier.get(step, tokens[:, :0])
            self._earlier[step] = torch.cat([before, tokens], 1)
        self._own = {}


def _config(model: Any, member: Loaded, params: GenerationParams) -> Any:
    from transformers import GenerationConfig

    of_the_search: dict[str, Any] = {
        "greedy": {},
        "beam": {"length_penalty": params.length_penalty},
        "diverse_beam": {"length_penalty": params.length_penalty},
        "sample": {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k},
    }[params.search]
    return GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        do_sample=params.search == "sample",
        num_beams=params.num_beams,
        num_return_sequences=params.candidates,
        eos_token_id=member.end_ids,
        pad_token_id=member.tokenizer.pad_token_id,
        bos_token_id=member.tokenizer.bos_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id if model.config.is_encoder_decoder else None,
        **of_the_search,
    )


def _penalties(params: GenerationParams, end_ids: list[int]) -> Processor:
    ends = torch.tensor(end_ids, device=device())

    def process(ids: Any, scores: Any) -> Any:
        counts = ids.new_full((len(ids),), ids.shape[1])
        return sampling.penalised(scores, ids, counts, params, ends)

    return process


def for_candidates(chain: list[Processor], prompt_length: int, forbidden: Any) -> list[Processor]:
    """Processors that look at the summary alone: a decoder-only model may well repeat what the dialogue says."""

    def behind_the_prompt(process: Processor) -> Processor:
        return lambda ids, scores: process(ids[:, prompt_length:], scores)

    def forbid(ids: Any, scores: Any) -> Any:
        return scores.masked_fill(forbidden.repeat_interleave(len(scores) // len(forbidden), 0), -float("inf"))

    shifted = [behind_the_prompt(process) for process in chain]
    return shifted if forbidden is None else [forbid, *shifted]


def _until_end(ids: list[int], end_ids: list[int]) -> list[int]:
    """The generated tokens up to the first end token, that one included; what follows is padding."""
    for position, token in enumerate(ids):
        if token in end_ids:
            return ids[: position + 1]
    return ids


def log_probabilities(
    models: Sequence[Any], prompts: Sequence[list[list[int]]], candidates: list[list[int]]
) -> list[float]:
    """Mean log-probability of each candidate's tokens under the model itself, whatever search and penalties found it.

    Of several models, each with its own prompts: under the mean of their logits. A second pass over the finished texts:
    `generate` would keep the logits of every step and beam to tell the same.
    """
    packing = all(_bears_packing(model, of_model, candidates) for model, of_model in zip(models, prompts, strict=True))
    at_once = SCORED_AT_ONCE if packing else 1
    chunks = (slice(start, start + at_once) for start in range(0, len(candidates), at_once))
    return [
        value
        for rows in chunks
        for value in _log_probabilities(models, [of_model[rows] for of_model in prompts], candidates[rows])
    ]


def _bears_packing(model: Any, prompts: list[list[int]], candidates: list[list[int]]) -> bool:
    if model.config.is_encoder_decoder or len(candidates) == 1:
        return True  # Nothing is packed.
    if model not in _packs:
        _packs[model] = isolation.packs(model, [prompts[0] + candidates[0], prompts[-1] + candidates[-1]])
    return _packs[model]


def _log_probabilities(
    models: Sequence[Any], prompts: Sequence[list[list[int]]], candidates: list[list[int]]
) -> list[float]:
    logits = mean_logits(
        [_logits_of(model, of_model, candidates) for model, of_model in zip(models, prompts, strict=True)]
    )
    tokens = torch.tensor([token for candidate in candidates for token in candidate], device=device())
    values: Any = logits.log_softmax(-1, dtype=torch.float32).gather(-1, tokens[:, None])[:, 0]
    return [float(part.mean()) for part in values.split([len(candidate) for candidate in candidates])]


def _logits_of(model: Any, prompts: list[list[int]], candidates: list[list[int]]) -> Any:
    """Before each token of the candidates, one candidate after the other: shape (tokens, vocabulary)."""
    if not model.config.is_encoder_decoder:
        return _causal_logits(model, prompts, candidates)
    return torch.cat([_seq2seq_logits(model, *pair) for pair in zip(prompts, candidates, strict=True)])


def _causal_logits(model: Any, prompts: list[list[int]], candidates: list[list[int]]) -> Any:
    """Of rows joined to one sequence; position ids that begin anew keep the rows from seeing each other."""
    rows = [torch.tensor(prompt + candidate) for prompt, candidate in zip(prompts, candidates, strict=True)]
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    ends = torch.tensor([len(row) for row in rows]).cumsum(0).tolist()
    before_candidates = torch.cat(
        [torch.arange(end - len(candidate) - 1, end - 1) for end, candidate in zip(ends, candidates, strict=True)]
    )
    output = model(
        input_ids=torch.cat(rows)[None].to(device()),
        position_ids=positions[None].to(device()),
        use_cache=False,
        logits_to_keep=before_candidates.to(device()),
    )
    return output.logits[0]


def _seq2seq_logits(model: Any, prompt: list[int], candidate: list[int]) -> Any:
    before = torch.tensor([[model.config.decoder_start_token_id, *candidate[:-1]]], device=device())
    return model(input_ids=torch.tensor([prompt], device=device()), decoder_input_ids=before).logits[0]
