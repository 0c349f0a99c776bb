"""Encoder-decoders: however a step is divided, its gradient is the plain one's over all of its summary tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from trainers import full_trainer_of, gradients
from twins import Family, bart, save_twin, t5

from yoyak.core.errors import UserError
from yoyak.modeling import weights
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
