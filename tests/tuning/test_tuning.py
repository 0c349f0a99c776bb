"""What tuning computes: log-probabilities of many answers at once, their weights, and a model that gains by them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainers import PROMPTS, trainer_of
from twins import Family, gemma3, llama32, save_twin

from yoyak.core.records import Candidate, Prompt
from yoyak.inference.loading import load_for_inference
from yoyak.modeling import weights
from yoyak.training.steps import MicroBatching
from yoyak.tuning.groups import Group, laid_out, log_probabilities, use_shared_prompts
from yoyak.tuning.params import TuningConfig
from yoyak.tuning.policy import Policy
from yoyak.tuning.progress import TuningProgress
from yoyak.tuning.rewards import Judged, advantages, judge
from yoyak.tuning.trainer import trainer

ANSWERS = st.lists(st.floats(0, 1), min_size=2, max_size=16)


def config_of(twin: Path, **tuning: Any) -> TuningConfig:
    model = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": "fp32"}
    defaults = {"epochs": 4, "dialogues_a_step": 6, "candidates": 4, "temperature": 1.0, "learning_rate": 0.002}
    generation = {"search": "greedy", "max_new_tokens": 40, "batch_size": 8}
    return TuningConfig.model_validate(
        {
            "model": {**model, "prompt": "structured"},
            "tuning": defaults | {"max_length_ratio": 5.0, "reference_weight": 0.0} | tuning,
            "generation": generation,
            "seed": 1,
        }
    )


@pytest.fixture(scope="module", params=[llama32, gemma3])
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def trained(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a twin, and adapters that have learned a little of how a summary begins and ends."""
    folder = tmp_path_factory.mktemp(family.__name__)
    save_twin(family, folder / "twin")
    learner, _ = trainer_of(folder / "twin", folder / "scratch", epochs=12)
    learner.train()
    learner.model.save_pretrained(folder / "adapter")
    return folder


def policy_of(trained: Path) -> tuple[Policy, TuningConfig]:
    config = config_of(trained / "twin")
    return Policy(load_for_inference(config.model, None), trained / "adapter"), config


def prompt_ids(policy: Policy, prompts: list[Prompt]) -> list[list[int]]:
    return [policy.loaded.prompt_tokenizer.encode_prompt(prompt).ids for prompt in prompts]


# Groups


def test_answers_to_one_prompt_do_not_see_each_other(trained: Path) -> None:
    """Log-probabilities and gradients are those of each prompt and answer by itself, in transformers' own attention."""
    policy, _ = policy_of(trained)
    model = policy.model.eval()
    words = policy.loaded.prompt_tokenizer.encode_summary
    said = [
        ["두 사람이 이야기합니다.", "이야기", "#Person1#은 #Person2#에게 말합니다."],
        ["말합니다."],
        ["아", "이야기"],
    ]
    groups = [
        Group(ids, [words(text) for text in texts], [0.5 - number for number in range(len(texts))])
        for ids, texts in zip(prompt_ids(policy, PROMPTS[:3]), said, strict=True)
    ]
    plainly = []
    for group in groups:
        for answer in group.answers:
            ids = torch.tensor([group.prompt + answer[:-1]])
            logits = model(input_ids=ids).logits[0, len(group.prompt) - 1 :]
            plainly.append(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0])
    expected = torch.cat(plainly)
    weighted = torch.cat([torch.full((len(a),), w) for g in groups for a, w in zip(g.answers, g.weights, strict=True)])
    (expected * weighted).sum().backward()
    gradient = gradients_of(model)

    use_shared_prompts(model.get_base_model())
    inputs = laid_out(groups, model.device)
    found = log_probabilities(model, inputs)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(inputs["weights"], weighted)
    assert inputs["input_ids"].numel() == sum(group.tokens for group in groups)
    (found * inputs["weights"]).sum().backward()
    assert (gradients_of(model) - gradient).norm() / gradient.norm() < 1e-4


def gradients_of(model: Any) -> torch.Tensor:
    """All of them, in one vector; none is left."""
    found = [weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]
    model.zero_grad(set_to_none=True)
    return torch.cat(found)


# Drawing


def test_what_is_drawn_is_as_likely_as_the_trainer_says(trained: Path) -> None:
    policy, config = policy_of(trained)
    dialogues = policy.encoded(PROMPTS)
    before = {name: weight.clone() for name, weight in policy.model.named_parameters()}
    drawn = policy.answers(dialogues, config.drawing(3), lambda done: None)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.model.named_parameters())
    model = policy.model.eval()
    use_shared_prompts(model.get_base_model())
    groups = [
        Group(dialogue.ids, answers.ids, [1.0] * len(answers.ids))
        for dialogue, answers in zip(dialogues, drawn, strict=True)
    ]
    with torch.no_grad():
        found = log_probabilities(model, laid_out(groups, model.device))
    lengths = [len(answer) for group in groups for answer in group.answers]
    means = [float(part.mean()) for part in found.split(lengths)]
    expected = [candidate.log_probability for answers in drawn for candidate in answers.candidates]
    assert means == pytest.approx(expected, abs=1e-4)


def test_draws_depend_on_the_dialogue_and_the_seed_alone(trained: Path) -> None:
    policy, config = policy_of(trained)
    dialogues, done = policy.encoded(PROMPTS), []
    together = policy.answers(dialogues, config.drawing(3), done.append)
    assert done == [*range(1, len(PROMPTS) + 1)]
    alone = policy.answers(dialogues[4:6], config.drawing(3), done.append)
    assert [answers.ids for answers in alone] == [answers.ids for answers in together[4:6]]
    other = policy.answers(dialogues[4:6], config.drawing(4), done.append)
    assert [answers.ids for answers in alone] != [answers.ids for answers in other]


# Rewards


@given(ANSWERS)
def test_advantages_add_up_to_nothing_and_keep_the_order(values: list[float]) -> None:
    found = advantages(values)
    assert sum(found) == pytest.approx(0, abs=1e-9)
    assert found[0] == pytest.approx(values[0] - sum(values[1:]) / (len(values) - 1))


def test_a_summary_is_worth_its_rouge_and_a_faulty_one_nothing() -> None:
    def candidate(text: str, finished: bool = True) -> Candidate:
        return Candidate(text=text, log_probability=-1.0, finished=finished)

    prompt = PROMPTS[0]
    reference = str(prompt.summary)
    row = [candidate(reference), candidate("이야기"), candidate(reference, finished=False), candidate("")]
    (judged,) = judge([prompt], [[*row, candidate("Story 이야기")]])
    found = [each.reward(max_length_ratio=1.2) for each in judged]
    assert found[0] == pytest.approx(1, abs=1e-6)
    assert 0 < found[1] < 0.5
    assert found[2:] == [0, 0, 0]


@given(st.floats(0, 1), st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.5, 2))
def test_length_beyond_the_bound_costs_what_it_is_too_long(
    one: float, length: float, other: float, bound: float
) -> None:
    def reward(ratio: float) -> float:
        return Judged(one, ratio, faulty=False).reward(bound)

    assert reward(min(length, bound)) == one
    assert reward(bound + length) == pytest.approx(one * bound / (bound + length))
    assert reward(max(length, other)) <= reward(min(length, other))


# The trainer


def test_a_model_gains_by_its_own_summaries(tmp_path: Path) -> None:
    save_twin(gemma3, tmp_path / "twin")
    learner, _ = trainer_of(tmp_path / "twin", tmp_path / "scratch", epochs=12)
    learner.train()
    learner.model.save_pretrained(tmp_path / "adapter")
    policy, _ = policy_of(tmp_path)
    # The twin's distribution is so flat that draws from it as it is end nowhere.
    config = config_of(tmp_path / "twin", temperature=0.02)
    tuned = trainer(config, policy, PROMPTS, PROMPTS[:4], tmp_path / "tuned", [])
    before = tuned.evaluate()
    tuned.train()
    log = tuned.state.log_history
    assert max(entry["eval_rouge_mean"] for entry in log if "eval_rouge_mean" in entry) > before["eval_rouge_mean"] + 5
    assert {"drawn_rouge", "best_drawn_rouge", "drawn_length_ratio", "distinct"} <= set(log[0]) | set(log[1])


def test_summaries_without_an_end_are_told_with_what_mends_them(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their reward is 0 whatever they say; and the last step of few rows ends no more epochs than are asked for."""
    policy, config = policy_of(trained)
    short = config.generation.model_copy(update={"max_new_tokens": 1})
    tuning = config.tuning.model_copy(update={"epochs": 0.4, "dialogues_a_step": 4, "candidates": 2})
    config = config.model_copy(update={"generation": short, "tuning": tuning})
    shown = TuningProgress("twin_tuned", short.max_new_tokens)
    tuned = trainer(config, policy, PROMPTS, PROMPTS[:4], tmp_path / "tuned", [shown])
    tuned.train()
    said = [line for line in capsys.readouterr().out.splitlines() if ": epoch " in line]
    assert [line[: line.index(",")] for line in said] == ["twin_tuned: epoch 0.4 of 0.4"]
    assert ", reward 0.00, " in said[0]
    assert said[0].endswith(
        "; 100% of these summaries are cut off, and so worth nothing: raise generation.max_new_tokens, which is 1, or "
        "train longer before"
    )


def test_a_step_learns_the_same_however_it_is_divided(trained: Path, tmp_path: Path) -> None:
    """In one pass, whose groups are of different lengths, and each group by itself, its activations recomputed; those
    of like length together."""
    policy, config = policy_of(trained)
    learner = trainer(config, policy, PROMPTS, PROMPTS[:4], tmp_path / "tuned", [])
    learner.create_optimizer_and_scheduler(10)
    words = policy.loaded.prompt_tokenizer.encode_summary
    groups = [
        Group(ids, [words("말합니다." * (1 + row % 4)), words("이야기")], [0.5 - row % 2, 0.25])
        for row, ids in enumerate(prompt_ids(policy, PROMPTS))
    ]
    step = {"groups": groups, "input_ids": torch.empty(1, 1), "labels": torch.zeros(1, 1)}
    gradients = []
    for tokens in (100_000, 1):
        learner.budget.tokens, learner.budget.checkpointing = tokens, tokens == 1
        passes = [size for _, size in learner.micro_batches(step)]
        assert len(passes) == (1 if tokens > 1 else len(groups))
        assert passes == sorted(passes, reverse=True)
        MicroBatching.training_step(learner, policy.model.train(), step)
        gradients.append(gradients_of(policy.model))
    assert (gradients[0] - gradients[1]).norm() / gradients[0].norm() < 1e-4


def test_a_reference_keeps_the_language(trained: Path, tmp_path: Path) -> None:
    """With its loss beside the reward, dev's references stay likelier than without."""
    losses = []
    for weight in (0.0, 1.0):
        policy, _ = policy_of(trained)
        config = config_of(trained / "twin", reference_weight=weight, learning_rate=0.003)
        tuned = trainer(config, policy, PROMPTS, PROMPTS[:4], tmp_path / str(weight), [])
        tuned.train()
        losses.append([entry["eval_loss"] for entry in tuned.state.log_history if "eval_loss" in entry][-1])
    assert losses[1] < losses[0]
