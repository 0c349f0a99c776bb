"""What makes training fast changes nothing of what is learned."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import Project
from torch.nn.functional import cross_entropy
from trainers import PROMPTS, gradients, losses, our_gradients, plain_gradients, trainer_of, warmed_up
from transformers import TrainerCallback, TrainerState
from twins import llama32, save_twin

from yoyak.core.errors import UserError
from yoyak.modeling import weights
from yoyak.modeling.loading import _all_finite, check_finite, pretrained, vocabulary_of
from yoyak.modeling.spec import ModelSpec, QuantizationParams
from yoyak.training import attention, memory, packing, recomputing
from yoyak.training.base_model import dequantize, load_for_training
from yoyak.training.divergence import StopOnDivergence
from yoyak.training.memory import TokenBudget
from yoyak.training.qlora import SummaryLossTrainer
from yoyak.training.recomputing import Trial
from yoyak.training.rows import Rows


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin") / "llama32_3b"
    save_twin(llama32, folder)
    return folder


@pytest.mark.parametrize("most", [1, 150, 10_000])
def test_first_gradients_are_the_plain_recipes(twin: Path, tmp_path: Path, most: int) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer).budget.tokens = most
    ours, plain = our_gradients(trainer, rows.rows), plain_gradients(trainer, rows.rows)
    assert plain.norm() > 0
    assert (ours - plain).norm() / plain.norm() < 1e-5


def test_labels_are_smoothed_in_training_alone(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, label_smoothing=0.1)
    ours, plain = our_gradients(warmed_up(trainer), rows.rows), plain_gradients(trainer, rows.rows, smoothing=0.1)
    assert (ours - plain).norm() / plain.norm() < 1e-5
    assert (ours - plain_gradients(trainer, rows.rows)).norm() / plain.norm() > 0.01
    unsmoothed, _ = trainer_of(twin, tmp_path / "unsmoothed")
    warmed_up(unsmoothed).model.load_state_dict(trainer.model.state_dict())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(unsmoothed.evaluate()["eval_loss"])


@pytest.mark.usefixtures("dtypes_as_asked")
def test_first_gradients_in_bf16(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, dtype="bf16")
    ours = our_gradients(warmed_up(trainer), rows.rows)
    plain = plain_gradients(trainer, rows.rows)
    assert torch.cosine_similarity(ours, plain, dim=0) > 0.999


def test_how_a_step_is_divided_changes_no_loss(twin: Path, tmp_path: Path) -> None:
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
    error: Exception = torch.cuda.OutOfMemoryError("no memory")
    failures = 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        too_many = inputs["input_ids"].shape[1] > self.longest_of_all
        if self.model.training and (too_many or (self.needs_checkpointing and not model.is_gradient_checkpointing)):
            type(self).failures += 1
            raise self.error
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]


def test_running_out_of_memory_loses_no_step(twin: Path, tmp_path: Path) -> None:
    plain, _ = trainer_of(twin, tmp_path / "plain")
    expected = losses(plain)
    cublas = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    for needs_checkpointing, error in ((False, cublas), (True, ScarceMemory.error), (False, MemoryError())):
        changes = {"needs_checkpointing": needs_checkpointing, "error": error, "failures": 0}
        kind = type("Scarce", (ScarceMemory,), changes)
        trainer, _ = trainer_of(twin, tmp_path / type(error).__name__, kind)
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
        budget.shrink(longest_row=200, of="GPU memory")
    assert (budget.tokens, budget.checkpointing) == (150, True)
    with pytest.raises(UserError, match=r"a single row of 200 tokens; lower the model's max_prompt_tokens"):
        budget.shrink(longest_row=200, of="GPU memory")


def test_the_budget_grows_back_when_memory_does(capsys: pytest.CaptureFixture[str]) -> None:
    budget = TokenBudget()
    fitting = budget.tokens

    def steps_until_it_grows() -> int:
        before, steps = budget.tokens, 0
        while budget.tokens == before:
            budget.step_done()
            steps += 1
        return steps

    budget.shrink(longest_row=10, of="GPU memory")
    budget.shrink(longest_row=10, of="GPU memory")
    assert budget.tokens == fitting // 4
    assert steps_until_it_grows() == memory.GROWS_AFTER
    assert budget.tokens == fitting // 2
    # What was tried too early is tried half as often.
    budget.shrink(longest_row=10, of="GPU memory")
    assert steps_until_it_grows() == 2 * memory.GROWS_AFTER
    assert steps_until_it_grows() == 2 * memory.GROWS_AFTER
    for _ in range(10 * memory.GROWS_AFTER):
        budget.step_done()
    assert (budget.tokens, budget.why) == (fitting, "grown again after running out of memory")
    assert f"memory sufficed for {memory.GROWS_AFTER} steps: {fitting // 2} tokens at once" in capsys.readouterr().out


def test_a_training_whose_memory_comes_back_is_the_undisturbed_one(twin: Path, tmp_path: Path) -> None:
    """It runs out of memory in its third step, alone."""
    plain, _ = trainer_of(twin, tmp_path / "plain", epochs=12)
    plain.budget.tokens = 10_000
    expected = losses(plain)
    kind = type("ScarceOnce", (ScarceMemory,), {"failures": 0})
    trainer, _ = trainer_of(twin, tmp_path / "scarce", kind, epochs=12)
    trainer.budget = TokenBudget()

    class MemoryComesBack(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.longest_of_all = 10_000 if state.global_step != 2 else longest

    longest = trainer.longest_of_all
    trainer.add_callback(MemoryComesBack())
    assert losses(trainer) == pytest.approx(expected, rel=1e-3)
    assert type(trainer).failures > 0
    assert trainer.budget.why == "grown again after running out of memory"


def seconds_of_steps(monkeypatch: pytest.MonkeyPatch, kept: float, recomputed: float) -> TokenBudget:
    """The budget at the end of a trial, on a clock by which a step takes so long either way."""
    budget, now = TokenBudget(), 0.0
    monkeypatch.setattr(recomputing, "_now", lambda: now)
    trial = Trial(budget)
    before = budget.tokens
    for step in range(100):
        trial.begin_step(10_000)
        # Those of the warm-up take long.
        slow = 100 if step % (recomputing.WARM_UP + recomputing.TIMED) < recomputing.WARM_UP else 1
        now += slow * (recomputed if budget.checkpointing else kept)
        trial.end_step(10_000)
        assert trial.decided == (step >= 2 * (recomputing.WARM_UP + recomputing.TIMED) - 1)
        # Who is killed while it is tried begins the trial anew.
        assert trial.decided or not budget.kept()["gradient_checkpointing"]
    assert before == memory.CPU_TOKENS
    assert budget.kept()["gradient_checkpointing"] == budget.checkpointing
    return budget


def test_activations_are_recomputed_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    budget = seconds_of_steps(monkeypatch, kept=4.0, recomputed=2.0)
    assert (budget.checkpointing, budget.tokens) == (True, memory.FIRST_TOKENS)
    assert budget.why.endswith("activations recomputed: 5,000 tokens/s for 2,500")
    assert budget.why in capsys.readouterr().out


def test_activations_are_kept_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = seconds_of_steps(monkeypatch, kept=2.0, recomputed=4.0)
    assert (budget.checkpointing, budget.tokens, budget.why) == (False, memory.CPU_TOKENS, "the CPU's")


def test_nothing_is_tried_where_a_pass_is_large_or_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for at_once, of_step in ((recomputing.WORTH_IT_BELOW, 100_000), (1024, 1024)):
        budget = TokenBudget()
        budget.tokens = at_once
        trial = Trial(budget)
        for _ in range(100):
            trial.begin_step(of_step)
            trial.end_step(of_step)
        assert not budget.checkpointing


def test_what_memory_has_decided_is_not_tried() -> None:
    budget = TokenBudget()
    budget.checkpointing = True
    trial = Trial(budget)
    trial.begin_step(10_000)
    trial.end_step(10_000)
    assert trial.decided
    assert budget.checkpointing


def test_memory_that_runs_out_while_steps_are_timed_ends_the_trial() -> None:
    budget = TokenBudget()
    trial = Trial(budget)
    for step in range(3 * (recomputing.WARM_UP + recomputing.TIMED)):
        trial.begin_step(10_000)
        if step == 2:
            budget.shrink(longest_row=budget.tokens, of="GPU memory")
        trial.end_step(10_000)
    assert trial.decided
    assert budget.checkpointing


def test_no_step_waits_for_the_gpu_that_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputing, "_now", lambda: pytest.fail("waited"))
    for at_once, of_step in ((recomputing.WORTH_IT_BELOW, 100_000), (1024, 1024)):
        budget = TokenBudget()
        budget.tokens = at_once
        trial = Trial(budget)
        trial.begin_step(of_step)
        trial.end_step(of_step)


def test_a_training_that_tries_both_ways_is_the_undisturbed_one(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = trainer_of(twin, tmp_path / "plain", epochs=12)
    expected = losses(plain)
    monkeypatch.setattr(recomputing, "WARM_UP", 1)
    monkeypatch.setattr(recomputing, "TIMED", 1)
    monkeypatch.setattr(recomputing, "_rate", lambda steps: len(rates) or rates.append(steps) or 9)
    rates: list[object] = []
    trainer, _ = trainer_of(twin, tmp_path / "trial", epochs=12)
    trainer.budget.tokens = 40
    trainer.trial = Trial(trainer.budget)
    ways: list[bool] = []

    class Ways(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            ways.append(trainer.model.is_gradient_checkpointing)

    trainer.add_callback(Ways())
    assert losses(trainer) == pytest.approx(expected, rel=1e-4)
    assert ways[:6] == [False, False, True, True, False, False]
    assert trainer.trial.decided
    assert not trainer.budget.checkpointing


@given(st.lists(st.integers(1, 500), min_size=1, max_size=70), st.integers(1, 3000))
def test_micro_batches_hold_all_rows_in_order_within_the_budget(lengths: list[int], most: int) -> None:
    done = 0
    while done < len(lengths):
        rows = memory.next_rows(lengths[done:], most)
        assert sum(lengths[done : done + rows]) <= most or rows == 1
        done += rows
    assert done == len(lengths)


def test_a_row_does_not_see_its_neighbours(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer)
    row, *others = rows.rows

    def last_row_loss(*before: dict[str, list[int]]) -> float:
        batch = trainer.data_collator([*before, row])
        batch["labels"][:, : -len(row["labels"])] = -100
        with torch.no_grad():
            return float(trainer.compute_loss(trainer.model, packing.for_loss(batch)))

    alone = last_row_loss()
    assert last_row_loss(others[0]) == pytest.approx(alone, rel=1e-5)
    assert last_row_loss(*others[3:]) == pytest.approx(alone, rel=1e-5)


def test_dev_loss_is_the_mean_of_all_labels(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    warmed_up(trainer)
    total = labels = 0.0
    for row in rows.rows:
        inputs = torch.tensor([row["input_ids"]])
        with torch.no_grad(), attention.with_padding(trainer.model):
            logits = trainer.model.eval()(input_ids=inputs).logits
        targets = torch.tensor(row["labels"][1:])
        total += float(cross_entropy(logits[0, :-1], targets, ignore_index=-100, reduction="sum"))
        labels += int((targets != -100).sum())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / labels, rel=1e-5)


def test_unpacked_weights_are_what_4_bits_compute_with(twin: Path) -> None:
    """To a rounding of bf16: the CPU's 4-bit layers multiply in another order."""
    config = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": "fp32"}

    spec = ModelSpec.model_validate({**config, "prompt": "structured"})
    loaded = load_for_training(spec, QuantizationParams(load_in_4bit=True, type="nf4", double=True), [])
    ids = torch.tensor([loaded.prompt_tokenizer.encode_prompt(PROMPTS[0]).ids])
    packed = loaded.model(input_ids=ids).logits.detach()
    dense, what = dequantize(loaded.model)
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
    monkeypatch.setattr(memory.gpu, "free_memory", lambda: 10 * 2**30)
    with budget.measuring(torch.nn.Linear(1, 1), tokens=2048):
        pass
    assert budget.tokens == int(memory.SHARE * (10 * 2**30 - 16) / 2**20)
    assert budget.why == "10.0 GiB free, 1.00 MiB a token"


class ScarceForDev:
    """Raises as a GPU does where more than two rows of dev go through, or are summarised."""

    failures = 0

    def _summed_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        self._fail_beyond(2, int((inputs["position_ids"] == 0).sum()))
        return super()._summed_loss(model, inputs)  # type: ignore[misc]

    def _greedy(self, model: Any, prompts: list[list[int]], most: int) -> Any:
        self._fail_beyond(2, len(prompts))
        return super()._greedy(model, prompts, most)  # type: ignore[misc]

    def _fail_beyond(self, most: int, rows: int) -> None:
        if rows > most:
            self.failures += 1
            raise torch.cuda.OutOfMemoryError("no memory")


def test_running_out_of_memory_changes_no_figure_of_dev(twin: Path, tmp_path: Path) -> None:
    figures = []
    for kind in (None, ScarceForDev):
        trainer, _ = trainer_of(twin, tmp_path, kind, best_by="rouge")
        figures.append(warmed_up(trainer).evaluate())
    assert trainer.failures == 2 + 3
    for figure in ("eval_loss", "eval_rouge_mean"):
        assert figures[0][figure] == pytest.approx(figures[1][figure], rel=1e-5)


def test_a_row_of_dev_that_never_fits_is_told_in_one_line() -> None:
    def on_a_gpu(rows: Any) -> None:
        raise torch.cuda.OutOfMemoryError("no memory")

    def on_the_cpu(rows: Any) -> None:
        torch.empty(2**50, dtype=torch.uint8)

    for run, of, larger in ((on_a_gpu, "GPU memory", "a GPU"), (on_the_cpu, "memory", "a machine")):
        told = f"out of {of} with a single row of dev; lower the model's max_prompt_tokens, or use {larger} with more"
        with pytest.raises(UserError, match=f"^{told} memory$"):
            list(memory.in_batches([1, 2, 3], 2, run))


@pytest.fixture(scope="module")
def learned(twin: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SummaryLossTrainer, Rows]:
    """A twin that knows some of its rows by heart; dev ROUGE of each epoch is in its log."""
    scratch = tmp_path_factory.mktemp("learned")
    return trainer_of(twin, scratch, best_by="rouge", rouge_rows=5, learning_rate=0.02, epochs=12)


def test_an_epoch_may_be_the_best_by_rouge(learned: tuple[SummaryLossTrainer, Rows]) -> None:
    trainer, _ = learned
    assert len(trainer.summarised) == 5
    trainer.train()
    measured = [entry["eval_rouge_mean"] for entry in trainer.state.log_history if "eval_rouge_mean" in entry]
    assert len(measured) == 12
    assert trainer.state.best_metric == max(measured) > measured[0] + 20
    # The best epoch's weights are what is left.
    assert trainer.evaluate()["eval_rouge_mean"] == pytest.approx(max(measured))


def test_summaries_for_rouge_are_those_of_each_row_alone(learned: tuple[SummaryLossTrainer, Rows]) -> None:
    trainer, rows = learned
    trainer.model.eval()
    prompts = [row["input_ids"][: row["labels"].count(-100)] for row in rows.rows]
    together = trainer._greedy(trainer.model, prompts, 40)
    alone = [trainer._greedy(trainer.model, [prompt], 40)[0] for prompt in prompts]
    texts = trainer.prompt_tokenizer.decode(alone)
    assert trainer.prompt_tokenizer.decode(together) == texts
    assert len(set(texts)) > 1


def test_curves_go_to_weights_and_biases_if_asked(project: Project) -> None:
    """Offline: what would be sent lies in a folder."""
    project.edit(lambda params: params["tracking"].update(wandb=True))
    refused = project.run("env", "WANDB_API_KEY=", "python", "stages/prepare_prompts.py", check=False)
    assert "error: params.yaml: tracking.wandb: nobody is logged in; `wandb login`" in refused.stdout
    for stage in (["prepare_prompts.py"], ["train.py", "bart_mini"]):
        project.run("env", "WANDB_MODE=offline", "python", f"stages/{stage[0]}", *stage[1:])
    (run,) = (project.root / "wandb").glob("offline-run-*/*.wandb")
    for curve in (b"train/loss", b"train/grad_norm", b"eval/rouge_mean"):
        assert curve in run.read_bytes()


def test_a_log_has_a_line_for_each_look_at_dev_and_for_the_end(project: Project) -> None:
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(epochs=2))
    project.stage("prepare_prompts")
    said = project.stage("train", "bart_mini").stdout
    dev = pd.read_csv(project.root / "plots/training/bart_mini/epochs.csv")
    for epoch, loss, rouge in zip(dev["epoch"], dev["loss"], dev["rouge_mean"], strict=True):
        assert f"\nbart_mini: epoch {epoch:g} of 2, loss on dev {loss:.3f}, ROUGE {rouge:.2f}\n" in said
    assert re.search(
        r"^bart_mini: trained to step 2 of 2 in .*, [\d,]+ tokens/s, the best is that of", said, re.MULTILINE
    )
    assert "grad_norm" not in said


def test_parameters_reach_the_trainer(twin: Path, tmp_path: Path) -> None:
    changed = {"weight_decay": 0.3, "max_grad_norm": 0.7, "warmup_ratio": 0.5, "schedule": "linear", "epochs": 4}
    trainer, _ = trainer_of(twin, tmp_path, learning_rate=0.01, **changed)
    arguments = trainer.args
    assert (arguments.weight_decay, arguments.max_grad_norm, arguments.seed) == (0.3, 0.7, 1)
    losses(trainer)
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    # Twelve steps: up in six, down in six; the rate is logged as it was in the step before.
    assert rates == pytest.approx([0.01 * min(step / 6, (12 - step) / 6) for step in range(12)], abs=1e-9)


def test_a_misspelt_layer_is_told_in_one_line(twin: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no layer 'q_porj'; it has .*q_proj, .*or write all-linear"):
        trainer_of(twin, tmp_path, target_modules=["q_porj"])


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_rows_and_checkpoint(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, callbacks=[Spoil(after_step=4)])
    trainer.args.logging_steps = 2
    trainer.add_callback(StopOnDivergence(trainer, rows, vocabulary_of(trainer.model)))
    with pytest.raises(UserError) as told:
        trainer.train()
    line = r"loss is no number at step 5 \(rows (train_\d+(?:, train_\d+){3})\); the last good checkpoint is that of "
    found = re.match(line + "step 3; lower training.learning_rate", str(told.value))
    assert found
    # The first epoch has three batches of four rows, and the second has other four each.
    assert len(set(found.group(1).split(", "))) == 4


def test_an_exploding_loss_stops_the_run(twin: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(twin, tmp_path, callbacks=[Spoil(after_step=1, times=1000.0)])
    trainer.add_callback(StopOnDivergence(trainer, rows, vocabulary_of(trainer.model)))
    with pytest.raises(UserError, match=r"loss has exploded, from \d+\.\d\d to \d+\.\d\d, at step 2 \(rows train_"):
        trainer.train()


@pytest.mark.parametrize("figure", ["loss", "eval_loss", "train_loss"])
def test_no_number_stops_the_run(twin: Path, tmp_path: Path, figure: str) -> None:
    trainer, rows = trainer_of(twin, tmp_path)
    stop, state = StopOnDivergence(trainer, rows, 1000), TrainerState(global_step=3, log_history=[{"loss": 1.0}])
    for usual in (0.1, 1.0, 3.4):
        stop.on_log(trainer.args, state, None, {figure: usual})
    with pytest.raises(UserError, match=f"{figure} is no number at step 3; no checkpoint was saved before it; lower"):
        stop.on_log(trainer.args, state, None, {figure: float("nan")})


class Spoil(TrainerCallback):
    """Multiplies the output head, and so the logits, as an overflow does."""

    def __init__(self, after_step: int, times: float = float("nan")) -> None:
        self.after_step, self.times = after_step, times

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.after_step:
            with torch.no_grad():
                kwargs["model"].get_output_embeddings().weight.mul_(self.times)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_found(twin: Path, value: float) -> None:
    model = pretrained(twin)
    check_finite(model, "twin")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 2] = value
    with pytest.raises(UserError, match=r"twin: its weights have values .* in model\.layers\.1\.mlp\.up_proj"):
        check_finite(model, "twin")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_found_at_any_place(dtype: torch.dtype, value: float) -> None:
    """A CPU compares by vectors, and what is behind the last whole one by itself."""
    for size in (1, 7, 33, 1000):
        for place in {0, size // 2, size - 1}:
            weight = torch.randn(size)
            assert _all_finite(weight.to(dtype))
            weight[place] = value
            assert not _all_finite(weight.to(dtype))


def test_micro_batches_add_up_where_the_trainer_counts_nothing(twin: Path, tmp_path: Path) -> None:
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
