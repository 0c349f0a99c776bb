"""What makes training fast changes nothing of what is learned."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project
from torch.nn.functional import cross_entropy
from transformers import TrainerState, set_seed
from twins import llama32, save_twin

from yoyak import weights
from yoyak.errors import UserError
from yoyak.models import LoraParams, QuantizationParams, load_for_training, unpack
from yoyak.parameters import read_yaml
from yoyak.records import Prompt
from yoyak.training import memory, qlora
from yoyak.training.memory import TokenBudget, parts
from yoyak.training.qlora import SummaryLossTrainer
from yoyak.training.rows import Rows, causal_rows
from yoyak.training.run import StopOnNaN
from yoyak.training.settings import TrainingJob

PROMPTS = [
    Prompt(
        fname=f"train_{row}",
        system="",
        turns=tuple(f"#Person{1 + turn % 2}#: {row}번째 이야기의 {turn}번째 말입니다." for turn in range(2 + row % 5)),
        question="위 대화를 요약해주세요.",
        summary=f"두 사람이 {row}번째 이야기를 합니다." * (1 + row % 3),
    )
    for row in range(12)
]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin") / "llama32_3b"
    save_twin(llama32, folder)
    return folder


def trainer_of(
    twin: Path, scratch: Path, kind: Callable[..., Any] | None = None, dtype: str = "fp32", **training: Any
) -> tuple[SummaryLossTrainer, Rows]:
    """A trainer of the twin, without dropout, in fp32 unless another dtype is asked for."""
    model = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": dtype}
    lora = LoraParams(r=4, alpha=8, dropout=0, bias="none", target_modules="all-linear")
    defaults = read_yaml(ROOT / "params.yaml")["training"] | {"epochs": 2, "effective_batch_size": 4}
    job = TrainingJob.model_validate(
        {
            "model": {**model, "prompt": "structured"},
            "lora": lora,
            "quantization": None,
            "training": defaults | {"learning_rate": 0.01, "warmup_ratio": 0} | training,
            "seed": 1,
        }
    )
    set_seed(1)
    loaded = load_for_training(job.model, QuantizationParams(load_in_4bit=False, type="nf4", double=True), [])
    rows = causal_rows(PROMPTS, loaded.encoder)
    trainer = qlora.trainer(job, loaded, rows, rows, scratch, [])
    if kind is not None:
        trainer.__class__ = type("Changed", (kind, SummaryLossTrainer), {})
    return trainer, rows


def losses(trainer: Any) -> list[float]:
    trainer.args.logging_steps = 1
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def plain_gradients(trainer: SummaryLossTrainer, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    """Of the recipe without any of our changes: rows padded into one batch, logits everywhere, labels shifted."""
    model = trainer.model.train()
    model.zero_grad()
    width = max(len(row["input_ids"]) for row in rows)
    ids, mask, labels = (
        torch.tensor(
            [(row.get(key) or [1] * len(row["input_ids"])) + [fill] * (width - len(row["input_ids"])) for row in rows]
        )
        for key, fill in (("input_ids", 0), ("mask", 0), ("labels", -100))
    )
    logits = model(input_ids=ids, attention_mask=mask).logits
    cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100).backward()
    return gradients(model)


def gradients(model: Any) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return found


def our_gradients(trainer: SummaryLossTrainer, rows: list[dict[str, list[int]]]) -> torch.Tensor:
    batch = trainer.data_collator(rows)
    trainer.create_optimizer_and_scheduler(10)
    trainer.training_step(trainer.model, batch, (batch["labels"] != -100).sum())
    return gradients(trainer.model)


def warmed_up(trainer: SummaryLossTrainer) -> SummaryLossTrainer:
    """With adapters that are not zero, as they start: else half of the gradients are."""
    for name, weight in trainer.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return trainer


@pytest.mark.parametrize("most", [1, 150, 10_000])
def test_first_gradients_are_the_plain_recipes(twin: Path, tmp_path: Path, most: int) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer).budget.tokens = most
    ours, plain = our_gradients(trainer, rows.rows), plain_gradients(trainer, rows.rows)
    assert plain.norm() > 0
    assert (ours - plain).norm() / plain.norm() < 1e-5


def test_first_gradients_in_bf16(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, dtype="bf16")
    ours = our_gradients(warmed_up(trainer), rows.rows)
    with trainer.compute_loss_context_manager():
        plain = plain_gradients(trainer, rows.rows)
    assert torch.cosine_similarity(ours, plain, dim=0) > 0.999


def test_the_parts_of_a_step_change_no_loss(twin: Path, tmp_path: Path) -> None:
    curves = []
    for most in (10_000, 120):
        trainer, _ = trainer_of(twin, tmp_path / str(most))
        trainer.budget.tokens = most
        curves.append(losses(trainer))
    assert len(curves[0]) == 6
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


class ScarceMemory:
    """Raises as a GPU does where more than the longest row goes through, or any without recomputed activations."""

    needs_checkpointing = False
    failures = 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        too_many = inputs["input_ids"].shape[1] > self.longest_of_all
        if self.model.training and (too_many or (self.needs_checkpointing and not model.is_gradient_checkpointing)):
            type(self).failures += 1
            raise torch.cuda.OutOfMemoryError("no memory")
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]


def test_running_out_of_memory_loses_no_step(twin: Path, tmp_path: Path) -> None:
    plain, _ = trainer_of(twin, tmp_path / "plain")
    expected = losses(plain)
    for needs_checkpointing in (False, True):
        kind = type("Scarce", (ScarceMemory,), {"needs_checkpointing": needs_checkpointing, "failures": 0})
        trainer, _ = trainer_of(twin, tmp_path / str(needs_checkpointing), kind)
        trainer.budget.tokens = 1000
        assert losses(trainer) == pytest.approx(expected, rel=1e-4)
        assert type(trainer).failures > 0
        assert trainer.budget.checkpointing == needs_checkpointing
        assert trainer.model.is_gradient_checkpointing == needs_checkpointing
        assert "memory" in trainer.budget.why


def test_a_row_that_never_fits_is_told_in_one_line() -> None:
    budget = TokenBudget()
    budget.tokens = 300
    for _ in range(2):
        budget.shrink(longest_row=200)
    assert (budget.tokens, budget.checkpointing) == (150, True)
    with pytest.raises(UserError, match=r"a single row of 200 tokens; lower the model's max_prompt_tokens"):
        budget.shrink(longest_row=200)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=70), st.integers(1, 3000))
def test_parts_hold_all_rows_in_order_within_the_budget(lengths: list[int], most: int) -> None:
    found = parts(lengths, most)
    assert [row for part in found for row in lengths[part]] == lengths
    for part in found:
        assert sum(lengths[part]) <= most or part.stop - part.start == 1


def test_a_row_does_not_see_its_neighbours(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer)
    row, *others = rows.rows

    def last_row_loss(*before: dict[str, list[int]]) -> float:
        batch = trainer.data_collator([*before, row])
        batch["labels"][:, : -len(row["labels"])] = -100
        with torch.no_grad():
            return float(trainer.compute_loss(trainer.model, dict(batch)))

    alone = last_row_loss()
    assert last_row_loss(others[0]) == pytest.approx(alone, rel=1e-5)
    assert last_row_loss(*others[3:]) == pytest.approx(alone, rel=1e-5)


def test_dev_loss_is_the_mean_of_all_labels(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer)
    total = labels = 0.0
    for row in rows.rows:
        inputs = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            logits = trainer.model.eval()(input_ids=inputs).logits
        targets = torch.tensor(row["labels"][1:])
        total += float(cross_entropy(logits[0, :-1], targets, ignore_index=-100, reduction="sum"))
        labels += int((targets != -100).sum())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / labels, rel=1e-5)


def test_unpacked_weights_are_what_4_bits_compute_with(twin: Path) -> None:
    """To a rounding of bf16: the CPU's 4-bit layers multiply in another order."""
    job = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": "fp32"}
    from yoyak.models import ModelSpec

    spec = ModelSpec.model_validate({**job, "prompt": "structured"})
    loaded = load_for_training(spec, QuantizationParams(load_in_4bit=True, type="nf4", double=True), [])
    ids = torch.tensor([loaded.encoder.prompt(PROMPTS[0]).ids])
    packed = loaded.model(input_ids=ids).logits.detach()
    dense, what = unpack(loaded.model)
    assert what == "4-bit values in float32"
    assert not any(weight.dtype == torch.uint8 for weight in dense.parameters())
    assert torch.allclose(dense(input_ids=ids).logits, packed, rtol=1e-3, atol=1e-4)


def test_the_first_pass_on_a_gpu_sets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic alone; that it fits a real card is measured in benchmarks/training.py."""
    budget = TokenBudget()
    budget._measured = False
    for name, figure in (
        ("reset_peak_memory_stats", None),
        ("memory_allocated", 2**30),
        ("max_memory_allocated", 3 * 2**30),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda figure=figure: figure)
    monkeypatch.setattr(memory, "free_gpu_memory", lambda: 10 * 2**30)
    with budget.measuring(torch.nn.Linear(1, 1), tokens=2048):
        pass
    assert budget.tokens == int(memory.SHARE * (10 * 2**30 - 16) / 2**20)
    assert budget.why == "10.0 GiB free, 1.00 MiB a token"


def test_an_epoch_may_be_the_best_by_rouge(twin: Path, tmp_path: Path) -> None:
    trainer, _ = trainer_of(twin, tmp_path, best_by="rouge", rouge_rows=5, learning_rate=0.05, epochs=3)
    assert len(trainer.summarised) == 5
    trainer.train()
    measured = [entry["eval_rouge_mean"] for entry in trainer.state.log_history if "eval_rouge_mean" in entry]
    assert len(measured) == 3
    assert trainer.state.best_metric == max(measured)
    assert trainer.model.config._attn_implementation == "sdpa"


def test_summaries_for_rouge_are_those_of_each_row_alone(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, best_by="rouge")
    warmed_up(trainer).model.eval()
    prompts = [row["input_ids"][: row["labels"].count(-100)] for row in rows.rows[:6]]
    together = trainer._greedy(trainer.model, prompts, 8)
    alone = [trainer._greedy(trainer.model, [prompt], 8)[0] for prompt in prompts]
    assert together == alone


def test_curves_go_to_weights_and_biases_if_asked(project: Project) -> None:
    """Offline: what would be sent lies in a folder."""
    project.edit(lambda params: params["tracking"].update(wandb=True))
    project.stage("prepare_prompts")
    project.run("env", "WANDB_MODE=offline", "python", "stages/train.py", "bart_mini")
    (run,) = (project.root / "wandb").glob("offline-run-*")
    assert next(run.glob("*.wandb")).stat().st_size > 1000


@pytest.mark.parametrize("figure", ["loss", "eval_loss", "train_loss"])
def test_no_number_stops_the_run(figure: str) -> None:
    state = TrainerState(global_step=3)
    StopOnNaN().on_log(None, state, None, {figure: 1.0})
    with pytest.raises(UserError, match=f"{figure} is no number at step 3; lower training.learning_rate"):
        StopOnNaN().on_log(None, state, None, {figure: float("nan")})


def test_parts_add_up_where_the_trainer_counts_nothing(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer)
    batch = trainer.data_collator(rows.rows)
    trainer.create_optimizer_and_scheduler(10)
    found = []
    for most in (1, 10_000):
        trainer.budget.tokens = most
        trainer.training_step(trainer.model, dict(batch), None)
        found.append(gradients(trainer.model))
    assert torch.allclose(found[0], found[1], rtol=1e-4, atol=1e-6)
