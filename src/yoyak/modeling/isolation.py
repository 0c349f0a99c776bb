"""Whether rows that go through a model together see each other: tried on the model itself, for families differ.

Position ids part attention, where a family builds its mask from them. They do not part what has a state: delta nets,
Mamba, short convolutions. Tried is what would be done with the rows; what must not be seen is then exchanged.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

PROBED_TOKENS = 64
"""Of a row, its last ones: a state forgets."""
SEEN = 1e-5
"""Change of logits, in their standard deviations, from which on something was seen. The tensors have one shape before
and after, and so nothing else changes them, but by 3e-7 in fp32 where experts get other tokens. A short convolution
between random weights changes them by 1e-3."""
MOVED = 0.5
"""Change from which on a row stands elsewhere than where nothing is beside it. Where shapes differ, rounding is larger:
Gemma 3 270M in bf16 has 0.03 on a CPU with AVX512-BF16, and 0.18 on one with AMX."""
PROBED_STEPS = 2
"""Of a search: the prompt, and a token after it, which a cache has part in."""

Options = Callable[[torch.Tensor], dict[str, Any]]
"""From position ids (1, tokens) to what a model's attention takes beside them."""


def packs(model: Any, rows: Sequence[list[int]], options: Options = lambda _: {}) -> bool:
    """Whether a row's logits stay what they are where `rows`, token ids, are joined to one sequence."""
    neighbour, row = rows[0][-PROBED_TOKENS:], rows[-1][-PROBED_TOKENS:]

    def logits(sequence: list[list[int]], place: int) -> torch.Tensor:
        """Of `row`, which is at a place of the sequence, shape (its tokens, vocabulary)."""
        positions = torch.cat([torch.arange(len(each)) for each in sequence]).to(model.device)[None]
        begin = sum(map(len, sequence[:place]))
        output = model(
            input_ids=torch.tensor([[token for each in sequence for token in each]], device=model.device),
            position_ids=positions,
            use_cache=False,
            logits_to_keep=torch.arange(begin, begin + len(row), device=model.device),
            **options(positions),
        )
        return output.logits[0]  # type: ignore[no-any-return]

    with _as_it_writes(model):
        together = logits([neighbour, row, neighbour], 1)
        others = logits([neighbour[::-1], row, neighbour[::-1]], 1)
        # First it stands as if it were alone, and the tensors keep their shapes.
        first = logits([row, neighbour, neighbour], 0)
        return _change(others, together) < SEEN and _change(first, together) < MOVED


def pads(model: Any, prompts: Sequence[list[int]], side: str) -> bool:
    """Whether `generate` makes of the shorter of two prompts, padded at `side`, what it makes of it alone."""
    from transformers import GenerationConfig

    long = max(prompts, key=len)[-PROBED_TOKENS:]
    short = min(prompts, key=len)[-max(1, len(long) // 2) :]
    config = GenerationConfig(
        max_new_tokens=PROBED_STEPS,
        do_sample=False,
        pad_token_id=short[0],
        decoder_start_token_id=model.config.decoder_start_token_id if model.config.is_encoder_decoder else None,
    )

    def logits(rows: list[list[int]], filler: int) -> torch.Tensor:
        """After the last of the rows, shape (steps, vocabulary)."""
        width = max(map(len, rows))

        def padded(row: list[int], filler: int) -> list[int]:
            padding = [filler] * (width - len(row))
            return [*padding, *row] if side == "left" else [*row, *padding]

        output = model.generate(
            input_ids=torch.tensor([padded(row, filler) for row in rows], device=model.device),
            attention_mask=torch.tensor([padded([1] * len(row), 0) for row in rows], device=model.device),
            generation_config=config,
            logits_processor=[_always(long[-1])],
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack([step[-1] for step in output.logits])

    with _as_it_writes(model):
        together = logits([long, short], filler=short[0])
        others = logits([long[::-1], short], filler=long[-1])
        return _change(others, together) < SEEN and _change(logits([short], filler=short[0]), together) < MOVED


def _always(token: int) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The same next token for all: else a step would differ where the one before it did."""
    return lambda _, scores: torch.full_like(scores, -torch.inf).index_fill(1, scores.new_tensor([token]).long(), 0.0)


def _change(changed: torch.Tensor, logits: torch.Tensor) -> float:
    """The largest, of all positions, in the standard deviation of a position's logits."""
    changed, logits = changed.float(), logits.float()
    return float(((changed - logits).square().mean(-1).sqrt() / logits.std(-1)).max())


@contextmanager
def _as_it_writes(model: Any) -> Iterator[None]:
    """Without dropout and gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)
