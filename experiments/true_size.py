"""The shapes of models whose weights need a hub, with random weights, and data to drive them through the stages.

    python experiments/true_size.py FOLDER data/raw --llama TOKENIZER --qwen TOKENIZER
    python experiments/run.py FOLDER/true_size.yaml --data FOLDER/data --out experiments/results/true_size --gpus 4

FOLDER gets a model folder of each shape (46 GB in all), the list of experiments and their data: the longest rows of
train and others, 512 in all, and 64 of dev. The tokenizers are folders with Llama-3's and Qwen's; chat templates are
TRL's. Random weights say nothing: memory and rates are what such a run is for. No summary may end before it has as many
tokens as it may have, so that all shapes have as much to do.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

import fold_data
import pandas as pd
import torch
import trl
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from yoyak.core.environment import device
from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import write_yaml
from yoyak.data.tables import read_table

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


@exits_with_one_line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data", type=Path, help="the folder with train.csv and dev.csv")
    parser.add_argument("--llama", type=Path, required=True, help="a folder with Llama-3's tokenizer")
    parser.add_argument("--qwen", type=Path, required=True, help="a folder with Qwen's")
    parser.add_argument("--only", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    for name in asked.only:
        save(name, folder / name, asked.llama if "llama" in name else asked.qwen)
    few_rows(asked.data, folder / "data/few")
    write_yaml(folder / "true_size.yaml", experiments(folder, asked.only))


def save(name: str, folder: Path, tokenizer: Path) -> None:
    """A model folder as `save_pretrained` leaves it; one that is there stays."""
    if (folder / "config.json").exists():
        return
    with_template = AutoTokenizer.from_pretrained(tokenizer)
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
    train, dev = (read_table(data / f"{split}.csv", fold_data.COLUMNS) for split in ("train", "dev"))
    order = train["dialogue"].str.len().sort_values(ascending=False).index
    longest, others = train.loc[order[:LONGEST_ROWS]], train.loc[sorted(order[LONGEST_ROWS:])]
    rows = pd.concat([longest, others.head(TRAIN_ROWS - LONGEST_ROWS)])
    fold_data.write(folder, rows, dev.head(DEV_ROWS))


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


if __name__ == "__main__":
    main()
