"""The shapes of models whose weights need a hub, with random weights, and data to drive them through the stages.

    python -m yoyak.sweeps true-size FOLDER data/raw --llama TOKENIZER --qwen TOKENIZER --kobart TOKENIZER
    yoyak sweep FOLDER/true_size.yaml --data FOLDER/data --gpus 4

Random weights say nothing: memory and rates are what such a run is for. No summary may end before it has as many tokens
as it may have, so that all shapes have as much to do.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import trl
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.params import write_yaml
from yoyak.modeling.loading import read_tokenizer
from yoyak.sweeps import data_folder

LLAMA = {
    "model_type": "llama",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}
LLAMA_3B = LLAMA | {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "tie_word_embeddings": True,
}
KOBART = {
    "model_type": "bart",
    "d_model": 768,
    **{
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in {"layers": 6, "attention_heads": 16, "ffn_dim": 3072}.items()
    },
    "vocab_size": 30000,
    "max_position_embeddings": 1026,
}
PKO_T5 = {
    "model_type": "t5",
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 12,
    "num_heads": 12,
    "vocab_size": 50358,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
SHAPES: dict[str, dict[str, Any]] = {
    "kobart": KOBART,
    "kot5": PKO_T5,
    "llama32_3b": LLAMA_3B,
    "llama32_3b_fp16": LLAMA_3B,
    "qwen3_4b": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
    },
    "qwen25_3b": {
        "model_type": "qwen2",
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "qwen25_7b": {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "llama3_8b": LLAMA
    | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}
"""By the name of their entry in `params.yaml`."""
TEMPLATES = {
    "llama32_3b": "llama3",
    "llama32_3b_fp16": "llama3",
    "llama3_8b": "llama3",
    "qwen3_4b": "qwen3_instruct_2507",
    "qwen25_3b": "qwen2_5",
    "qwen25_7b": "qwen2_5",
}
"""TRL's chat templates; an encoder-decoder has none."""
GPU_GIB = 23
"""What a 24 GB card has."""
NEW_TOKENS = 128
"""Of each summary; of the competition's 99 % have fewer."""
TRAIN_ROWS, LONGEST_ROWS, DEV_ROWS = 512, 8, 64


def write_models_and_list(folder: Path, data: Path, tokenizers: Mapping[str, Path | None], only: Sequence[str]) -> None:
    """Write a model folder of each shape, 60 GB in all, their data in `data/few`, and the list `true_size.yaml`.

    `data` has `train.csv` and `dev.csv`; `tokenizers` are folders with those of `llama`, `qwen` and `kobart`, of which
    the last serves both encoder-decoders; `only` has names of `SHAPES`, or nothing for all. Raises a `UserError` for
    another name, and for a tokenizer that is missing.
    """
    for name in only:
        if name not in SHAPES:
            raise UserError(f"--only {name}: there are {', '.join(SHAPES)}")
    names, absolute = list(only or SHAPES), folder.resolve()
    for name in names:
        save(name, absolute / name, _tokenizer_of(name, tokenizers))
    few_rows(data, absolute / "data/few")
    write_yaml(absolute / "true_size.yaml", experiments(absolute, names))


def _tokenizer_of(name: str, tokenizers: Mapping[str, Path | None]) -> Path:
    family = "llama" if "llama" in name else "qwen" if "qwen" in name else "kobart"
    if (folder := tokenizers[family]) is None:
        raise UserError(f"{name} needs --{family}, a folder with that tokenizer")
    return folder


def save(name: str, folder: Path, tokenizer: Path) -> None:
    """Write the shape `name` as `save_pretrained` does, with a folder's tokenizer; a model that is there stays."""
    if (folder / "config.json").exists():
        return
    # As the stages read it: `AutoTokenizer` makes koBART's a RoBERTa's, of bytes, whose texts are 2.7 times as long.
    has_config = (tokenizer / "config.json").is_file()
    kept = read_tokenizer(tokenizer, tokenizer) if has_config else AutoTokenizer.from_pretrained(tokenizer)
    if name in TEMPLATES:
        template = Path(trl.__file__).parent / "chat_templates" / f"{TEMPLATES[name]}.jinja"
        kept.chat_template = template.read_text(encoding="utf-8")
    ids = {f"{role}_token_id": getattr(kept, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(**{"max_position_embeddings": 8192, **ids, **SHAPES[name]})
    of_class: Any = AutoModelForCausalLM
    if config.is_encoder_decoder:
        config.decoder_start_token_id, of_class = kept.eos_token_id, AutoModelForSeq2SeqLM
    with torch.device(device()):
        model = of_class.from_config(config, dtype=torch.bfloat16)
    made = folder.with_suffix(".made")
    shutil.rmtree(made, ignore_errors=True)
    model.save_pretrained(made)
    kept.save_pretrained(made)
    made.rename(folder)


def few_rows(data: Path, folder: Path) -> None:
    """Write a data folder with the longest rows of train and others, `TRAIN_ROWS` in all, and `DEV_ROWS` of dev."""
    train, dev = data_folder.read_train_and_dev(data)
    order = train["dialogue"].str.len().sort_values(ascending=False).index
    longest, others = train.loc[order[:LONGEST_ROWS]], train.loc[sorted(order[LONGEST_ROWS:])]
    rows = pd.concat([longest, others.head(TRAIN_ROWS - LONGEST_ROWS)])
    data_folder.write(folder, rows, dev.head(DEV_ROWS))


def experiments(folder: Path, names: list[str]) -> dict[str, Any]:
    """The list: each entry of `params.yaml` as it stands there, but for its weights, its epochs, and the length of
    summaries."""
    length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    changed = {"training": {"epochs": 1}, "generation": length}
    return {
        "params": {"models": {name: {"weights": str(folder / name), **changed} for name in names}},
        "set": [
            "run.untuned=[]",
            f"limits.gpu_gib={GPU_GIB}",
            "limits.empty_percent=100",
        ],
        "data": ["few"],
        "experiments": {f"true_size_{name}": [f"run.models=[{name}]"] for name in names},
    }
