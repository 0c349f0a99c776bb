"""Encoder-decoders: however a step is divided, its gradient is the plain one's over all of its summary tokens."""

import copy
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from trainers import full_trainer_of, gradients, losses
from transformers import (
    DataCollatorForSeq2Seq,
    GenerationConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)
from twins import Family, bart, save_twin, t5

from yoyak.core.errors import UserError
from yoyak.metrics import rouge
from yoyak.modeling import encoder_decoder, weights
from yoyak.modeling.spec import ModelSpec
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


def test_tied_weights_are_not_told_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the best epoch is loaded; others are."""
    trainer, _ = full_trainer_of(save_twin(bart, tmp_path / "twin"), tmp_path / "scratch", epochs=2)
    trainer.train()
    assert "missing keys" not in caplog.text
    state = trainer.model.state_dict()
    del state["model.encoder.layers.0.fc1.bias"], state["lm_head.weight"]
    trainer._issue_warnings_after_load(trainer.model.load_state_dict(state, strict=False))
    assert "missing keys in the checkpoint model loaded: ['model.encoder.layers.0.fc1.bias']" in caplog.text
