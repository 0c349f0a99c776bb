"""Rows packed into one sequence without padding: looked into on the CPU, for on a GPU to look is to wait for it."""

import torch
from torch.nn.functional import pad

from yoyak.training.graphed import MOST_GRAPHED_TOKENS
from yoyak.training.rows import IGNORED

Batch = dict[str, torch.Tensor]
"""As `DataCollatorWithFlattening` makes it: ids, labels, positions, of shape (1, tokens). It ignores first labels."""
Inputs = dict[str, torch.Tensor]
"""What the loss is computed from, see `for_loss`."""
MOST_IDLE_TOKENS = MOST_GRAPHED_TOKENS // 16
"""That `of_few_shapes` adds."""
LABELS_STEP = 128


def borders(position_ids: torch.Tensor) -> torch.Tensor:
    """Where each row begins, and the end: shape (rows + 1,), int32."""
    starts = (position_ids[0] == 0).nonzero().squeeze(1)
    return torch.cat([starts, starts.new_tensor([position_ids.shape[1]])]).int()


def lengths(batch: Batch) -> list[int]:
    """Tokens of each row."""
    found: list[int] = borders(batch["position_ids"]).diff().tolist()
    return found


def split(batch: Batch) -> list[Batch]:
    """Each row by itself."""
    tokens = lengths(batch)
    parts = {key: torch.split(tensor, tokens, dim=1) for key, tensor in batch.items()}
    return [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)]


def joined(rows: list[Batch]) -> Batch:
    return {key: torch.cat([row[key] for row in rows], dim=1) for key in rows[0]}


def for_loss(batch: Batch) -> Inputs:
    """What the loss is computed from: ids, positions, the rows' `borders`, and labels with the `places` of the logits
    that tell them, shape (labels,)."""
    labels = batch["labels"][0, 1:]
    places = (labels != IGNORED).nonzero().squeeze(1)
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "borders": borders(batch["position_ids"]),
        "places": places,
        "labels": labels[places],
    }


def of_few_shapes(inputs: Inputs, most_rows: int) -> Inputs:
    """What `for_loss` made of at most `most_rows` rows, with idle tokens, a row of their own, and ignored labels at its
    end: the same loss, and a shape that comes again and again."""
    tokens, labels = inputs["input_ids"].shape[1], len(inputs["labels"])
    whole = _rounded(tokens)
    idle = whole - tokens
    return {
        "input_ids": pad(inputs["input_ids"], (0, idle)),
        "position_ids": torch.cat([inputs["position_ids"], torch.arange(idle)[None]], 1),
        # Rows of no tokens follow.
        "borders": pad(inputs["borders"], (0, most_rows + 2 - len(inputs["borders"])), value=whole),
        "places": pad(inputs["places"], (0, -labels % LABELS_STEP)),
        "labels": pad(inputs["labels"], (0, -labels % LABELS_STEP), value=IGNORED),
    }


def _rounded(tokens: int) -> int:
    """Up, by an eighth at most."""
    step = 1 << max(6, (tokens - 1).bit_length() - 4)
    return -(-tokens // step) * step
