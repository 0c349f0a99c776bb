"""Dialogues with several answers each, in one sequence: a prompt goes through the model once for all of its answers.

An answer's tokens see its prompt and the answer itself; their positions go on from the prompt's, as if it stood there
alone. Of 300 tokens of prompt and eight answers of 45, apart 2,760 tokens, 660 are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from yoyak.tuning import likelihood

NAME = "shared_prompts"
PADDING = -1
WIDTH_STEP = 16
"""Places of a group are a multiple of it: PyTorch would copy another mask to a place where it is, in each layer."""


@dataclass(frozen=True)
class Group:
    """A prompt and its answers, in tokens."""

    prompt: list[int]
    answers: list[list[int]]
    """The end token is the last one."""
    weights: list[float]
    """What each answer's log-probability counts."""

    @property
    def tokens(self) -> int:
        """That go through the model: nothing follows an answer's last one."""
        return len(self.prompt) + sum(len(answer) - 1 for answer in self.answers)

    @property
    def answer_tokens(self) -> int:
        return sum(map(len, self.answers))

    def without_idle_answers(self) -> "Group":
        """Those whose weight is 0 cost time and teach nothing."""
        kept = [number for number, weight in enumerate(self.weights) if weight]
        return Group(self.prompt, [self.answers[number] for number in kept], [self.weights[number] for number in kept])


def use_shared_prompts(model: Any) -> None:
    """Let `model` attend as this module has it, until another attention is chosen."""
    ALL_ATTENTION_FUNCTIONS.register(NAME, shared_prompts)
    model.set_attn_implementation(NAME)


def laid_out(groups: Sequence[Group], device: torch.device) -> dict[str, torch.Tensor]:
    """What `log_probabilities` takes: groups one after another in one sequence.

    `input_ids`, `position_ids`: shape (1, tokens). `places`: where each group's tokens are in the sequence, shape
    (groups, places of each); `owners`: which answer they are of, 0 for the prompt, `PADDING` where a group is short;
    `positions`: theirs. `back`: where among these, flattened, each token of the sequence is. `before`, `targets`,
    `weights`: the token whose logits say an answer's next one, that next one, and its weight, shape (tokens of
    answers,).
    """
    columns: dict[str, list[Any]] = {key: [] for key in ("input_ids", "position_ids", "before", "targets", "weights")}
    places, owners, start = [], [], 0
    for group in groups:
        length = len(group.prompt)
        columns["input_ids"] += group.prompt
        columns["position_ids"] += range(length)
        of_group, at = [0] * length, start + length
        for number, (answer, weight) in enumerate(zip(group.answers, group.weights, strict=True), start=1):
            columns["input_ids"] += answer[:-1]
            columns["position_ids"] += range(length, length + len(answer) - 1)
            columns["before"] += [start + length - 1, *range(at, at + len(answer) - 1)]
            columns["targets"] += answer
            columns["weights"] += [weight] * len(answer)
            of_group += [number] * (len(answer) - 1)
            at += len(answer) - 1
        places.append(list(range(start, at)))
        owners.append(of_group)
        start = at
    width = -(-max(map(len, places)) // WIDTH_STEP) * WIDTH_STEP
    # Where a group is short its place is another token's: nothing sees it, and what it sees is thrown away.
    columns["places"] = [[*row, *[0] * (width - len(row))] for row in places]
    columns["owners"] = [[*row, *[PADDING] * (width - len(row))] for row in owners]
    columns["back"] = [group * width + column for group, row in enumerate(places) for column in range(len(row))]
    tensors = {key: torch.tensor(values, device=device) for key, values in columns.items()}
    tensors["positions"] = tensors["position_ids"][tensors["places"]]
    return tensors | {key: tensors[key][None] for key in ("input_ids", "position_ids")}


def log_probabilities(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of each answer's tokens, shape (tokens of answers,), in fp32. `model` may have adapters."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = bare.get_decoder()(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        places=inputs["places"].flatten(),
        padding=inputs["owners"].flatten() == PADDING,
        back=inputs["back"],
        # For all layers: PyTorch would keep one for each until the way back.
        masks={window: _mask(inputs, window, bare.dtype) for window in _windows(bare)},
    ).last_hidden_state[0]
    return likelihood.log_probabilities(bare, hidden[inputs["before"]], inputs["targets"])


def shared_prompts(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    places: torch.Tensor,
    padding: torch.Tensor,
    back: torch.Tensor,
    masks: dict[int | None, torch.Tensor],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (1, heads, tokens, head size)."""
    mask = masks[sliding_window]
    groups = len(mask)

    def by_group(tensor: torch.Tensor) -> torch.Tensor:
        """Shape (groups, heads, places, head size)."""
        rows: torch.Tensor = _Placed.apply(tensor[0].transpose(0, 1), places, back)  # type: ignore[no-untyped-call]
        return rows.view(groups, -1, *rows.shape[1:]).transpose(1, 2)

    queries, keys, values = map(by_group, (query, key, value))
    # PyTorch's attention with a mask that spares memory knows no heads that share keys.
    shared = queries.shape[1] // keys.shape[1]
    keys, values = (tensor.repeat_interleave(shared, dim=1) for tensor in (keys, values))
    output = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scaling)
    rows = output.transpose(1, 2).flatten(0, 1)
    return _Collected.apply(rows, places, padding, back)[None], None  # type: ignore[no-untyped-call]


class _Placed(torch.autograd.Function):
    """Tokens (tokens, heads, head size) at places (groups x places, heads, head size).

    Its gradient is `_Collected`: an index's own is sorted, and what lies at padding added up one by one.
    """

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, places: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return tokens.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        # Of padding it is 0.
        return gradient.index_select(0, *ctx.saved_tensors), None, None


class _Collected(torch.autograd.Function):
    """The reverse of `_Placed`: what is at padding is left."""

    @staticmethod
    def forward(
        ctx: Any, placed: torch.Tensor, places: torch.Tensor, padding: torch.Tensor, back: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(places, padding)
        return placed.index_select(0, back)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        places, padding = ctx.saved_tensors
        return gradient.index_select(0, places).masked_fill(padding[:, None, None], 0), None, None, None


def _windows(model: Any) -> set[int | None]:
    """Which `sliding_window` the layers have."""
    config = model.config.get_text_config()
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return {None, config.sliding_window} if sliding else {None}


def _mask(inputs: dict[str, torch.Tensor], window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """To be added to the scores of each token (line) for each other (column), shape (groups, 1, places, places)."""
    owners, positions = inputs["owners"], inputs["positions"]
    of_prompt, same = owners[:, None] == 0, owners[:, None] == owners[..., None]
    seen = (same | of_prompt).tril()
    if window is not None:
        seen &= positions[..., None] - positions[:, None] < window
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)[:, None]
