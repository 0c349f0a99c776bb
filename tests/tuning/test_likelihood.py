"""Log-probabilities whose logits are never all there at once are those of all logits, and so are their gradients."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from twins import Family, gemma3, llama3, llama32, qwen3, qwen25

from yoyak.tuning import likelihood

TOKENS = 50


def gemma3_capped() -> Any:
    config, tokenizer = gemma3()
    config.final_logit_softcapping = 0.2
    return config, tokenizer


@pytest.fixture(params=[llama32, llama3, qwen25, qwen3, gemma3, gemma3_capped])
def model(request: pytest.FixtureRequest) -> Any:
    family: Family = request.param
    config, _ = family()
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["q_proj", "lm_head"]])
def test_values_and_gradients_are_those_of_all_logits(
    model: Any, targets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 7)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    ids, next_ids = torch.randint(1500, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    weights = torch.linspace(-1, 1, TOKENS)

    logits = adapted(input_ids=ids[None]).logits[0]
    expected = logits.log_softmax(-1).gather(1, next_ids[:, None])[:, 0]
    (expected * weights).sum().backward()
    expected_gradient = gradients_of(adapted)

    hidden = model.get_decoder()(input_ids=ids[None]).last_hidden_state[0]
    largest = 0

    def kept(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, tensor.numel() if tensor.shape[:1] == (TOKENS,) or 7 in tensor.shape else 0)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        found = likelihood.log_probabilities(model, hidden, next_ids)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    (found * weights).sum().backward()
    torch.testing.assert_close(gradients_of(adapted), expected_gradient, atol=1e-5, rtol=1e-4)
    # Hidden states, and no logits.
    assert 0 < largest <= TOKENS * hidden.shape[1]


def gradients_of(model: Any) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad(set_to_none=True)
    return found
