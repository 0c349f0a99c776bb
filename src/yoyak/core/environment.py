"""What this machine is: its device, and the versions that compute on it."""

import os
import platform
from importlib.metadata import version
from typing import Any

import torch

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities by which the CPU has bf16, as `torch.cpu.get_capabilities` names them: two of x86, one of ARM."""


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 by instructions of its own, which PyTorch reaches through oneDNN alone.

    Elsewhere PyTorch's plain loops do it: at gemma3_270m's shapes a layer's forward pass takes 5 times as long as in
    fp32, its backward pass 20 times and more (torch 2.13, AVX2).
    """
    has = torch.cpu.get_capabilities()
    through_onednn = torch.backends.mkldnn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bool(through_onednn) and any(has.get(instruction) for instruction in BF16_INSTRUCTIONS)


def describe() -> dict[str, Any]:
    """Device and versions, to be recorded beside each figure."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or describe_cpu(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft", "trl", "bitsandbytes")},
    }


def describe_cpu() -> str:
    """The CPU, with its kind and whether it has bf16, and threads: scores differ a little with each of them."""
    kind, bf16 = torch.backends.cpu.get_cpu_capability(), "with" if cpu_has_bf16() else "without"
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    return f"{platform.machine()} CPU, {threads}, {kind} {bf16} bf16"
