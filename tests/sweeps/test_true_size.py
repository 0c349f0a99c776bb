"""The shapes of models that need a hub, made much smaller, with their tokenizers."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForSeq2SeqLM

from yoyak.core.params import PARAMS, read_yaml
from yoyak.modeling.loading import read_tokenizer
from yoyak.sweeps import true_size

SMALLER = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
TEXT = "#Person1#: 안녕하세요, 스미스 씨. 저는 호킨스 의사입니다."


@pytest.fixture
def like_kobart(tmp_path: Path) -> Path:
    """As koBART's repository has it: `tokenizer.json` names no class, and `config.json` is BART's."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    names = ["<s>", "</s>", "<pad>", "<unk>"]
    tokenizer.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=200, special_tokens=names))
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    (folder / "config.json").write_text(json.dumps({"model_type": "bart", "vocab_size": 200, **ids}))
    return folder


def test_a_saved_shape_reads_texts_as_its_tokenizer_does(
    like_kobart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(true_size.SHAPES, "kobart", true_size.KOBART | SMALLER | {"vocab_size": 200})
    true_size.save("kobart", tmp_path / "kobart", like_kobart)
    saved = read_tokenizer(tmp_path / "kobart", tmp_path / "kobart")
    ids = saved(TEXT)["input_ids"]
    assert ids == read_tokenizer(like_kobart, like_kobart)(TEXT)["input_ids"]
    assert saved.decode(ids) == TEXT
    config = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "kobart").config
    assert (config.eos_token_id, config.pad_token_id, config.decoder_start_token_id) == (1, 2, 1)


def test_each_shape_is_trained_for_one_epoch(tmp_path: Path) -> None:
    """Also where its entry in `params.yaml` has more."""
    names = list(true_size.SHAPES)
    entries = read_yaml(PARAMS)["models"]
    assert any("epochs" in entries[name].get("training", {}) for name in names)
    changed = true_size.experiments(tmp_path, names)["params"]["models"]
    assert {name: entry["training"]["epochs"] for name, entry in changed.items()} == dict.fromkeys(names, 1)
