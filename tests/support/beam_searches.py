"""Beam searches of tiny twins, ours and those of transformers' `generate`."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inferences import config_of
from trainers import PROMPTS
from transformers import GenerationConfig
from twins import Family, bart, gemma3, llama32, qwen3, qwen25, save_twin, t5

from yoyak.inference import beams, hf_decoding
from yoyak.inference.decoding import Candidates
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import GenerationParams, OneModelConfig
from yoyak.modeling.loading import Loaded

ENCODER_DECODERS = (bart, t5)
FAMILIES = [bart, t5, llama32, qwen25, qwen3, gemma3]
SEARCHES: dict[str, dict[str, Any]] = {
    "two": {"num_beams": 2, "candidates": 1, "max_new_tokens": 20},
    "three, all told, longer ones first": {"num_beams": 3, "candidates": 3, "length_penalty": 2.0},
    # More tokens than there is room for at first, and than Gemma's window has.
    "four, shorter ones first": {"num_beams": 4, "candidates": 4, "length_penalty": -1.0, "max_new_tokens": 70},
    "six, by their sums": {"num_beams": 6, "candidates": 4, "length_penalty": 0.0, "max_new_tokens": 12},
    "penalties": {
        "num_beams": 4,
        "candidates": 2,
        "repetition_penalty": 1.3,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 6,
    },
    "one token": {"num_beams": 3, "candidates": 2, "max_new_tokens": 1},
}


def params_of(**changes: Any) -> GenerationParams:
    values = {"search": "beam", "num_beams": 3, "max_new_tokens": 30, "batch_size": 5, "script_guard": False}
    return GenerationParams.model_validate(values | changes)


def config_for(family: Family, folder: Path, **changes: Any) -> OneModelConfig:
    method = "full" if family in ENCODER_DECODERS else "lora"
    return config_of(folder, method, **params_of(**changes).model_dump())


def load(family: Family, folder: Path, seed: int) -> Loaded:
    """A twin with weights of its own, so large that the whole prompt matters, and not the last token alone; and so sure
    of what it says that roundings decide nothing."""
    if not (folder / "config.json").exists():
        save_twin(family, folder)
    loaded = load_for_inference(config_for(family, folder).model, None)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if weight.ndim == 2 and not any(part in name for part in ("embed", "shared", "lm_head")):
                weight.add_(torch.randn_like(weight) * 0.2)
    loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 8)
    return loaded


def encoded(loaded: Loaded) -> list[list[int]]:
    """Of different lengths, as they come."""
    prompts = [loaded.prompt_tokenizer.encode_prompt(prompt).ids for prompt in PROMPTS]
    assert len(set(map(len, prompts))) > 3
    return prompts


def theirs(
    members: Sequence[Loaded], prompts: list[list[list[int]]], params: GenerationParams, ends: list[int]
) -> list[Candidates]:
    with_ends: list[Any] = [
        SimpleNamespace(model=member.model, tokenizer=member.tokenizer, end_ids=ends) for member in members
    ]
    return hf_decoding.decode(with_ends, prompts, params)


def ours(
    members: Sequence[Loaded],
    prompts: list[list[list[int]]],
    params: GenerationParams,
    ends: list[int],
    max_batch_size: int = 5,
) -> list[Candidates]:
    """In the order of the prompts, each of which must come once."""
    models = [member.model for member in members]
    found = list(beams.decode(models, prompts, max_batch_size, beams.Request(params, ends)))
    assert sorted(number for number, _ in found) == list(range(len(prompts[0])))
    return [candidates for _, candidates in sorted(found, key=lambda pair: pair[0])]


def greedy_of_generate(
    loaded: Loaded, prompts: list[list[int]], max_new_tokens: int, ends: list[int]
) -> list[list[int]]:
    """An encoder-decoder's, one at a time, so that nothing is padded."""
    model = loaded.model
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=0,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )
    ids = (torch.tensor([prompt], device=model.device) for prompt in prompts)
    return [model.generate(input_ids=row, generation_config=config)[0, 1:].tolist() for row in ids]


def greedy_ends(loaded: Loaded, prompts: list[list[int]]) -> list[int]:
    """Which end some summaries at once, some early and others not at all."""
    rows = greedy_of_generate(loaded, prompts, 40, [-1])
    return [rows[0][0], rows[3][5], rows[6][17]]


def assert_same(found: list[Candidates], expected: list[Candidates], within: float = 1e-4) -> None:
    assert [row.ids for row in found] == [row.ids for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row.log_probabilities == pytest.approx(other.log_probabilities, abs=within)


def some_ends(loaded: Loaded) -> list[int]:
    """Its own, and tokens that end some beams early and others not at all."""
    rows = ours([loaded], [encoded(loaded)], params_of(candidates=3), loaded.end_ids)
    return [*loaded.end_ids, rows[0].ids[0][3], rows[4].ids[1][12], rows[8].ids[2][6]]
