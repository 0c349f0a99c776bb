"""A row is trained on, scored and summarised as if it were alone, whatever goes through the model with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from torch.nn.functional import cross_entropy
from trainers import PROMPTS, our_gradients, plain_gradients, trainer_of, warmed_up
from transformers import AutoModelForCausalLM
from twins import Family, save_twin

from yoyak.core.errors import UserError
from yoyak.inference import generate, run
from yoyak.inference.hf_decoding import log_probabilities
from yoyak.inference.loading import load_for_inference
from yoyak.inference.params import OneModelConfig
from yoyak.modeling import isolation, weights
from yoyak.modeling.attention import has_plain_attention
from yoyak.modeling.loading import Loaded
from yoyak.training import attention
from yoyak.training.memory import ONE_ROW
from yoyak.training.qlora import SummaryLossTrainer
from yoyak.training.rows import IGNORED, Rows

WITH_STATE = [twins.qwen35, twins.qwen3_next, twins.lfm2, twins.falcon_h1, twins.granite_hybrid]
LEAKY = [*WITH_STATE, twins.gpt_oss, twins.rwkv]
"""Of these a row sees those packed before it."""
TIGHT = [twins.llama32, twins.qwen3, twins.gemma3, twins.granite_experts]
BESIDE_OUT_PROJ = ["in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Layers of Falcon-H1 but the one that PEFT refuses."""
ROWS = [list(range(5, 40)), list(range(200, 225))]


def named(family: Family) -> str:
    return family.__name__


def adapted(twin: Path, scratch: Path) -> tuple[SummaryLossTrainer, Rows]:
    layers = BESIDE_OUT_PROJ if twin.parent.name.startswith("falcon") else "all-linear"
    trainer, rows = trainer_of(twin, scratch, best_by="rouge", rouge_rows=3, target_modules=layers)
    return warmed_up(trainer), rows


def model_of(family: Family, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(family()[0], dtype=dtype).eval()


@pytest.fixture(params=WITH_STATE, ids=named, scope="module")
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(request.param, tmp_path_factory.mktemp(named(request.param)) / "twin")


# The probe


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", [*LEAKY, *TIGHT], ids=named)
def test_packed_rows_that_see_each_other_are_noticed(family: Family, dtype: torch.dtype) -> None:
    """In bf16, too, where rounding alone changes logits as much as a short convolution does."""
    assert isolation.packs(model_of(family, dtype), ROWS) == (family in TIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", [*LEAKY, *TIGHT], ids=named)
def test_padding_that_is_seen_is_noticed(family: Family, dtype: torch.dtype) -> None:
    assert isolation.pads(model_of(family, dtype), ROWS, "left") == (family != twins.rwkv)


def test_rows_that_stand_elsewhere_than_alone_are_noticed() -> None:
    """Nothing is seen of others, but the second row's positions go on from the first's."""
    model = model_of(twins.llama32)
    plain = model.forward

    def shifted(position_ids: Any, **inputs: Any) -> Any:
        behind = (position_ids[0] == 0).cumsum(0) > 1
        # Not by a constant, to which rotary positions are indifferent.
        return plain(position_ids=position_ids * (1 + 9 * behind), **inputs)

    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(6 if "proj" in name else 1)
    assert isolation.packs(model, ROWS)
    model.forward = shifted
    assert not isolation.packs(model, ROWS)


def test_probing_leaves_no_trace() -> None:
    model = model_of(twins.llama32).train()
    before = torch.get_rng_state()
    isolation.packs(model, ROWS)
    isolation.pads(model, ROWS, "left")
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(weight.grad is None and weight.requires_grad for weight in model.parameters())


# Training


def test_a_family_with_a_state_learns_from_each_row_alone(twin: Path, tmp_path: Path) -> None:
    trainer, rows = adapted(twin, tmp_path)
    assert trainer.ran_with["attention"] == "one row at a time: rows packed together would see each other"
    assert trainer.budget.tokens == ONE_ROW
    ours, plain = our_gradients(trainer, rows.rows), plain_gradients(trainer, rows.rows)
    assert plain.norm() > 0
    assert (ours - plain).norm() / plain.norm() < 1e-4


def test_its_dev_figures_are_of_each_row_alone(twin: Path, tmp_path: Path) -> None:
    trainer, rows = adapted(twin, tmp_path)
    model = trainer.model.eval()
    rows_of_passes: list[int] = []

    def note(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        ids, positions = inputs["input_ids"], inputs.get("position_ids")
        rows_of_passes.append(len(ids) if positions is None else max(len(ids), int((positions == 0).sum())))

    model.register_forward_pre_hook(note, with_kwargs=True)
    measured = trainer.evaluate()
    assert set(rows_of_passes) == {1}
    assert "eval_rouge_mean" in measured
    total = labels = 0.0
    for row in rows.rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        targets = torch.tensor(row["labels"][1:])
        total += float(cross_entropy(logits[0, :-1], targets, ignore_index=IGNORED, reduction="sum"))
        labels += int((targets != IGNORED).sum())
    assert measured["eval_loss"] == pytest.approx(total / labels, rel=1e-5)


def test_layers_that_peft_refuses_are_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lora.target_modules: Module 'out_proj' is incompatible .* has down_proj, "):
        trainer_of(save_twin(twins.falcon_h1, tmp_path / "twin"), tmp_path)


def test_plain_attention_stays_packed(tmp_path: Path) -> None:
    for family in (twins.llama32, twins.granite_experts):
        trainer, _ = trainer_of(save_twin(family, tmp_path / named(family)), tmp_path, best_by="rouge")
        plain = has_plain_attention(trainer.model)
        assert trainer.ran_with["attention"] == (attention.ROW_BY_ROW if plain else "sdpa")
        assert trainer.budget.tokens > ONE_ROW


# Inference


def config_of(folder: Path, **params: Any) -> OneModelConfig:
    model = {"weights": str(folder), "pin": weights.pin(str(folder), "twin"), "method": "lora", "dtype": "fp32"}
    search = {"search": "greedy", "max_new_tokens": 12, "batch_size": 5, "script_guard": False, **params}
    return OneModelConfig.model_validate({"model": {**model, "prompt": "structured"}, "generation": search})


def loaded_from(config: OneModelConfig) -> Loaded:
    """So large that the prompt matters, and not the last token alone."""
    loaded = load_for_inference(config.model, None)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            weight.mul_(4 if "proj" in name else 1)
    return loaded


@pytest.mark.parametrize("search", [{}, {"search": "beam", "num_beams": 3, "candidates": 2}], ids=["greedy", "beam"])
def test_a_summary_does_not_depend_on_the_other_dialogues(twin: Path, tmp_path: Path, search: dict[str, Any]) -> None:
    config = config_of(twin, **search)
    loaded = loaded_from(config)
    together = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "together", repaired=False).predictions
    assert len({row.text for row in together}) > 1
    for number, prompt in enumerate(PROMPTS):
        kept = tmp_path / str(number)
        (alone,) = generate.generate(loaded, [prompt], config, "twin", kept, repaired=False).predictions
        assert [one.text for one in alone.candidates] == [one.text for one in together[number].candidates]
        expected = [one.log_probability for one in alone.candidates]
        assert [one.log_probability for one in together[number].candidates] == pytest.approx(expected, abs=1e-4)


def test_scored_texts_do_not_see_each_other(twin: Path) -> None:
    model = load_for_inference(config_of(twin).model, None).model
    prompts, candidates = [row[:-5] for row in ROWS], [row[-5:] for row in ROWS]
    alone = []
    for prompt, candidate in zip(prompts, candidates, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + candidate])).logits[0, len(prompt) - 1 : -1]
        alone.append(-float(cross_entropy(logits, torch.tensor(candidate))))
    assert log_probabilities([model], [prompts], candidates) == pytest.approx(alone, abs=1e-5)


def test_where_padding_is_seen_dialogues_are_summarised_one_at_a_time(tmp_path: Path) -> None:
    for family, size in ((twins.rwkv, 1), (twins.qwen35, 5), (twins.llama32, 5)):
        config = config_of(save_twin(family, tmp_path / named(family)))
        loaded = load_for_inference(config.model, None)
        assert generate.at_once(loaded, config) == size
        told = {"batch": "one dialogue at a time: padding would change what this model writes"}
        assert run._batching(loaded, config) == (told if size == 1 else {})
