"""What a model computes in: the dtype that its entry asks for, or what is fast on this machine in its place."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from yoyak.core.environment import cpu_has_bf16
from yoyak.modeling.spec import DType

FIRST_WITH_FP16 = (7, 0)
"""Compute capability (Volta). Gaming cards before it compute fp16 at a 64th of fp32's rate."""
PROBE = "#Person1#: 안녕하세요, 내일 회의는 몇 시에 시작하나요? #Person2#: 오전 10시에 시작합니다."


class Precision(NamedTuple):
    """The dtype of weights and computation, or under `method: full` of autocast, and what decided on it."""

    dtype: DType
    why: str

    @property
    def torch_dtype(self) -> torch.dtype:
        return TORCH_DTYPES[self.dtype]


TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
ASKED_FOR = "as asked for"
FP32_FOR_BF16 = "this CPU has no instructions for bf16, and computes it many times more slowly"
FP32_FOR_FP16 = "fp16 wants its loss scaled, which is for GPUs"
FP16_FOR_BF16 = "this GPU has no bf16"
FP32_ON_GPU = "this GPU has no units for 16 bits"
OVERFLOWS = "this GPU has no bf16, and in fp16 this model's numbers overflow"


def choose(asked: DType) -> Precision:
    """What a model that asks for a dtype is loaded in: fp32 holds every value of the others, and is always there.

    On a GPU without bf16 the answer is fp16, which has not the same range: see `overflows`.
    """
    if asked == "fp32":
        return Precision(asked, ASKED_FOR)
    if not torch.cuda.is_available():
        if asked == "fp16":
            return Precision("fp32", FP32_FOR_FP16)
        return Precision("bf16", ASKED_FOR) if cpu_has_bf16() else Precision("fp32", FP32_FOR_BF16)
    if asked == "bf16" and torch.cuda.is_bf16_supported(including_emulation=False):
        return Precision("bf16", ASKED_FOR)
    if torch.cuda.get_device_capability() < FIRST_WITH_FP16:
        return Precision("fp32", FP32_ON_GPU)
    return Precision("fp16", ASKED_FOR if asked == "fp16" else FP16_FOR_BF16)


def describe(chosen: Iterable[Precision]) -> dict[str, str]:
    """For the record of a run: of one model, or of all members of an average, which may differ."""
    dtypes, whys = zip(*dict.fromkeys(chosen), strict=True)
    return {"dtype": ", ".join(dtypes), "dtype_why": "; ".join(dict.fromkeys(whys))}


def overflows(model: Any, tokenizer: Any, precision: Precision) -> bool:
    """Whether a short text makes numbers that the dtype cannot hold.

    A model that learned in bf16 may have activations beyond 65,504, fp16's largest: Gemma 3 and T5 have them in any
    text, mostly at its first token.
    """
    ids = torch.tensor([tokenizer(PROBE)["input_ids"]], device=model.device)
    labels = {"labels": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad(), torch.autocast(model.device.type, precision.torch_dtype):
        return not bool(model(input_ids=ids, **labels).logits.isfinite().all())
