"""A GGUF file, by llama.cpp's own converter: which lies in no package, but in the source archive of one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from yoyak.core import progress
from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.core.repository import cache_folder
from yoyak.modeling.gguf import header_read_once
from yoyak.modeling.spec import DType

Quantized = Literal["q8_0"]
"""Of the converter's own; llama.cpp's `llama-quantize` makes the others of what is exported."""
Kind = Literal["f32", "f16", "bf16", "q8_0"]
NAMES: dict[DType, Kind] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
CONVERTER = "convert_hf_to_gguf.py"


def check_tools() -> None:
    """Stop before any work where the converter, or llama.cpp, which the file is tried with, is not here."""
    if not _converter().is_file():
        raise UserError(f"{_converter()} is not here; `make llama-cpp` fetches llama.cpp's converter")
    if find_spec("xllamacpp") is None:
        raise UserError("llama.cpp, which the file is tried with, is not here; `make extra-gguf` brings it")


def convert(weights: Path, target: Path, kind: Kind) -> None:
    """Of the folder `weights`."""
    command = [sys.executable, str(_converter()), str(weights), "--outfile", str(target), "--outtype", kind]
    with progress.timed(f"{weights}: converting it to GGUF, {kind}"):
        done = subprocess.run(
            command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise UserError(f"llama.cpp's converter does not take this model: {reason}; export it --to hf")


def load(file: Path, config: Any) -> Any:
    """Its weights in fp32, read by transformers, quantised ones as what they stand for.

    `config` is that of the model it was made from: transformers 5.23 makes of Qwen3's heads in a file 128 wide ones.
    """
    from transformers import AutoModelForCausalLM, GgufConfig

    with progress.timed(f"{file}: reading it in fp32"), header_read_once():
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            config=config,
            gguf_file=file.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    return model.to(device()).eval()


def _converter() -> Path:
    return cache_folder() / "llama-cpp" / CONVERTER
