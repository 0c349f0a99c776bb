"""The files of an export: weights or adapters, tokenizer, chat template, generation config."""

import json
import shutil
from pathlib import Path
from typing import Any

from yoyak.core.records import write_json
from yoyak.exporting import generation_config, mean_adapter
from yoyak.exporting.conversation import Conversation
from yoyak.exporting.trained import Trained
from yoyak.inference.params import GenerationParams
from yoyak.modeling.loading import Loaded


def write_around(folder: Path, loaded: Loaded, conversation: Conversation, params: GenerationParams) -> None:
    """What stands beside the weights; the project's own model and tokenizer stay as they are."""
    kept = loaded.tokenizer.chat_template
    loaded.tokenizer.chat_template = conversation.chat_template
    loaded.tokenizer.save_pretrained(folder)
    loaded.tokenizer.chat_template = kept
    generation_config.of(loaded, params).save_pretrained(folder)


def write_adapter(folder: Path, trained: Trained) -> None:
    """Base and revision are named in `adapter_config.json`, as training wrote them."""
    if trained.is_mean:
        mean_adapter.write(folder, trained.folders)
        _for_all_to_read(folder, mean_adapter.CONFIG)
        return
    for name in mean_adapter.OF_ADAPTERS:
        shutil.copyfile(trained.folders[0] / name, folder / name)


def write_weights(folder: Path, model: Any) -> None:
    """Its weights, in the dtype that they have now."""
    model.save_pretrained(folder)
    if not getattr(model.config, "scale_decoder_outputs", True):
        # T5 1.1, by the key that transformers 4 reads, too: findings/t5_saved_for_older_transformers.sh.
        path = folder / "config.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        write_json(path, content | {"tie_word_embeddings": False})
    _for_all_to_read(folder, "config.json")


def _for_all_to_read(folder: Path, readable: str) -> None:
    """safetensors 0.8 writes what its owner alone can read."""
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / readable, path)


def remove_weights(folder: Path) -> None:
    """What a GGUF file has in itself."""
    for path in folder.iterdir():
        if path.suffix != ".gguf" and path.name != "generation_config.json":
            path.unlink()
