"""Dialogues with several answers each, in one sequence: a prompt goes through the model once for all of its answers.

An answer's tokens see its prompt and the answer itself; their positions go on from the prompt's, as if it stood there
alone. Of 300 tokens of prompt and eight answers of 45, apart 2,760 tokens, 660 are left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "shared_prompts"
PADDING = -1


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
    (groups, most tokens of one); `owners`: which answer they are of, 0 for the prompt; `positions`: theirs. `back`:
    where among these, flattened, each token of the sequence is. `before`, `targets`, `weights`: the token whose logits
    say an answer's next one, that next one, and its weight, shape (tokens of answers,).
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
    longest = max(map(len, places))
    columns["places"] = [[*row, *[PADDING] * (longest - len(row))] for row in places]
    columns["owners"] = [[*row, *[PADDING] * (longest - len(row))] for row in owners]
    columns["back"] = [group * longest + column for group, row in enumerate(places) for column in range(len(row))]
    tensors = {key: torch.tensor(values, device=device) for key, values in columns.items()}
    tensors["positions"] = tensors["position_ids"][tensors["places"].clamp(min=0)]
    return tensors | {key: tensors[key][None] for key in ("input_ids", "position_ids")}


def log_probabilities(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Of each answer's tokens, shape (tokens of answers,), in fp32."""
    outputs = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        use_cache=False,
        logits_to_keep=inputs["before"],
        **{key: inputs[key] for key in ("places", "owners", "positions", "back")},
    )
    return -cross_entropy(outputs.logits[0].float(), inputs["targets"], reduction="none")


def shared_prompts(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    places: torch.Tensor,
    owners: torch.Tensor,
    positions: torch.Tensor,
    back: torch.Tensor,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in transformers' interface; query has shape (1, heads, tokens, head size)."""
    # Where a group is short its place is another token's: nothing sees it, and what it sees is thrown away.
    at = places.clamp(min=0)
    queries, keys, values = (tensor[0][:, at].transpose(0, 1) for tensor in (query, key, value))
    # PyTorch's attention with a mask that spares memory knows no heads that share keys.
    shared = queries.shape[1] // keys.shape[1]
    keys, values = (tensor.repeat_interleave(shared, dim=1) for tensor in (keys, values))
    seen = _seen(owners, positions, sliding_window)[:, None]
    output = scaled_dot_product_attention(queries, keys, values, attn_mask=seen, scale=scaling)
    return output.transpose(1, 2).flatten(0, 1)[back][None], None


def _seen(owners: torch.Tensor, positions: torch.Tensor, sliding_window: int | None) -> torch.Tensor:
    """True where a token (line) sees another (column), shape (groups, tokens, tokens)."""
    of_prompt, same = owners[:, None] == 0, owners[:, None] == owners[..., None]
    seen = (same | of_prompt).tril()
    if sliding_window is not None:
        seen &= positions[..., None] - positions[:, None] < sliding_window
    return seen
