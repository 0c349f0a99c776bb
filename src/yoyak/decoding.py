"""Several answers to each of a batch of prompts, token by token, from decoder-only models.

In place of transformers' `generate` where no answer's past is exchanged for another's, as beams do: a prompt's keys and
values are kept once for all of its answers, not once for each; what is kept of the answers grows as they do; prompts
whose answers are all done leave the batch; and the log-probability of each answer comes with it, not from a second
pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "shared_prompts"
READ_TOGETHER = 16_384
"""Prompt tokens that go through the model at once, padding counted: a constant, so that texts do not depend on the
machine."""
GROWTH = 64
"""Tokens by which the room for answers grows."""

Choose = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""From logits (rows, answers, vocabulary) in fp32, the tokens so far (rows, answers, steps), and which of the prompts
the rows are (rows,): the next tokens (rows, answers)."""


@dataclass
class Answers:
    """Of each prompt, in its order, as many as were asked for."""

    ids: list[list[list[int]]]
    """Tokens; the end token is the last one, unless the limit came first."""
    log_probabilities: list[list[float]]
    """Mean over an answer's tokens, under the model itself, whatever was done to the logits before choosing."""


@torch.inference_mode()
def decode(
    model: Any, prompts: list[list[int]], answers: int, choose: Choose, end_ids: list[int], most: int
) -> Answers:
    """Answers of at most `most` tokens to each prompt."""
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prompts)
    model.set_attn_implementation(NAME)
    try:
        return _decode(model, prompts, answers, choose, end_ids, most)
    finally:
        model.set_attn_implementation(before)


def _decode(
    model: Any, prompts: list[list[int]], answers: int, choose: Choose, end_ids: list[int], most: int
) -> Answers:
    kept, logits = _read(model, prompts)
    stepper = Stepper(model, kept)
    logits = logits[:, None].expand(-1, answers, -1)
    ends = torch.tensor(end_ids, device=logits.device)
    # Of all prompts; `here` are those still in the batch.
    tokens = torch.full((len(prompts), answers, most), end_ids[0], device=logits.device)
    lengths = torch.full((len(prompts), answers), most, device=logits.device)
    totals = torch.zeros((len(prompts), answers), device=logits.device)
    here = torch.arange(len(prompts), device=logits.device)
    for step in range(most):
        logits = logits.float()
        chosen = choose(logits, tokens[here, :, :step], here)
        open_ = lengths[here] == most
        tokens[here, :, step] = torch.where(open_, chosen, ends[0])
        likely = logits.gather(-1, chosen[..., None])[..., 0] - logits.logsumexp(-1)
        totals[here] += likely.where(open_, 0.0)
        lengths[here] = torch.where(open_ & torch.isin(chosen, ends), step + 1, lengths[here])
        going_on = (lengths[here] == most).any(1)
        left = int(going_on.sum())
        if left == 0 or step + 1 == most:
            break
        if left <= len(here) // 2:
            here = here[going_on]
            stepper.keep(going_on)
        logits = stepper.next(tokens[here, :, step], step)
    return Answers(_cut(tokens, lengths), (totals / lengths).tolist())


def _cut(tokens: torch.Tensor, lengths: torch.Tensor) -> list[list[list[int]]]:
    return [
        [ids[:length] for ids, length in zip(row, row_lengths, strict=True)]
        for row, row_lengths in zip(tokens.tolist(), lengths.tolist(), strict=True)
    ]


@dataclass
class Kept:
    """Keys and values of a batch, layer by layer."""

    positions: torch.Tensor
    """Of prompt tokens in their prompt, shape (rows, width), below 0 in the padding, which stands before them."""
    prompts: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Shape (rows, heads, width, head size)."""
    answers: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    """Shape (rows, answers, heads, steps, head size)."""
    step: torch.Tensor | None = None
    """Number of the token that is looked at, shape (); none while prompts are read."""

    def make_room(self, answers: int) -> None:
        """For `GROWTH` more tokens of each answer."""
        for layer, (keys, _) in self.prompts.items():
            rows, heads, _, size = keys.shape
            none = keys.new_zeros((rows, answers, heads, 0, size))
            before = self.answers.get(layer, (none, none))
            # The last dimension but one.
            self.answers[layer] = pad(before[0], (0, 0, 0, GROWTH)), pad(before[1], (0, 0, 0, GROWTH))

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but those that `rows`, shape (rows,), is true for, and padding that all of them have."""
        self.positions = self.positions[rows]
        padding = int((self.positions < 0).sum(1).min())
        self.positions = self.positions[:, padding:]
        self.prompts = {
            layer: (keys[rows, :, padding:], values[rows, :, padding:])
            for layer, (keys, values) in self.prompts.items()
        }
        self.answers = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.answers.items()}


def _read(model: Any, prompts: list[list[int]]) -> tuple[Kept, torch.Tensor]:
    """Keys and values of the prompts, and the logits after each, shape (rows, vocabulary)."""
    width = max(map(len, prompts))
    together = max(1, READ_TOGETHER // width)
    parts = [_read_part(model, prompts[start : start + together], width) for start in range(0, len(prompts), together)]
    layers = parts[0][0].prompts
    joined = {
        layer: tuple(torch.cat([kept.prompts[layer][part] for kept, _ in parts]) for part in (0, 1)) for layer in layers
    }
    kept = Kept(torch.cat([kept.positions for kept, _ in parts]), joined)  # type: ignore[arg-type]
    return kept, torch.cat([logits for _, logits in parts])


def _read_part(model: Any, prompts: list[list[int]], width: int) -> tuple[Kept, torch.Tensor]:
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    positions = torch.arange(width)[None] - (width - lengths)[:, None]
    ids = torch.tensor([[prompt[0]] * (width - len(prompt)) + prompt for prompt in prompts])
    kept = Kept(positions.to(model.device))
    output = model(
        input_ids=ids.to(model.device),
        position_ids=kept.positions.clamp(min=0),
        use_cache=False,
        logits_to_keep=1,
        kept=kept,
    )
    return kept, output.logits[:, -1]


class Stepper:
    """From the last tokens of answers to the logits of their next.

    A step is a thousand small kernels, and launching them takes the host several times as long as a GPU computes. So
    the second step of a shape is recorded as a CUDA graph, and those after it launch that.
    """

    def __init__(self, model: Any, kept: Kept) -> None:
        self.model, self.kept = model, kept
        self._recorded: tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor] | None = None
        """With the tokens that it reads and the logits that it writes."""
        self._shape_is_new = True

    def next(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        """Logits (rows, answers, vocabulary) after `tokens` (rows, answers), the answers' tokens number `step`.

        They are overwritten by the next call.
        """
        if self.kept.step is None:
            self.kept.step = torch.zeros((), dtype=torch.long, device=tokens.device)
        if step % GROWTH == 0:
            self._forget()
            self.kept.make_room(tokens.shape[1])
        self.kept.step.fill_(step)
        if self._shape_is_new or tokens.device.type == "cpu":
            self._shape_is_new = False
            return _after(self.model, self.kept, tokens)
        if self._recorded is None:
            self._recorded = self._record(tokens)
        graph, read, written = self._recorded
        read.copy_(tokens)
        graph.replay()
        return written

    def keep(self, rows: torch.Tensor) -> None:
        """As `Kept.keep`."""
        self._forget()
        self.kept.keep(rows)

    def _forget(self) -> None:
        """A graph is of tensors at their places."""
        self._recorded, self._shape_is_new = None, True

    def _record(self, tokens: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        graph, read = torch.cuda.CUDAGraph(), tokens.clone()
        with torch.cuda.graph(graph):
            written = _after(self.model, self.kept, read)
        return graph, read, written


def _after(model: Any, kept: Kept, tokens: torch.Tensor) -> torch.Tensor:
    assert kept.step is not None
    positions = kept.positions[:, -1:] + 1 + kept.step
    output = model(
        input_ids=tokens.reshape(-1, 1),
        position_ids=positions.repeat_interleave(tokens.shape[1], 0),
        use_cache=False,
        kept=kept,
    )
    logits: torch.Tensor = output.logits
    return logits.view(*tokens.shape, -1)


def shared_prompts(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    kept: Kept,
    scaling: float,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (rows or rows x answers, heads, tokens, head size)."""
    layer = module.layer_idx
    if kept.step is None:
        kept.prompts[layer] = _to_keep(key), _to_keep(value)
        output = _over_prompts(query, key, value, kept.positions, scaling, sliding_window)
    else:
        _keep_answers(kept, layer, key, value)
        output = _over_answers(kept, layer, query, scaling, sliding_window)
    return output, None


def _over_prompts(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    positions: torch.Tensor,
    scaling: float,
    sliding_window: int | None,
) -> torch.Tensor:
    distance = positions[:, :, None] - positions[:, None, :]
    seen = (distance >= 0) & (positions[:, None, :] >= 0)
    if sliding_window is not None:
        seen &= distance < sliding_window
    # A row of padding that sees nothing would be no number, and padding is seen by nobody.
    seen |= torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=seen[:, None], scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2)


def _keep_answers(kept: Kept, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """The keys and values of one token of each answer."""
    assert kept.step is not None
    for room, new in zip(kept.answers[layer], (key, value), strict=True):
        rows, answers, heads, _, size = room.shape
        room.index_copy_(3, kept.step[None], new.view(rows, answers, heads, 1, size).to(room.dtype))


def _over_answers(
    kept: Kept, layer: int, query: torch.Tensor, scaling: float, sliding_window: int | None
) -> torch.Tensor:
    """Queries of one token of each answer, over its prompt and over what it has said.

    Heads that share a key are, like the answers to one prompt, more queries over the same keys.
    """
    prompt_keys, prompt_values = kept.prompts[layer]
    answer_keys, answer_values = kept.answers[layer]
    rows, answers, heads, _, size = answer_keys.shape
    group = query.shape[1] // heads
    assert kept.step is not None
    queries = query.view(rows, answers, heads, group, size) * scaling
    of_prompts = queries.transpose(1, 2).reshape(rows, heads, answers * group, size)

    prompt_scores = _product(of_prompts, prompt_keys.transpose(-1, -2))
    prompt_scores = prompt_scores.masked_fill(~_seen_of_prompts(kept, sliding_window)[:, None, None], -torch.inf)
    prompt_scores = prompt_scores.view(rows, heads, answers, group, -1).transpose(1, 2)
    answer_scores = _product(queries, answer_keys.transpose(-1, -2))
    answer_scores = answer_scores.masked_fill(~_seen_of_answers(kept, layer, sliding_window), -torch.inf)

    width = prompt_keys.shape[2]
    shares = torch.cat([prompt_scores, answer_scores], -1).softmax(-1).to(query.dtype)
    of_prompts = shares[..., :width].transpose(1, 2).reshape(rows, heads, answers * group, width)
    output = _product(of_prompts, prompt_values).view(rows, heads, answers, group, size).transpose(1, 2)
    output = output + _product(shares[..., width:], answer_values)
    return output.reshape(rows * answers, 1, heads * group, size).to(query.dtype)


def _to_keep(tensor: torch.Tensor) -> torch.Tensor:
    """A CPU multiplies bf16 into bf16; what is rounded there changes texts, and memory is plenty."""
    return tensor.float() if tensor.device.type == "cpu" else tensor


def _product(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Matrix products in fp32, as fused kernels sum them up."""
    if other.dtype == torch.float32:
        return one.float() @ other
    flat = torch.bmm(one.flatten(0, -3), other.flatten(0, -3), out_dtype=torch.float32)
    return flat.view(*one.shape[:-1], other.shape[-1])


def _seen_of_prompts(kept: Kept, sliding_window: int | None) -> torch.Tensor:
    """Shape (rows, width)."""
    assert kept.step is not None
    seen = kept.positions >= 0
    if sliding_window is not None:
        now = kept.positions[:, -1:] + 1 + kept.step
        seen = seen & (now - kept.positions < sliding_window)
    return seen


def _seen_of_answers(kept: Kept, layer: int, sliding_window: int | None) -> torch.Tensor:
    """Shape (steps,)."""
    assert kept.step is not None
    steps = torch.arange(kept.answers[layer][0].shape[3], device=kept.positions.device)
    seen = steps <= kept.step
    if sliding_window is not None:
        seen = seen & (kept.step - steps < sliding_window)
    return seen
