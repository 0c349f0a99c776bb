"""The shapes of models whose weights need a hub, with random weights, and data to drive them through the stages.

    python -m yoyak.sweeps true-size FOLDER data/raw --llama TOKENIZER --qwen TOKENIZER
    python -m yoyak.sweeps run FOLDER/true_size.yaml --data FOLDER/data --out sweeps/results/true_size --gpus 4

Random weights say nothing: memory and rates are what such a run is for. No summary may end before it has as many tokens
as it may have, so that all shapes have as much to do.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import trl
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.params import write_yaml
from yoyak.sweeps import data_folder

LLAMA = {
    "model_type": "llama",
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama32_3b": LLAMA
    | {
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "tie_word_embeddings": True,
    },
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
    "llama3_8b": "llama3",
    "qwen3_4b": "qwen3_instruct_2507",
    "qwen25_7b": "qwen2_5",
}
GPU_GIB = 23
"""What a 24 GB card has."""
NEW_TOKENS = 128
"""Of each summary; of the competition's 99 % have fewer."""
TRAIN_ROWS, LONGEST_ROWS, DEV_ROWS = 512, 8, 64


def write_models_and_list(folder: Path, data: Path, llama: Path, qwen: Path, only: Sequence[str]) -> None:
    """Write a model folder of each shape, 46 GB in all, their data in `data/few`, and the list `true_size.yaml`.

    `data` has `train.csv` and `dev.csv`; `llama` and `qwen` are folders with the tokenizers of Llama-3 and Qwen, whose
    chat templates are TRL's; `only` has names of `SHAPES`, or nothing for all. Raises a `UserError` for another name.
    """
    for name in only:
        if name not in SHAPES:
            raise UserError(f"--only {name}: there are {', '.join(SHAPES)}")
    names, absolute = list(only or SHAPES), folder.resolve()
    for name in names:
        save(name, absolute / name, llama if "llama" in name else qwen)
    few_rows(data, absolute / "data/few")
    write_yaml(absolute / "true_size.yaml", experiments(absolute, names))


def save(name: str, folder: Path, tokenizer: Path) -> None:
    """Write the shape `name` as `save_pretrained` does, with a folder's tokenizer; a model that is there stays."""
    if (folder / "config.json").exists():
        return
    with_template = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    template = Path(trl.__file__).parent / "chat_templates" / f"{TEMPLATES[name]}.jinja"
    with_template.chat_template = template.read_text(encoding="utf-8")
    end, begin = with_template.eos_token_id, with_template.bos_token_id
    config = AutoConfig.for_model(**SHAPES[name], eos_token_id=end, bos_token_id=begin, max_position_embeddings=8192)
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    made = folder.with_suffix(".made")
    shutil.rmtree(made, ignore_errors=True)
    model.save_pretrained(made)
    with_template.save_pretrained(made)
    made.rename(folder)


def few_rows(data: Path, folder: Path) -> None:
    """Write a data folder with the longest rows of train and others, `TRAIN_ROWS` in all, and `DEV_ROWS` of dev."""
    train, dev = data_folder.read_train_and_dev(data)
    order = train["dialogue"].str.len().sort_values(ascending=False).index
    longest, others = train.loc[order[:LONGEST_ROWS]], train.loc[sorted(order[LONGEST_ROWS:])]
    rows = pd.concat([longest, others.head(TRAIN_ROWS - LONGEST_ROWS)])
    data_folder.write(folder, rows, dev.head(DEV_ROWS))


def experiments(folder: Path, names: list[str]) -> dict[str, Any]:
    """The list: each entry of `params.yaml` as it stands there, but for its weights and the length of summaries."""
    length = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS}
    return {
        "params": {"models": {name: {"weights": str(folder / name), "generation": length} for name in names}},
        "set": [
            "run.untuned=[]",
            "training.epochs=1",
            f"limits.gpu_gib={GPU_GIB}",
            "limits.empty_percent=100",
        ],
        "data": ["few"],
        "experiments": {f"true_size_{name}": [f"run.models=[{name}]"] for name in names},
    }
