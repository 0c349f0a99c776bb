"""How a base was searched for its own texts plays no part: not in dev scores, checkpoints or summaries."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import twins
from inferences import config_of
from safetensors.torch import load_file
from trainers import PROMPTS, full_trainer_of, trainer_of
from twins import Family, save_twin

from yoyak.core.errors import UserError
from yoyak.inference import generate
from yoyak.inference.loading import load_for_inference
from yoyak.modeling import hub
from yoyak.modeling.loading import read_tokenizer
from yoyak.training.saving import save_model

CONFIGS: dict[str, dict[str, Any]] = {
    "beams": {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2},
    "no beams": {"length_penalty": 2.0, "early_stopping": True},
    "no sampling": {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
    "sampling": {"do_sample": True, "temperature": 0.7, "repetition_penalty": 1.3},
    "forced": {"forced_bos_token_id": 9, "forced_eos_token_id": 9, "suppress_tokens": [5, 6, 7], "max_length": 20},
    "short": {"max_length": 3, "min_length": 2, "bad_words_ids": [[5]], "decoder_start_token_id": 11},
    "refused by transformers": {"early_stopping": "soon", "max_new_tokens": 0},
}
FAMILIES = [twins.bart, twins.t5, twins.mt5, twins.mbart]


def with_config(folder: Path, changes: dict[str, Any]) -> Path:
    path = folder / "generation_config.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changes))
    return folder


def summaries(folder: Path, trained: Path | None, scratch: Path, method: str, **params: Any) -> list[Any]:
    search = {"search": "greedy", "candidates": 1, "max_new_tokens": 12, "script_guard": False}
    config = config_of(folder, method, **(search | params))
    loaded = load_for_inference(config.model, trained)
    return generate.generate(loaded, PROMPTS, config, "twin", scratch, repaired=False).predictions


def trained(base: Path, scratch: Path) -> tuple[Any, Path, list[float]]:
    """The trainer, the folder it saved, and dev ROUGE of each epoch."""
    trainer, _ = full_trainer_of(base, scratch / "scratch", learning_rate=0.01)
    trainer.train()
    config, loaded = (
        SimpleNamespace(model=SimpleNamespace(method="full")),
        SimpleNamespace(tokenizer=read_tokenizer(base, base)),
    )
    save_model(config.model, loaded, trainer.model, scratch / "saved")
    return (
        trainer,
        scratch / "saved",
        [log["eval_rouge_mean"] for log in trainer.state.log_history if "eval_loss" in log],
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_full_fine_tune_is_the_same_whatever_the_base_was_searched_with(family: Family, tmp_path: Path) -> None:
    expected: Any = None
    for name, changes in {"none": {}, **CONFIGS}.items():
        base = with_config(save_twin(family, tmp_path / name / "base"), changes)
        _, saved, rouge = trained(base, tmp_path / name)
        kept = json.loads((saved / "generation_config.json").read_text())
        found = [rouge, kept, *(summaries(base, at, tmp_path / name / str(at), "full") for at in (saved, None))]
        expected = expected or found
        assert found == expected, name


def test_adapters_are_the_same_too(tmp_path: Path) -> None:
    expected: Any = None
    for name, changes in {"none": {}, **CONFIGS}.items():
        base = with_config(save_twin(twins.qwen25, tmp_path / name / "base"), changes)
        trainer, _ = trainer_of(base, tmp_path / name / "scratch", best_by="rouge", rouge_rows=4)
        trainer.train()
        scores = [log["eval_rouge_mean"] for log in trainer.state.log_history if "eval_loss" in log]
        beams = {"search": "beam", "num_beams": 3, "length_penalty": 0.5}
        found = [
            scores,
            *(
                summaries(base, None, tmp_path / name / key, "lora", **search)
                for key, search in (("greedy", {}), ("beam", beams))
            ),
        ]
        expected = expected or found
        assert found == expected, name


def test_pickled_weights_are_converted_all_the_same(tmp_path: Path) -> None:
    for name, changes in CONFIGS.items():
        base, target = with_config(save_twin(twins.bart, tmp_path / name), changes), tmp_path / f"{name} converted"
        target.mkdir()
        torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
        hub.convert(base, target)
        assert (target / "model.safetensors").exists()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_summary_begins_as_it_did_in_training(family: Family, tmp_path: Path) -> None:
    """mBART's decoder begins with the last token of its labels, whatever the configuration says."""
    trainer, rows = full_trainer_of(save_twin(family, tmp_path / "base"), tmp_path)
    batch = trainer.data_collator(rows.rows[:3])
    starts = {int(row[0]) for row in batch["decoder_input_ids"]}
    assert starts == {trainer.model.generation_config.decoder_start_token_id}
    assert starts == {trainer.model.config.decoder_start_token_id}


def test_a_base_that_does_not_say_how_its_decoder_begins_is_told_in_one_line(tmp_path: Path) -> None:
    for family in (twins.bart, twins.t5):
        base = save_twin(family, tmp_path / family.__name__)
        content = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps(content | {"decoder_start_token_id": None}))
        with pytest.raises(UserError, match=r"base|bart|t5: its config.json names no decoder_start_token_id.*add it"):
            full_trainer_of(base, tmp_path)
