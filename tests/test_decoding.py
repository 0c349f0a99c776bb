"""Our decoding writes what transformers' `generate` writes, with several answers to a prompt kept side by side."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from twins import Family, gemma3, llama3, llama32, qwen3, qwen25, save_twin

from yoyak import decoding
from yoyak.hf_decoding import causal_log_probabilities

PROMPTS = [list(range(5, 5 + length)) for length in (90, 7, 30, 75, 1, 30)]
MOST = 70
"""More than answers grow by, and with a prompt more than Gemma's window."""


@pytest.fixture(params=[llama32, llama3, qwen25, qwen3, gemma3], scope="module")
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    family: Family = request.param
    folder = save_twin(family, tmp_path_factory.mktemp(family.__name__) / "twin")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # So that attention matters, and not the last token alone.
    with torch.no_grad():
        for name, weight in loaded.named_parameters():
            if "proj" in name:
                weight.mul_(6)
    return loaded


def greedy(logits: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1)


def plain(model: Any, prompt: list[int], end_ids: list[int], most: int = MOST) -> list[int]:
    config = GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=end_ids, pad_token_id=0)
    ids = torch.tensor([prompt])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return [int(token) for token in output[0, len(prompt) :]]


def some_ends(model: Any) -> list[int]:
    """Tokens that end some answers early and others not at all."""
    long = [plain(model, prompt, [1999]) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in long}) > 2
    return [long[0][4], long[2][20]]


def test_greedy_answers_are_those_of_generate(model: Any) -> None:
    ends = some_ends(model)
    expected = [plain(model, prompt, ends) for prompt in PROMPTS]
    assert len({len(answer) for answer in expected}) > 1
    found = decoding.decode(model, PROMPTS, 1, greedy, ends, MOST)
    assert found.ids == [[answer] for answer in expected]
    assert model.config._attn_implementation == "sdpa"


def test_answers_to_one_prompt_do_not_see_each_other(model: Any) -> None:
    """Three answers that begin with the first, second and third best token, and then go on greedily."""
    ends = some_ends(model)

    def fan_out(logits: torch.Tensor, so_far: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        ranked = logits.topk(3).indices
        return ranked[:, 0] if so_far.shape[-1] == 0 else ranked[..., 0]

    found = decoding.decode(model, PROMPTS, 3, fan_out, ends, MOST)
    for prompt, answers in zip(PROMPTS, found.ids, strict=True):
        first_tokens = [answer[0] for answer in answers]
        assert len(set(first_tokens)) == 3
        for first, answer in zip(first_tokens, answers, strict=True):
            rest = [] if first in ends else plain(model, [*prompt, first], ends, MOST - 1)
            assert answer == [first, *rest]


def test_log_probabilities_are_those_of_a_second_pass(model: Any) -> None:
    ends = some_ends(model)

    def second_best(logits: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return logits.topk(2).indices[..., 1]

    found = decoding.decode(model, PROMPTS, 1, second_best, ends, MOST)
    answers = [answer for (answer,) in found.ids]
    again = causal_log_probabilities(model, PROMPTS, answers)
    assert [value for (value,) in found.log_probabilities] == pytest.approx(again, abs=1e-4)


def test_how_many_are_read_together_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = some_ends(model)
    together = decoding.decode(model, PROMPTS, 1, greedy, ends, MOST)
    monkeypatch.setattr(decoding, "READ_TOGETHER", 100)
    assert decoding.decode(model, PROMPTS, 1, greedy, ends, MOST).ids == together.ids


def test_a_limit_of_one_token(model: Any) -> None:
    assert decoding.decode(model, PROMPTS, 1, greedy, [1999], 1).ids == [[plain(model, p, [1999], 1)] for p in PROMPTS]
