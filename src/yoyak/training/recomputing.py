"""Whether activations are kept, or recomputed on the way back: by trying both, where it is not plain which is faster.

Kept, they let few tokens through at once on a card that 4-bit weights fill, and a GPU that works on few tokens waits
for its host to launch its kernels. Recomputed, a pass takes a third more of the GPU's work, and several times as many
tokens go through.
"""

import time

import torch

from yoyak.training.memory import TokenBudget

WORTH_IT_BELOW = 4096
"""Tokens at once: from there on a GPU has enough to do (3 B, H200: 37 k tokens/s at 5 k tokens, 39 k at 20 k)."""
WORTH_IT_BELOW_AS_GRAPHS = 2048
"""The same where passes may be CUDA graphs, which keep a GPU busy with fewer. Of an 8 B 1,667 fit into 23 GiB: kept,
they take 1.44 s of the GPU's time a step, and recomputed a step takes 1.49 s. Of a 3 B 5,000 fit."""
WARM_UP, TIMED = 4, 4
"""Steps of either way: those in which kernels are compiled and memory is measured, and those that count."""


class Trial:
    """Of one training: it goes on in the way that took less time for its tokens."""

    def __init__(self, budget: TokenBudget) -> None:
        self.budget = budget
        self.decided = False
        self._started: float | None = None
        """Of a step that is timed. To time one is to wait for the GPU, so others are not."""
        self._kept: list[tuple[int, float]] = []
        self._recomputed: list[tuple[int, float]] = []

    @property
    def is_timing(self) -> bool:
        return self._started is not None

    def begin_step(self, tokens: int, as_graphs: bool = False) -> None:
        """Of a step of so many tokens on this GPU, whose passes may be CUDA graphs once this is decided."""
        worth_it_below = WORTH_IT_BELOW_AS_GRAPHS if as_graphs else WORTH_IT_BELOW
        few = self.budget.is_measured and self.budget.tokens < min(worth_it_below, tokens)
        self._started = _now() if not self.decided and (few or self.budget.checkpointing) else None

    def end_step(self, tokens: int) -> None:
        if self._started is None:
            return
        step = tokens, _now() - self._started
        if not self.budget.checkpointing:
            self._kept.append(step)
            if len(self._kept) == WARM_UP + TIMED:
                self.budget.recompute()
        elif len(self._kept) < WARM_UP + TIMED:
            # Memory alone has decided, here or before a kill.
            self.decided = True
        else:
            self._recomputed.append(step)
            if len(self._recomputed) == WARM_UP + TIMED:
                self._decide()

    def _decide(self) -> None:
        self.decided = True
        kept, recomputed = _rate(self._kept), _rate(self._recomputed)
        if recomputed > kept:
            self.budget.settle(f"activations recomputed: {recomputed:,.0f} tokens/s for {kept:,.0f}")
        else:
            self.budget.keep()
        print(f"{self.budget.tokens} tokens at once from here, {self.budget.why}", flush=True)


def _rate(steps: list[tuple[int, float]]) -> float:
    tokens, seconds = zip(*steps[WARM_UP:], strict=True)
    return float(sum(tokens) / sum(seconds))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
