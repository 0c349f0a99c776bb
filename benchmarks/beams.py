"""Beam search of true shapes with random weights and real lengths: ours beside transformers' `generate`.

    python benchmarks/beams.py LENGTHS
    python benchmarks/beams.py --smoke

On a GPU. LENGTHS as in benchmarks/training.py. Random weights never end a summary, so each is made to end where the
real one does. `generate` has batches of 4, of like length, ours 32 dialogues together, as the stage has; both are in
bf16 and give 4 candidates of 4 beams. Each side runs in a process of its own. What both say in fp32 is compared,
too. With --smoke it is of tiny shapes, on any machine, and writes no file.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import recording
import torch
from training import SHAPES as DECODERS
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from yoyak.core.environment import device
from yoyak.inference import beam_search, beams
from yoyak.inference.params import GenerationParams
from yoyak.sweeps.true_size import KOBART, PKO_T5

END, PAD = 1, 0
BEAMS, BATCH, TOGETHER = 4, 4, 32
LONGEST_PROMPT = 1000
"""Of the encoder-decoders, whose positions end a little later."""
BATCHES = {"llama_3b": 8, "kobart": 16, "pko_t5": 16}
"""Of `generate`, evenly from all lengths."""
SAME_ROWS = 16
TINY = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 500}
SMALLER = {"encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "d_model": 64}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama_3b": ("llama", DECODERS["llama_3b"]),
    "kobart": ("bart", KOBART),
    "pko_t5": ("t5", PKO_T5),
    "tiny_llama": ("llama", TINY),
    "tiny_bart": ("bart", KOBART | SMALLER | {"vocab_size": 500}),
    "tiny_t5": ("t5", PKO_T5 | {"d_model": 64, "d_ff": 96, "num_layers": 2, "vocab_size": 500}),
}
"""By name: transformers' `model_type`, and its configuration."""


def main() -> None:
    lengths, *side = sys.argv[1:]
    smoke = lengths == "--smoke"
    if side:
        print(json.dumps(measure(json.loads(side[0]), lengths_in(lengths))))
        return
    if not smoke:
        recording.require_clean_tree()

    def run(side: str, shape: str) -> dict[str, float]:
        arguments = json.dumps({"side": side, "shape": shape})
        result: dict[str, float] = recording.in_a_process(__file__, lengths, arguments)
        print(arguments, result, flush=True)
        return result

    rows = []
    for shape in (name for name in SHAPES if name.startswith("tiny") == smoke):
        mine, other, same = run("ours", shape), run("generate", shape), run("same", shape)
        rates = mine["dialogues_per_second"], other["dialogues_per_second"]
        whose = f"generate, batches of {BATCH}"
        command = "python benchmarks/beams.py LENGTHS"
        rows += [
            recording.row(
                f"{shape}, {BEAMS} beams, {TOGETHER} together",
                "dialogues/s",
                *rates,
                whose,
                mine["peak_gib"],
                command,
            ),
            recording.row(
                f"{shape}, fp32",
                "texts that are generate's",
                same["same"],
                same["compared"],
                "texts compared",
                same["peak_gib"],
                command,
            ),
        ]
    if not smoke:
        recording.record("beams", rows)


def lengths_in(path: str) -> list[tuple[int, int]]:
    """Tokens of prompt and summary, the longest prompts first."""
    draw = random.Random(0)
    lengths = (
        [(draw.randrange(20, 60), draw.randrange(3, 20)) for _ in range(40)]
        if path == "--smoke"
        else json.loads(Path(path).read_text())
    )
    return sorted(((min(prompt, LONGEST_PROMPT), summary) for prompt, summary in lengths), reverse=True)


def measure(options: dict[str, str], lengths: list[tuple[int, int]]) -> dict[str, float]:
    """What one side took, and its peak memory."""
    side = {"generate": rate_of_generate, "ours": our_rate, "same": same_texts}[options["side"]]
    figures = side(options["shape"], lengths)
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return {**figures, "peak_gib": peak}


def random_weights(shape: str, dtype: torch.dtype) -> Any:
    kind, sizes = SHAPES[shape]
    ids = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": PAD}
    config = AutoConfig.for_model(**{"model_type": kind, **sizes, **ids}, decoder_start_token_id=END)
    torch.manual_seed(0)
    of_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with torch.device(device()):
        return of_class.from_config(config, dtype=dtype).eval()


def prompts_of(model: Any, lengths: list[tuple[int, int]]) -> list[list[int]]:
    """Random tokens."""
    draw = random.Random(0)
    return [[draw.randrange(2, model.config.vocab_size) for _ in range(prompt)] for prompt, _ in lengths]


def synchronised() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# transformers'


def rate_of_generate(shape: str, lengths: list[tuple[int, int]]) -> dict[str, float]:
    model = random_weights(shape, torch.bfloat16)
    starts = range(0, len(lengths) - BATCH + 1, BATCH)
    chosen = starts[:: max(1, len(starts) // BATCHES.get(shape, 8))]
    by_generate(model, lengths[:BATCH])  # So that nothing is loaded while the clock runs.
    started = synchronised()
    for start in chosen:
        by_generate(model, lengths[start : start + BATCH])
    return {"dialogues_per_second": BATCH * len(chosen) / (synchronised() - started)}


def by_generate(model: Any, lengths: list[tuple[int, int]]) -> list[list[list[int]]]:
    """The tokens of all beams of each dialogue, best first."""
    prompts, wanted = prompts_of(model, lengths), torch.tensor([most for _, most in lengths], device=device())
    width, decodes = max(map(len, prompts)), not model.config.is_encoder_decoder

    def padded(row: list[int], fill: int) -> list[int]:
        padding = [fill] * (width - len(row))
        return padding + row if decodes else row + padding

    ids = torch.tensor([padded(prompt, PAD) for prompt in prompts], device=device())
    mask = torch.tensor([padded([1] * len(prompt), 0) for prompt in prompts], device=device())
    before = width if decodes else 1

    def end_where_told(tokens: Any, scores: Any) -> Any:
        last = (tokens.shape[1] - before + 1 == wanted).repeat_interleave(BEAMS)
        return ending(scores, last)

    # In place of the model's own, which may force an end of its own.
    model.generation_config = GenerationConfig(
        max_new_tokens=int(wanted.max()),
        num_beams=BEAMS,
        num_return_sequences=BEAMS,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=PAD,
        decoder_start_token_id=END if model.config.is_encoder_decoder else None,
    )
    output = model.generate(input_ids=ids, attention_mask=mask, logits_processor=[end_where_told])
    answers = [row[: row.index(END) + 1] for row in output[:, before:].tolist()]
    return [answers[start : start + BEAMS] for start in range(0, len(answers), BEAMS)]


def ending(scores: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Of scores (lines, vocabulary) the end's alone where a line's token is the `last` (lines,), else all but it."""
    is_end = torch.arange(scores.shape[-1], device=scores.device) == END
    return scores.where(last[:, None] == is_end, -torch.inf)


# Ours


class EndsWhereTold(beam_search.BeamSearch):
    """It is told in place of forbidden tokens, how many each summary has, shape (slots, 1)."""

    def _penalised(
        self, at: torch.Tensor, log_probabilities: torch.Tensor, texts: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        assert self.forbidden is not None
        last = (counts + 1 == self.forbidden[at, 0]).repeat_interleave(BEAMS)
        return ending(log_probabilities.flatten(0, 1), last).view(log_probabilities.shape)


def our_rate(shape: str, lengths: list[tuple[int, int]]) -> dict[str, float]:
    model = random_weights(shape, torch.bfloat16)
    by_us(model, lengths[:8])
    started = synchronised()
    by_us(model, lengths)
    return {"dialogues_per_second": len(lengths) / (synchronised() - started)}


def by_us(model: Any, lengths: list[tuple[int, int]]) -> list[list[list[int]]]:
    """As `by_generate`."""
    beams.BeamSearch = EndsWhereTold  # type: ignore[misc]
    params = GenerationParams(
        search="beam",
        num_beams=BEAMS,
        candidates=BEAMS,
        batch_size=TOGETHER,
        max_new_tokens=max(most for _, most in lengths),
    )

    def wanted(numbers: list[int]) -> torch.Tensor:
        return torch.tensor([[lengths[number][1]] for number in numbers], device=device())

    request = beams.Request(params, [END], wanted)
    found = dict(beams.decode([model], [prompts_of(model, lengths)], TOGETHER, request))
    return [found[number].ids for number in range(len(lengths))]


# Both


def same_texts(shape: str, lengths: list[tuple[int, int]]) -> dict[str, float]:
    """How many candidates are the same in fp32, of dialogues evenly from all lengths."""
    model = random_weights(shape, torch.float32)
    # As sure of what they say as trained ones are: else many beams are as good as each other, to a rounding.
    model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 8)
    few = lengths[:: max(1, len(lengths) // SAME_ROWS)][:SAME_ROWS]
    both: list[Callable[..., list[list[list[int]]]]] = [by_us, by_generate]
    mine, other = ([answer for row in side(model, few) for answer in row] for side in both)
    return {
        "same": sum(one == another for one, another in zip(mine, other, strict=True)),
        "compared": len(mine),
    }


if __name__ == "__main__":
    main()
