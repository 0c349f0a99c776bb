"""benchmarks/weight_averages.py: means of weights over steps, and of what adapters add."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trainers import trainer_of
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from twins import llama32, save_twin

from yoyak.inference.loading import load_for_inference
from yoyak.modeling import weights
from yoyak.modeling.spec import ModelSpec

ROOT = Path(__file__).parents[2]
IDS = torch.arange(5, 60)[None]


@pytest.fixture
def averages(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import weight_averages

    return weight_averages


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return save_twin(llama32, tmp_path / "twin")


def adapter(twin: Path, folder: Path, rank: int, alpha: int, rslora: bool, seed: int) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(twin), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(twin).save_pretrained(folder)
    return folder


def added(twin: Path, folder: Path) -> torch.Tensor:
    """To all weights, in one vector."""
    plain = AutoModelForCausalLM.from_pretrained(twin).state_dict()
    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(twin), folder).merge_and_unload()
    return torch.cat([(merged.state_dict()[key] - weight).flatten() for key, weight in plain.items()])


def test_a_mix_adds_the_mean_of_what_its_members_add(averages: Any, twin: Path, tmp_path: Path) -> None:
    """Of adapters of different ranks and scales; and inference loads it as any other."""
    folders = [
        adapter(twin, tmp_path / "one", 4, 8, False, 1),
        adapter(twin, tmp_path / "two", 8, 8, False, 2),
        adapter(twin, tmp_path / "three", 2, 6, True, 3),
    ]
    averages.average_adapters(folders, tmp_path / "mix")
    expected = torch.stack([added(twin, folder) for folder in folders]).mean(0)
    assert expected.norm() > 1
    torch.testing.assert_close(added(twin, tmp_path / "mix"), expected, atol=1e-5, rtol=1e-5)

    pin = weights.pin(str(twin), "twin")
    spec = ModelSpec.model_validate(
        {"weights": str(twin), "pin": pin, "method": "lora", "dtype": "fp32", "prompt": "structured"}
    )
    loaded = load_for_inference(spec, tmp_path / "mix")
    with torch.no_grad():
        plainly = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(twin), tmp_path / "mix")
        torch.testing.assert_close(loaded.model(IDS).logits, plainly(IDS).logits, atol=1e-4, rtol=1e-4)


def test_adapters_of_other_weights_are_not_mixed(averages: Any, twin: Path, tmp_path: Path) -> None:
    one, two = (adapter(twin, tmp_path / name, 4, 8, False, 1) for name in ("one", "two"))
    config = json.loads((two / "adapter_config.json").read_text())
    (two / "adapter_config.json").write_text(json.dumps(config | {"revision": "other"}))
    with pytest.raises(SystemExit, match="two: other base weights"):
        averages.average_adapters([one, two], tmp_path / "mix")


def test_the_mean_is_of_the_last_steps(averages: Any, twin: Path, tmp_path: Path) -> None:
    seen: list[list[torch.Tensor]] = []

    class Watching(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            seen.append([weight.clone() for weight in averages.trained_weights(model)])

    saved: list[list[torch.Tensor]] = []
    save: Callable[[Any], None] = lambda model: saved.append(  # noqa: E731
        [weight.clone() for weight in averages.trained_weights(model)]
    )
    learner, _ = trainer_of(
        twin, tmp_path / "scratch", epochs=2, callbacks=[Watching(), averages.AverageOfSteps(0.5, save)]
    )
    learner.train()
    steps = learner.state.max_steps
    assert len(seen) == steps > 2
    (means,) = saved
    for number, mean in enumerate(means):
        expected = torch.stack([step[number] for step in seen[steps // 2 :]]).mean(0)
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-5)
    own = averages.trained_weights(learner.model)
    assert any(not torch.equal(weight, mean) for weight, mean in zip(own, means, strict=True))
