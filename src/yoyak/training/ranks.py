"""One training in several processes, its ranks, a GPU each: all see the same batches, and each trains on its share.

Not by `DistributedDataParallel`: it adds gradients up within the backward pass, where a rank that runs out of memory
and begins its step anew would leave the others waiting. Here a rank divides its share as its memory allows, and
gradients are added up when all are done. To the trainer each rank is a training of its own, so a checkpoint is that of
one process, and any number of ranks goes on from it.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from yoyak.core.environment import device

BUCKET = 2**25
"""Most numbers that are sent at once: they take their memory a second time."""
TIMEOUT = timedelta(hours=1)
"""Of waiting for one another: the first writes checkpoints meanwhile. A rank that has died is noticed at once, by the
process that has started them all."""


@dataclass(frozen=True)
class Ranks:
    """All of them, as one of them sees them."""

    number: int = 0
    """Its own."""
    count: int = 1
    meeting: str = ""
    """A path where no file is yet, through which they find each other."""
    sharded: bool = False
    """Whether each holds a part of the base weights, and not a copy: all of them run equally many passes then."""

    @property
    def is_first(self) -> bool:
        """Whether it is this one that writes and tells."""
        return self.number == 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """While all of them are there."""
        if self.count == 1:
            yield
            return
        # Figures of dev are on the CPU, whatever the weights are on.
        backend = "cpu:gloo,cuda:nccl" if device() == "cuda" else "gloo"
        distributed.init_process_group(backend, f"file://{self.meeting}", TIMEOUT, self.count, self.number)
        yield
        distributed.destroy_process_group()

    def start_alike(self, model: torch.nn.Module) -> None:
        """What is trained starts as the first has it."""
        for weights in model.parameters():
            if self.count > 1 and weights.requires_grad:
                distributed.broadcast(weights.data, 0)

    def begin_step(self, seed: int, step: int) -> None:
        """Dropout must not be drawn alike on all of them; nor otherwise after a kill."""
        if not self.is_first:
            torch.manual_seed(zlib.crc32(repr((seed, step, self.number)).encode()))

    def add_up_gradients(self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor) -> torch.Tensor:
        """In place, over all ranks; the sum of the loss. A gradient that none of them has stays none."""
        if self.count == 1:
            return loss
        missing = [number for number, each in enumerate(parameters) if each.grad is None]
        there = torch.ones(len(parameters), device=loss.device)
        there[missing] = 0
        for number in missing:
            parameters[number].grad = torch.zeros_like(parameters[number])
        loss = loss.clone()
        self._add_up([*(each.grad for each in parameters if each.grad is not None), there, loss])
        # Only where one is missing here: to look waits for the GPU.
        for number in [number for number in missing if not there[number]]:
            parameters[number].grad = None
        return loss

    def _add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)])

    def least(self, number: int) -> int:
        """Of the numbers that they have."""
        least = torch.tensor(number)
        if self.count > 1:
            distributed.all_reduce(least, distributed.ReduceOp.MIN)
        return int(least)

    def gather(self, value: Any) -> list[Any]:
        """What each of them has, in their order; on all of them."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Of one dtype each, in an order that is the same on all ranks."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        bucket: list[torch.Tensor] = []
        for tensor in tensors:
            if tensor.dtype != dtype:
                continue
            if bucket and sum(each.numel() for each in bucket) + tensor.numel() > BUCKET:
                yield bucket
                bucket = []
            bucket.append(tensor)
        yield bucket


def dealt(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Rows, by their places, for each of so many ranks, about as many tokens each: the longest first, each to who has
    fewest."""
    shares: list[list[int]] = [[] for _ in range(count)]
    tokens = [0] * count
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row], reverse=True):
        least = tokens.index(min(tokens))
        shares[least].append(row)
        tokens[least] += lengths[row]
    return [sorted(share) for share in shares]
