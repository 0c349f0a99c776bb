"""What makes a model, as its entry of `models` in `params.yaml` says it: parameters alone, and no tensors."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from yoyak.core.params import Section

PACKAGE = re.compile(r"package:([A-Za-z0-9._-]+)==([A-Za-z0-9.+]+)")
PromptForm = Literal["structured", "dialogue"]
Persons = Literal["tags", "speakers"]

DType = Literal["bf16", "fp16", "fp32"]
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""Of a tokenizer that is learned from the training data."""
SMALLEST_VOCABULARY = 256 + len(SPECIAL_TOKENS)
"""Of such a tokenizer: each byte is a token."""


class LoraParams(Section):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

    r: int = Field(ge=1)
    """Rank."""
    alpha: float = Field(gt=0)
    """Scale: the adapter's output is multiplied by alpha / r."""
    dropout: float = Field(ge=0, lt=1)
    """Share of the adapter's inputs set to zero in training."""
    bias: Literal["none", "all", "lora_only"]
    """Which biases are trained."""
    target_modules: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)]
    """`all-linear` (every linear layer but the output head), or names of layers."""


class QuantizationParams(Section):
    """4-bit base weights while adapters train (QLoRA, Dettmers et al. 2023, arXiv:2305.14314)."""

    load_in_4bit: bool
    """Off: LoRA over weights in the model's dtype."""
    type: Literal["nf4", "fp4"]
    """Number format of a weight."""
    double: bool
    """Quantise the quantisation constants too: 0.4 bits a weight less."""


class ModelSpec(Section):
    """What makes a model, trained or not, as its entry of `models` says it."""

    weights: str = Field(min_length=1, max_length=1000)
    """A hub name (`Qwen/Qwen3-4B-Instruct-2507`), a local folder (`/…` or `./…`), `package:NAME==VERSION`, or
    `scratch`: random weights of `architecture` and a tokenizer learned from the training data."""
    pin: str | None = None
    """Revision or sha256 of the weights, found by the preflight."""
    architecture: dict[str, Any] | None = None
    """For `scratch` alone: the arguments of the transformers configuration, `model_type` among them."""
    method: Literal["lora", "full"]
    """Train adapters (decoder-only models), or every weight (encoder-decoders)."""
    dtype: DType
    """Of weights, computation and, under quantisation, of the compute dtype: always one and the same. A machine that
    lacks it, or computes it many times more slowly, takes another and records it: fp32 on a CPU, fp16 on a GPU."""
    prompt: PromptForm
    """`structured`, in the model's chat template where it has one; `dialogue`: the cleaned dialogue alone."""
    persons: Persons = "tags"
    """What the model reads and writes for a person: `#Person1#`, or `화자1`, which summaries have as tags again."""
    max_prompt_tokens: int = Field(default=1024, ge=64)
    """Longer dialogues lose whole turns from their middle."""

    @field_validator("weights")
    @classmethod
    def _can_be_looked_for(cls, weights: str) -> str:
        if weights.startswith("package:") and not PACKAGE.fullmatch(weights):
            raise ValueError("a package is written package:NAME==VERSION")
        try:
            Path(weights).expanduser()
        except RuntimeError:
            raise ValueError("nobody of that name has a home folder here; write the whole path") from None
        return weights

    @field_validator("architecture")
    @classmethod
    def _architecture_holds_every_byte(cls, architecture: dict[str, Any] | None) -> dict[str, Any] | None:
        size = SMALLEST_VOCABULARY if architecture is None else architecture.get("vocab_size")
        if not isinstance(size, int) or size < SMALLEST_VOCABULARY:
            raise ValueError(f"vocab_size must be an integer of at least {SMALLEST_VOCABULARY} (got {size!r})")
        return architecture

    @model_validator(mode="after")
    def _scratch_has_an_architecture(self) -> "ModelSpec":
        if (self.weights == "scratch") != (self.architecture is not None):
            raise ValueError("weights: scratch and an architecture go together")
        if self.weights == "scratch" and self.method != "full":
            raise ValueError("weights: scratch needs method: full")
        positions = (self.architecture or {}).get("max_position_embeddings")
        if isinstance(positions, int) and positions < self.max_prompt_tokens:
            raise ValueError(f"max_prompt_tokens is {self.max_prompt_tokens}, but max_position_embeddings {positions}")
        return self


def is_folder(weights: str) -> bool:
    """Whether these `weights` are a local folder, there or not."""
    return weights.startswith(("/", "./", "../", "~"))
