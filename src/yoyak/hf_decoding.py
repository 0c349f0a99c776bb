"""Decoding by transformers' `generate`: beams, encoder-decoders, and decoders that `decoding` does not know."""

from collections.abc import Callable
from typing import Any

from yoyak import search
from yoyak.decoding import Answers
from yoyak.machine import device
from yoyak.models import Loaded, ModelSpec
from yoyak.search import GenerationJob, GenerationParams

SCORED_TOGETHER = 4
"""Finished texts whose log-probabilities are computed in one pass."""
Processor = Callable[[Any, Any], Any]
"""Of transformers' kind: from the tokens of summaries so far (summaries, steps) and scores (summaries, vocabulary) to
scores."""


def decode(
    loaded: Loaded, prompts: list[list[int]], job: GenerationJob, end_ids: list[int], forbidden: Any = None
) -> list[Answers]:
    """The candidates of each prompt; `forbidden` are tokens, shape (prompts, vocabulary)."""
    import torch

    # A decoder goes on from the last token, an encoder reads from the first: padding stands at the other end.
    side = "right" if job.model.method == "full" else "left"
    inputs = loaded.tokenizer.pad({"input_ids": prompts}, padding_side=side, return_tensors="pt").to(device())
    prompt_length = 1 if job.model.method == "full" else inputs["input_ids"].shape[1]
    width = job.generation.candidates
    with torch.inference_mode():
        chain = [_penalties(job.generation, end_ids)]
        if job.generation.search == "diverse_beam":
            answers = _in_groups(loaded, inputs, prompt_length, job.generation, end_ids, chain, forbidden)
        else:
            answers = _generated(
                loaded, inputs, prompt_length, _config(loaded, job.generation, end_ids), chain, forbidden
            )
        repeated = [prompt for prompt in prompts for _ in range(width)]
        values = log_probabilities(loaded, job.model, repeated, answers)
    starts = range(0, len(answers), width)
    return [Answers(answers[start : start + width], values[start : start + width]) for start in starts]


def _generated(
    loaded: Loaded, inputs: Any, prompt_length: int, config: Any, chain: list[Processor], forbidden: Any
) -> list[list[int]]:
    # In place of the model's own, whose penalties and forced tokens `generate` would mix in.
    loaded.model.generation_config = config
    sequences = loaded.model.generate(**inputs, logits_processor=of_answers(chain, prompt_length, forbidden))
    return [_until_end(ids, config.eos_token_id) for ids in sequences[:, prompt_length:].tolist()]


def _in_groups(
    loaded: Loaded,
    inputs: Any,
    prompt_length: int,
    params: GenerationParams,
    end_ids: list[int],
    chain: list[Processor],
    forbidden: Any,
) -> list[list[int]]:
    """Diverse beam search: the best of each group, then the second of each, as many as candidates are asked for.

    transformers 5 has no groups of beams any more. A group depends on those before it alone, and so they are searched
    one after another.
    """
    size = params.num_beams // params.num_beam_groups
    config = _config(loaded, params, end_ids)
    config.num_beams = config.num_return_sequences = size
    rows = len(inputs["input_ids"])
    apart = Diversity(params.diversity_penalty, rows, end_ids)
    groups = []
    for _ in range(params.num_beam_groups):
        groups.append(_generated(loaded, inputs, prompt_length, config, [*chain, apart], forbidden))
        apart.begin_group()
    by_row = [
        [group[row * size + rank] for rank in range(size) for group in groups][: params.candidates]
        for row in range(rows)
    ]
    return [answer for answers in by_row for answer in answers]


class Diversity:
    """Vijayakumar et al. 2016 (arXiv:1610.02424), by Hamming distance: `penalty` off a token's score for each beam of
    an earlier group that has it at this step.

    Two exceptions: an end is never held against a later group, for what follows it is padding; nor is what the earlier
    groups said last before the limit, which `generate` does not tell.
    """

    def __init__(self, penalty: float, rows: int, end_ids: list[int]) -> None:
        self.penalty, self.rows, self.end_ids = penalty, rows, end_ids
        self._earlier: dict[int, Any] = {}
        """Of each step, the tokens of earlier groups' beams, shape (rows, beams)."""
        self._own: dict[int, Any] = {}

    def __call__(self, ids: Any, scores: Any) -> Any:
        import torch

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
        import torch

        for step, tokens in self._own.items():
            before = self._earlier.get(step, tokens[:, :0])
            self._earlier[step] = torch.cat([before, tokens], 1)
        self._own = {}


def _config(loaded: Loaded, params: GenerationParams, end_ids: list[int]) -> Any:
    from transformers import GenerationConfig

    of_the_search: dict[str, Any] = {
        "greedy": {},
        "beam": {"length_penalty": params.length_penalty},
        "diverse_beam": {"length_penalty": params.length_penalty},
        "sample": {"temperature": params.temperature, "top_p": params.top_p, "top_k": params.top_k},
    }[params.search]
    model = loaded.model.config
    return GenerationConfig(
        max_new_tokens=params.max_new_tokens,
        do_sample=params.search == "sample",
        num_beams=params.num_beams,
        num_return_sequences=params.candidates,
        eos_token_id=end_ids,
        pad_token_id=loaded.tokenizer.pad_token_id,
        bos_token_id=loaded.tokenizer.bos_token_id,
        decoder_start_token_id=model.decoder_start_token_id if model.is_encoder_decoder else None,
        **of_the_search,
    )


def _penalties(params: GenerationParams, end_ids: list[int]) -> Processor:
    def process(ids: Any, scores: Any) -> Any:
        counts = ids.new_full((len(ids),), ids.shape[1])
        return search.penalised(scores, ids, counts, params, end_ids)

    return process


def of_answers(chain: list[Processor], prompt_length: int, forbidden: Any) -> list[Processor]:
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
    loaded: Loaded, spec: ModelSpec, prompts: list[list[int]], answers: list[list[int]]
) -> list[float]:
    """Mean log-probability of each answer's tokens under the model itself, whatever search and penalties found it.

    A second pass over the finished texts: `generate` would keep the logits of every step and beam to tell the same.
    """
    if spec.method == "full":
        return [_seq2seq_log_probability(loaded.model, *pair) for pair in zip(prompts, answers, strict=True)]
    chunks = (slice(start, start + SCORED_TOGETHER) for start in range(0, len(prompts), SCORED_TOGETHER))
    return [value for rows in chunks for value in causal_log_probabilities(loaded.model, prompts[rows], answers[rows])]


def causal_log_probabilities(model: Any, prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
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
