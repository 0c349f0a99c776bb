"""Encoder-decoders: however a step is divided, its gradient is the plain one's over all of its summary tokens."""

import copy
import dataclasses
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from inferences import WithoutTheHost
from torch.nn.functional import cross_entropy
from trainers import full_trainer_of, gradients, losses
from transformers import (
    DataCollatorForSeq2Seq,
    GenerationConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)
from twins import Family, bart, save_twin, t5

from yoyak.core.errors import UserError
from yoyak.metrics import rouge
from yoyak.modeling import encoder_decoder, weights
from yoyak.modeling.spec import ModelSpec
from yoyak.training import graphed, seq2seq
from yoyak.training.base_model import load_for_training
from yoyak.training.rows import Rows


@pytest.fixture(params=[bart, t5], scope="module")
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family: Family = request.param
    return save_twin(family, tmp_path_factory.mktemp(family.__name__) / "twin")


def plain_gradients(model: Any, rows: Rows, smoothing: float) -> torch.Tensor:
    """Row by row, so that nothing is padded."""
    labels = sum(len(row["labels"]) for row in rows.rows)
    for row in rows.rows:
        target = torch.tensor([row["labels"]])
        logits = model(input_ids=torch.tensor([row["input_ids"]]), labels=target).logits
        total = cross_entropy(logits[0], target[0], label_smoothing=smoothing, reduction="sum")
        (total / labels).backward()
    return gradients(model)


@pytest.mark.parametrize("most", [1, 300, 100_000])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_first_gradients_are_the_plain_ones(twin: Path, tmp_path: Path, most: int, smoothing: float) -> None:
    trainer, rows = full_trainer_of(twin, tmp_path, label_smoothing=smoothing)
    trainer.budget.tokens = most
    trainer.create_optimizer_and_scheduler(10)
    trainer.training_step(trainer.model, trainer.data_collator(rows.rows), torch.tensor(1))
    ours, plain = gradients(trainer.model), plain_gradients(trainer.model, rows, smoothing)
    assert plain.norm() > 0
    assert (ours - plain).norm() / plain.norm() < 1e-5


def test_padding_is_not_counted(twin: Path, tmp_path: Path) -> None:
    trainer, rows = full_trainer_of(twin, tmp_path)
    real = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows.rows)
    assert trainer.real_tokens(trainer.data_collator(rows.rows)) == real


def test_an_encoder_decoder_takes_no_adapter(twin: Path) -> None:
    spec = {"weights": str(twin), "pin": weights.pin(str(twin), "twin"), "method": "lora", "dtype": "fp32"}
    with pytest.raises(UserError, match="is an encoder-decoder: its entry of models needs method: full"):
        load_for_training(ModelSpec.model_validate({**spec, "prompt": "structured"}), None, [])


def plain_losses(trainer: Any, rows: Rows, scratch: Path) -> list[float]:
    """Of transformers' own trainer, with the rows in the same order."""
    model = copy.deepcopy(trainer.model)

    class Plain(Seq2SeqTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return trainer._get_train_sampler()

    of_steps = ("num_train_epochs", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type", "warmup_steps")
    arguments = {name: getattr(trainer.args, name) for name in of_steps}
    return losses(
        Plain(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(scratch / "plain"), use_cpu=True, save_strategy="no", report_to=[], **arguments
            ),
            train_dataset=Dataset.from_list(rows.rows),
            data_collator=DataCollatorForSeq2Seq(trainer.processing_class, model=model),
        )
    )


def test_each_step_has_the_plain_trainers_loss(twin: Path, tmp_path: Path) -> None:
    trainer, rows = full_trainer_of(twin, tmp_path, learning_rate=0.005, epochs=4)
    expected = plain_losses(trainer, rows, tmp_path)
    assert len(expected) == 12
    assert expected[-1] < expected[0]
    assert losses(trainer) == pytest.approx(expected, rel=0.005)


def plain_figures(trainer: Any, rows: Rows) -> dict[str, float]:
    """Of dev, row by row, by transformers' `generate`."""
    model, totals, scores = trainer.model.eval(), [], []
    decode = trainer.loaded.prompt_tokenizer.decode
    config = GenerationConfig(
        max_new_tokens=trainer.max_new_tokens,
        eos_token_id=trainer.loaded.end_ids,
        pad_token_id=trainer.processing_class.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
    )
    with torch.no_grad():
        for row in rows.rows:
            ids, target = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            totals.append(cross_entropy(model(input_ids=ids, labels=target).logits[0], target[0], reduction="sum"))
            text = decode(model.generate(input_ids=ids, generation_config=config)[:, 1:])[0]
            scores += rouge.score([text], [(decode(target)[0],)])
    labels = sum(len(row["labels"]) for row in rows.rows)
    return {"loss": float(sum(totals)) / labels, "rouge_mean": 100 * fmean(score.mean for score in scores)}


@pytest.mark.parametrize("known", [True, False])
def test_figures_of_dev_are_those_of_each_row_alone(
    twin: Path, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our search, and for families that it does not know by `generate`."""
    trainer, rows = full_trainer_of(twin, tmp_path, learning_rate=0.01, epochs=20)
    losses(trainer)
    if not known:
        monkeypatch.setattr(encoder_decoder, "is_known", lambda model: False)
    measured, expected = trainer.evaluate(), plain_figures(trainer, rows)
    assert expected["rouge_mean"] > 5
    for name, figure in expected.items():
        assert measured[f"eval_{name}"] == pytest.approx(figure, rel=1e-5)


@pytest.mark.usefixtures("dtypes_as_asked")
def test_dev_is_summarised_in_the_dtype_of_inference(twin: Path, tmp_path: Path) -> None:
    trainer, _ = full_trainer_of(twin, tmp_path, dtype="bf16")
    losses(trainer)
    model = trainer._as_inference_loads_it()
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert model.get_output_embeddings() is not trainer.model.get_output_embeddings()


class Recording:
    """Instead of a CUDA graph: runs anew over the tensors that it was recorded with, and counts."""

    replayed = 0

    def __init__(self, run: Any, inputs: dict[str, torch.Tensor], pool: Any) -> None:
        self.run, self.inputs = run, {name: tensor.clone() for name, tensor in inputs.items()}

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        for name, tensor in inputs.items():
            self.inputs[name].copy_(tensor)
        type(self).replayed += 1
        result: torch.Tensor = self.run(dict(self.inputs))
        return result


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> type[Recording]:
    monkeypatch.setattr(graphed, "Recorded", Recording)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(graphed.gpu, "reset_peak_memory", lambda: None)
    monkeypatch.setattr(graphed.gpu, "free_memory", lambda: 1)
    monkeypatch.setattr(Recording, "replayed", 0)
    return Recording


def test_recorded_passes_change_no_loss(twin: Path, tmp_path: Path, recordings: type[Recording]) -> None:
    plain, _ = full_trainer_of(twin, tmp_path / "plain", learning_rate=0.005, epochs=6)
    trainer, _ = full_trainer_of(twin, tmp_path / "recorded", learning_rate=0.005, epochs=6)
    trainer.passes = graphed.GraphedPasses(trainer.model)
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
    trainer.passes = graphed.GraphedPasses(trainer.model)
    trainer.data_collator = dataclasses.replace(trainer.data_collator, width_step=512)
    return trainer


def test_gradients_stay_in_place_where_a_step_is_recorded_in_part(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rows of four are too many to be recorded, and come first."""
    trainer = recording_trainer(twin, tmp_path, epochs=4)
    trainer.budget.tokens = 3 * 1024
    monkeypatch.setattr(seq2seq, "MAX_GRAPHED_TOKENS", 1024)
    places = places_of_gradients(trainer)
    losses(trainer)
    assert recordings.replayed > 6
    assert len(places) == 12
    assert all(each == places[1] for each in places[1:])


def test_memory_that_runs_out_at_a_look_at_dev_is_taken_from_recorded_passes_first(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = recording_trainer(twin, tmp_path, epochs=3)
    sizes, greedy = [], trainer._greedy

    def short_of_memory(model: Any, prompts: list[list[int]]) -> list[list[int]]:
        sizes.append(len(prompts))
        if recordings.replayed and trainer.passes.on:
            raise torch.cuda.OutOfMemoryError("no memory")
        return greedy(model, prompts)

    monkeypatch.setattr(trainer, "_greedy", short_of_memory)
    losses(trainer)
    assert len(sizes) == 4
    assert len(set(sizes)) == 1
    assert trainer.ran_with["cuda_graphs"] == "given up: memory ran out beside them"


def test_memory_that_runs_out_is_taken_from_recorded_passes_first(
    twin: Path, tmp_path: Path, recordings: type[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = full_trainer_of(twin, tmp_path / "plain", epochs=4)
    trainer, _ = full_trainer_of(twin, tmp_path / "recorded", epochs=4)
    trainer.passes = graphed.GraphedPasses(trainer.model)
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
    trainer.passes = graphed.GraphedPasses(trainer.model)
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
    micro_batch, _ = next(trainer.micro_batches(inputs))
    labels = (micro_batch["labels"] != -100).sum()
    with WithoutTheHost():
        trainer.run_pass(trainer.model, micro_batch, labels)


def test_tied_weights_are_not_told_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the best epoch is loaded; others are."""
    trainer, _ = full_trainer_of(save_twin(bart, tmp_path / "twin"), tmp_path / "scratch", epochs=2)
    trainer.train()
    assert "missing keys" not in caplog.text
    state = trainer.model.state_dict()
    del state["model.encoder.layers.0.fc1.bias"], state["lm_head.weight"]
    trainer._issue_warnings_after_load(trainer.model.load_state_dict(state, strict=False))
    assert "missing keys in the checkpoint model loaded: ['model.encoder.layers.0.fc1.bias']" in caplog.text
