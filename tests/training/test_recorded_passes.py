"""Passes that are recorded as CUDA graphs change nothing of what is learned; a stand-in records them on a CPU."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inferences import WithoutTheHost
from trainers import full_trainer_of, losses, our_gradients, trainer_of, warmed_up
from transformers import DataCollatorWithFlattening, TrainerCallback
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from twins import Family, bart, gemma3, llama32, qwen3, qwen25, save_twin, t5

from yoyak.training import attention, graphed, packing, recomputing, steps
from yoyak.training.memory import TokenBudget
from yoyak.training.recomputing import Trial


@pytest.fixture(params=[bart, t5], scope="module")
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: Family = request.param
    return save_twin(family, tmp_path_factory.mktemp(family.__name__) / "twin")


@pytest.fixture(scope="module")
def decoder_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(llama32, tmp_path_factory.mktemp("llama") / "twin")


class Recording:
    """Instead of a CUDA graph: runs anew over the tensors that it was recorded with, and counts."""

    replayed = 0

    def __init__(self, run: Any, inputs: dict[str, torch.Tensor], memory: Any) -> None:
        self.run, self.inputs = run, {name: tensor.clone() for name, tensor in inputs.items()}

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor)
        type(self).replayed += 1
        result: torch.Tensor = self.run(dict(self.inputs))
        return result


class MachinesMemory:
    """Instead of a GPU's."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, step: Any) -> Any:
        return step()


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    monkeypatch.setattr(graphed, "Recorded", Recording)
    monkeypatch.setattr(graphed, "SharedMemory", MachinesMemory)
    monkeypatch.setattr(graphed.gpu, "reset_peak_memory", lambda: None)
    monkeypatch.setattr(graphed.gpu, "free_memory", lambda: 1)
    monkeypatch.setattr(Recording, "replayed", 0)
    return Recording


def test_recorded_passes_change_no_loss(twin: Path, tmp_path: Path, recordings: type[Recording]) -> None:
    plain, _ = full_trainer_of(twin, tmp_path / "plain", learning_rate=0.005, epochs=6)
    trainer, _ = full_trainer_of(twin, tmp_path / "recorded", learning_rate=0.005, epochs=6)
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    for each in (plain, trainer):
        each.budget.tokens, each.data_collator = 250, dataclasses.replace(each.data_collator, width_step=32)
    places = places_of_gradients(trainer)
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-6)
    assert recordings.replayed > 6
    assert len(places) == 18
    assert all(each == places[1] for each in places[1:])


def places_of_gradients(trainer: Any) -> list[list[int]]:
    """Their addresses at the end of each step. In the first one nothing is recorded."""
    places = []

    class Places(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            places.append([weight.grad.data_ptr() for weight in trainer.model.parameters() if weight.grad is not None])

    trainer.add_callback(Places())
    return places


def recording_trainer(twin: Path, scratch: Path, epochs: int) -> Any:
    """All of its batches are of one shape."""
    trainer, _ = full_trainer_of(twin, scratch, epochs=epochs)
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    trainer.data_collator = dataclasses.replace(trainer.data_collator, width_step=512)
    return trainer


def test_gradients_stay_in_place_where_a_step_is_recorded_in_part(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows of four are too many to be recorded, and come first."""
    trainer = recording_trainer(twin, tmp_path, epochs=4)
    trainer.budget.tokens = 3 * 1024
    monkeypatch.setattr(steps, "MOST_GRAPHED_TOKENS", 1024)
    places = places_of_gradients(trainer)
    losses(trainer)
    assert recordings.replayed > 6
    assert len(places) == 12
    assert all(each == places[1] for each in places[1:])


def test_memory_that_runs_out_at_a_look_at_dev_is_taken_from_recorded_passes_first(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And given back: they are recorded anew after it."""
    trainer = recording_trainer(twin, tmp_path, epochs=4)
    sizes, replayed, greedy = [], [], trainer._greedy

    def short_of_memory(model: Any, prompts: list[list[int]]) -> list[list[int]]:
        sizes.append(len(prompts))
        if trainer.passes._recorded:
            replayed.append(recordings.replayed)
            raise torch.cuda.OutOfMemoryError("no memory")
        return greedy(model, prompts)

    monkeypatch.setattr(trainer, "_greedy", short_of_memory)
    losses(trainer)
    assert len(sizes) == 2 * 4
    assert len(set(sizes)) == 1
    assert len(replayed) == 4
    assert sorted(set(replayed)) == replayed
    assert trainer.ran_with["cuda_graphs"] == "no: not on a GPU"


def test_memory_that_runs_out_is_taken_from_recorded_passes_first(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = full_trainer_of(twin, tmp_path / "plain", epochs=4)
    trainer, _ = full_trainer_of(twin, tmp_path / "recorded", epochs=4)
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    # So that all batches are alike.
    trainer.data_collator = dataclasses.replace(trainer.data_collator, width_step=512)

    def no_memory(recording: Recording, inputs: Any) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(Recording, "__call__", no_memory)
    trainer.budget.tokens = plain.budget.tokens = 10_000
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-4)
    assert (trainer.passes.on, trainer.budget.tokens) == (False, 10_000)


def test_what_does_not_fit_twice_is_not_recorded(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, _ = full_trainer_of(twin, tmp_path, epochs=4)
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    monkeypatch.setattr(graphed.gpu, "free_memory", lambda: -1)
    losses(trainer)
    assert trainer.passes._bytes
    assert recordings.replayed == 0


def test_a_pass_can_be_recorded(twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in it comes from the host, or goes there, while PyTorch says that a graph is being captured."""
    trainer, rows = full_trainer_of(twin, tmp_path)
    trainer.create_optimizer_and_scheduler(10)
    inputs = trainer.data_collator(rows.rows)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    micro_batch, tokens = next(trainer.micro_batches(inputs))
    labels = (micro_batch["labels"] != -100).sum()
    with WithoutTheHost():
        trainer.run_pass(trainer.model, micro_batch, tokens, labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_recorded_packed_passes_change_no_loss(
    decoder_only: Path, tmp_path: Path, recordings: type[Recording], smoothing: float
) -> None:
    """Though idle tokens and labels are added, and steps have several micro-batches of other lengths."""
    plain, _ = trainer_of(decoder_only, tmp_path / "plain", epochs=6, label_smoothing=smoothing)
    trainer, _ = trainer_of(decoder_only, tmp_path / "recorded", epochs=6, label_smoothing=smoothing)
    assert trainer.ran_with["cuda_graphs"] == "no: not on a GPU"
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    for each in (plain, trainer):
        each.budget.tokens = 300
    places = places_of_gradients(trainer)
    assert losses(trainer) == pytest.approx(losses(plain), rel=1e-5)
    assert recordings.replayed > 12
    assert all(each == places[1] for each in places[1:])


@pytest.mark.parametrize("worth_it_below", [0, 2048])
def test_recomputing_is_tried_before_passes_are_recorded(
    decoder_only: Path,
    tmp_path: Path,
    recordings: type[Recording],
    worth_it_below: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where so few tokens go through at once that it may be faster even so."""
    monkeypatch.setattr(recomputing, "WORTH_IT_BELOW_AS_GRAPHS", worth_it_below)
    trainer, _ = trainer_of(decoder_only, tmp_path, epochs=12)
    trainer.passes = graphed.GraphedPasses(trainer.model, lambda: 0)
    trainer.budget.tokens, trainer.trial = 300, Trial(trainer.budget)
    recorded_undecided = []

    class Undecided(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            recorded_undecided.append(recordings.replayed > 0 and not trainer.trial.decided)

    trainer.add_callback(Undecided())
    losses(trainer)
    assert trainer.trial.decided == (worth_it_below > 0)
    assert any(recorded_undecided) == (worth_it_below == 0)
    assert recordings.replayed > 0 or trainer.budget.checkpointing


def test_idle_tokens_change_no_gradient(decoder_only: Path, tmp_path: Path) -> None:
    trainer, rows = trainer_of(decoder_only, tmp_path)
    expected = our_gradients(warmed_up(trainer), rows.rows)
    inputs = packing.for_loss(trainer.data_collator(rows.rows))
    padded = packing.of_few_shapes(inputs, len(rows.rows))
    assert padded["input_ids"].shape[1] > inputs["input_ids"].shape[1]
    trainer.compute_loss(trainer.model, padded, num_items_in_batch=len(inputs["labels"])).backward()
    ours = torch.cat([weight.grad.flatten() for weight in trainer.model.parameters() if weight.grad is not None])
    assert (ours - expected).norm() / expected.norm() < 1e-5


def kernel_for_a_cpu(
    module: Any, query: Any, key: Any, value: Any, mask: None, *, cu_seq_lens_q: torch.Tensor, **given: Any
) -> tuple[torch.Tensor, None]:
    """As a GPU's: it asks the host nothing."""
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return output.transpose(1, 2), None


@pytest.mark.parametrize("family", [llama32, qwen25, qwen3, gemma3])
def test_a_packed_pass_can_be_recorded(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, rows = trainer_of(save_twin(family, tmp_path / "twin"), tmp_path / "scratch")
    trainer.create_optimizer_and_scheduler(10)
    micro_batch, tokens = next(trainer.micro_batches(trainer.data_collator(rows.rows)))
    padded = trainer.of_few_shapes(micro_batch)
    labels = torch.tensor(len(micro_batch["labels"]))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    ALL_ATTENTION_FUNCTIONS.register(attention.ROW_BY_ROW, kernel_for_a_cpu)
    try:
        with WithoutTheHost():
            trainer.run_pass(trainer.model, padded, tokens, labels)
    finally:
        ALL_ATTENTION_FUNCTIONS.register(attention.ROW_BY_ROW, attention.row_by_row)


def test_graphs_memory_is_that_of_the_largest_pass(
    decoder_only: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of activations that are kept, also after it was tried to recompute them and after a kill."""
    monkeypatch.setattr(graphed.gpu, "free_memory", lambda: 10**9)
    trainer, _ = trainer_of(decoder_only, tmp_path, epochs=4)
    trainer.record_passes(None)
    budget = trainer.budget
    budget.tokens, budget.bytes_per_token = 300, 6_000
    budget.recompute()
    budget.bytes_per_token = 900
    left = budget.kept()
    budget.keep()
    losses(trainer)
    assert trainer.passes._memory.size == 300 * 6_000
    resumed = TokenBudget()
    resumed.take_up(left)
    assert (resumed.bytes_per_token, resumed.checkpointing) == (6_000, False)


def test_memory_that_runs_out_before_there_are_graphs_ends_none(
    decoder_only: Path, tmp_path: Path, recordings: type[Recording]
) -> None:
    """In the first step: fewer tokens go through at once, and are recorded."""
    trainer, _ = trainer_of(decoder_only, tmp_path, epochs=6)
    trainer.record_passes(None)
    trainer.budget.tokens = 10_000
    compute_loss = trainer.compute_loss

    def short_of_memory(model: Any, inputs: Any, *args: Any, **given: Any) -> Any:
        if trainer.state.global_step == 0 and inputs["input_ids"].shape[1] > 500:
            raise torch.cuda.OutOfMemoryError("no memory")
        return compute_loss(model, inputs, *args, **given)

    trainer.compute_loss = short_of_memory
    losses(trainer)
    assert trainer.budget.tokens < 10_000
    assert trainer.passes.on
    assert recordings.replayed > 0


ROWS = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 60)), min_size=1, max_size=12)
"""Tokens of each row's prompt and summary."""


def packed(rows: list[tuple[int, int]]) -> packing.Batch:
    given = [
        {"input_ids": [7] * (prompt + summary), "labels": [-100] * prompt + list(range(summary))}
        for prompt, summary in rows
    ]
    batch: packing.Batch = DataCollatorWithFlattening()(given)
    return batch


@given(ROWS)
def test_packed_rows_can_be_parted_and_joined(rows: list[tuple[int, int]]) -> None:
    batch = packed(rows)
    assert packing.lengths(batch) == [sum(row) for row in rows]
    parted = packing.split(batch)
    assert [row["input_ids"].shape[1] for row in parted] == [sum(row) for row in rows]
    assert all(torch.equal(tensor, batch[key]) for key, tensor in packing.joined(parted).items())


@given(ROWS)
def test_the_loss_is_of_each_label_but_a_rows_first_token(rows: list[tuple[int, int]]) -> None:
    inputs = packing.for_loss(packed(rows))
    assert inputs["labels"].tolist() == [label for _, summary in rows for label in range(summary)]
    ends = inputs["borders"][1:].tolist()
    expected = [end - summary - 1 + at for (_, summary), end in zip(rows, ends, strict=True) for at in range(summary)]
    assert inputs["places"].tolist() == expected


@given(ROWS, st.integers(0, 3))
def test_idle_tokens_are_a_row_of_their_own(rows: list[tuple[int, int]], more: int) -> None:
    inputs = packing.for_loss(packed(rows))
    padded = packing.of_few_shapes(inputs, len(rows) + more)
    for key, tensor in inputs.items():
        before = padded[key][..., : tensor.shape[-1]]
        assert torch.equal(before, tensor)
    tokens, whole = inputs["input_ids"].shape[1], padded["input_ids"].shape[1]
    assert 0 <= whole - tokens <= min(packing.MOST_IDLE_TOKENS, max(63, tokens / 8))
    assert padded["position_ids"][0, tokens:].tolist() == list(range(whole - tokens))
    assert set(padded["borders"][len(rows) + 1 :].tolist()) == {whole}
    assert len(padded["borders"]) == len(rows) + more + 2
    assert set(padded["labels"][len(inputs["labels"]) :].tolist()) <= {-100}
    assert len(padded["labels"]) == len(padded["places"])


def test_a_training_has_few_shapes() -> None:
    """Forty for all lengths up to the longest pass that is recorded; of labels, one for each 128."""
    sizes = {packing._rounded(tokens) for tokens in range(1, graphed.MOST_GRAPHED_TOKENS + 1)}
    assert max(sizes) == graphed.MOST_GRAPHED_TOKENS
    assert len(sizes) == 40
