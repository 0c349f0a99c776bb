"""Our decoding writes what transformers' `generate` writes, with several candidates to a prompt kept side by side."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from twins import Family, gemma3, llama3, llama32, qwen3, qwen25, save_twin

from yoyak.inference import decoding
from yoyak.inference.decoding import Candidates, Choose, Request
from yoyak.inference.hf_decoding import log_probabilities
from yoyak.inference.sampling import GeneratedTokens

PROMPTS = [list(range(5, 5 + length)) for length in (90, 7, 30, 75, 1, 30)]
MOST = 70
"""More than candidates grow by, and with a prompt more than Gemma's window."""


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


def greedy(logits: torch.Tensor, _: GeneratedTokens) -> torch.Tensor:
    return logits.argmax(-1)


def fan_out(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
    """Candidates that begin with the first, second and third best token, and then go on greedily."""
    ranked = logits.topk(3).indices
    return torch.where(generated.counts[:, None] == 0, ranked[:, 0], ranked[..., 0])


def decoded(
    model: Any, candidates: int, choose: Choose, ends: list[int], max_new_tokens: int, max_batch_size: int = 6
) -> list[Candidates]:
    """In the order of the prompts, each of which must come once."""
    found = list(decoding.decode([model], [PROMPTS], max_batch_size, Request(candidates, max_new_tokens, ends, choose)))
    assert sorted(number for number, _ in found) == list(range(len(PROMPTS)))
    return [candidates for _, candidates in sorted(found, key=lambda pair: pair[0])]


def plain(model: Any, prompt: list[int], end_ids: list[int], max_new_tokens: int = MOST) -> list[int]:
    config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end_ids, pad_token_id=0)
    ids = torch.tensor([prompt])
    output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return [int(token) for token in output[0, len(prompt) :]]


def some_ends(model: Any) -> list[int]:
    """Tokens that end some candidates early and others not at all."""
    long = [plain(model, prompt, [1999]) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in long}) > 2
    return [long[0][4], long[2][20]]


@pytest.fixture(params=[False, True], ids=["", "looks_behind"])
def looks_behind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where the host sees a step's end when the next one is on its way."""
    monkeypatch.setattr(decoding.Slots, "_looks_behind", request.param)


@pytest.mark.usefixtures("looks_behind")
@pytest.mark.parametrize("max_batch_size", [1, 2, 3, 6, 50])
def test_greedy_candidates_are_those_of_generate(model: Any, max_batch_size: int) -> None:
    """However many are in work together: slots are given to the next prompt, narrowed and closed on the way."""
    ends = some_ends(model)
    expected = [plain(model, prompt, ends) for prompt in PROMPTS]
    assert len({len(answer) for answer in expected}) > 1
    found = decoded(model, 1, greedy, ends, MOST, max_batch_size)
    assert [row.ids for row in found] == [[answer] for answer in expected]
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("max_batch_size", [2, 6])
def test_candidates_to_one_prompt_do_not_see_each_other(model: Any, max_batch_size: int) -> None:
    ends = some_ends(model)
    for prompt, row in zip(PROMPTS, decoded(model, 3, fan_out, ends, MOST, max_batch_size), strict=True):
        first_tokens = [answer[0] for answer in row.ids]
        assert len(set(first_tokens)) == 3
        for first, answer in zip(first_tokens, row.ids, strict=True):
            rest = [] if first in ends else plain(model, [*prompt, first], ends, MOST - 1)
            assert answer == [first, *rest]


def test_log_probabilities_are_those_of_a_second_pass(model: Any) -> None:
    ends = some_ends(model)

    def second_best(logits: torch.Tensor, _: GeneratedTokens) -> torch.Tensor:
        return logits.topk(2).indices[..., 1]

    found = decoded(model, 1, second_best, ends, MOST)
    again = log_probabilities([model], [PROMPTS], [row.ids[0] for row in found])
    assert [row.log_probabilities[0] for row in found] == pytest.approx(again, abs=1e-4)


@pytest.mark.usefixtures("looks_behind")
def test_facts_stay_with_their_prompt(model: Any) -> None:
    """Each prompt is told how its candidates begin, and when they end."""

    def facts(numbers: list[int]) -> dict[str, torch.Tensor]:
        return {"number": torch.tensor(numbers)}

    def choose(logits: torch.Tensor, generated: GeneratedTokens) -> torch.Tensor:
        number = generated.facts["number"][:, None]
        begun = generated.counts > 0
        assert (generated.tokens[begun][:, :, 0] == 100 + number[begun]).all()
        over = generated.counts[:, None] > 2 * number
        return torch.where(over, 1999, torch.where(generated.counts[:, None] == 0, 100 + number, 7))

    request = Request(1, 30, [1999], choose, facts)
    found = {number: row.ids for number, row in decoding.decode([model], [PROMPTS], 3, request)}
    assert found == {number: [[100 + number, *[7] * (2 * number), 1999]] for number in range(len(PROMPTS))}


def test_several_models_answer_with_the_mean_of_their_logits(model: Any) -> None:
    """Each with its own form of the prompts, whose lengths are in another order."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * weight.std().nan_to_num() * torch.randn(weight.shape, generator=torch.manual_seed(1)))
    others = [[*range(9, 9 + 40 - len(prompt) // 3), *prompt] for prompt in PROMPTS]
    together = decoding.decode([model, other], [PROMPTS, others], 3, Request(1, 25, [1999], greedy))
    found = {number: row.ids[0] for number, row in together}
    alone = [row.ids[0] for row in decoded(model, 1, greedy, [1999], 25)]
    assert [found[number] for number in range(len(PROMPTS))] != alone
    for number, (prompt, longer) in enumerate(zip(PROMPTS, others, strict=True)):
        with torch.no_grad():
            logits = sum(
                one(input_ids=torch.tensor([ids + found[number]])).logits[0, len(ids) - 1 : -1]
                for one, ids in ((model, prompt), (other, longer))
            )
        assert logits.argmax(-1).tolist() == found[number]


def test_a_model_with_itself_is_that_model(model: Any) -> None:
    twice = dict(decoding.decode([model, model], [PROMPTS, PROMPTS], 3, Request(3, 25, [1999], fan_out)))
    expected = decoded(model, 3, fan_out, [1999], 25)
    assert sorted(twice) == list(range(len(PROMPTS)))
    for number, row in twice.items():
        assert row.ids == expected[number].ids
        assert row.log_probabilities == pytest.approx(expected[number].log_probabilities, abs=1e-4)


@pytest.mark.usefixtures("looks_behind")
def test_a_limit_of_one_token(model: Any) -> None:
    found = decoded(model, 1, greedy, [1999], 1, max_batch_size=2)
    assert [row.ids for row in found] == [[plain(model, prompt, [1999], 1)] for prompt in PROMPTS]
