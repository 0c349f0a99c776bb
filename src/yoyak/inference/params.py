"""What decides a model's summaries, written by the first stage: `data/resolved/<model>/generation.yaml`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from yoyak.core.folds import Fold
from yoyak.core.params import Section, check, read_yaml
from yoyak.modeling.spec import ModelSpec, QuantizationParams


class GenerationParams(Section):
    """How summaries are searched for."""

    search: Literal["greedy", "beam", "diverse_beam", "sample"]
    """Always the likeliest token, a beam search, one of unlike groups of beams, or random draws."""
    max_new_tokens: int = Field(ge=1)
    """Longest summary, in tokens."""
    min_new_tokens: int = Field(default=0, ge=0)
    """Shortest summary, in tokens."""
    num_beams: int = Field(default=1, ge=1)
    """Width of the beam search."""
    num_beam_groups: int = Field(default=1, ge=1)
    """For `search: diverse_beam`: the beams are searched in so many groups of like size."""
    diversity_penalty: float = Field(default=1.0, gt=0)
    """For `search: diverse_beam`: what a token's score loses for each beam of an earlier group that has the token at
    the same place."""
    length_penalty: float = 1.0
    """Beam scores are divided by length to this power: above 1 favours longer summaries."""
    temperature: float = Field(default=1.0, gt=0)
    """For `search: sample`: below 1 favours likely tokens."""
    top_k: int = Field(default=50, ge=0)
    """For `search: sample`: so many of the likeliest tokens are drawn from; 0: all, which takes longer."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """For `search: sample`: of these, the smallest set with this much probability (Holtzman et al. 2020)."""
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    """No n-gram of tokens twice in a summary; 0 is off. A person tag is several tokens: a small size forbids naming a
    person twice."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Above 1: tokens that the summary has already become less likely (Keskar et al. 2019); what the dialogue says does
    not count."""
    candidates: int = Field(default=1, ge=1)
    """Summaries kept for each dialogue, for the ensemble to choose from."""
    script_guard: bool = True
    """No letters but Hangul, unless the dialogue has that script; Latin ones for words of the dialogue alone."""
    batch_size: int = Field(ge=1)
    """Most dialogues decoded together: on a GPU those of 1,024 candidates at most, elsewhere 32. In bf16 it changes
    texts a little, so it is a parameter, not the machine's choice."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the draws of `search: sample`."""
    load_in_4bit: bool = False
    """Under `method: lora`, keep the base weights in 4 bits as `quantization` has them, the adapter beside them and not
    merged: slower, for cards that the weights in 16 bits do not fit."""

    @model_validator(mode="after")
    def _search_gives_the_candidates(self) -> "GenerationParams":
        if self.search == "greedy" and (self.num_beams, self.candidates) != (1, 1):
            raise ValueError("search: greedy has num_beams: 1 and candidates: 1")
        if self.search == "beam" and not self.candidates <= self.num_beams >= 2:
            raise ValueError("search: beam needs num_beams of at least 2 and no more candidates than beams")
        if self.search == "diverse_beam" and not self.candidates <= self.num_beams:
            raise ValueError("search: diverse_beam has no more candidates than num_beams")
        if self.search == "diverse_beam" and (self.num_beam_groups == 1 or self.num_beams % self.num_beam_groups):
            raise ValueError("search: diverse_beam needs at least 2 num_beam_groups, which divide num_beams evenly")
        if self.search != "diverse_beam" and self.num_beam_groups != 1:
            raise ValueError(f"search: {self.search} has num_beam_groups: 1")
        if self.search == "sample" and self.num_beams != 1:
            raise ValueError("search: sample has num_beams: 1")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens must not exceed max_new_tokens")
        return self


class Member(Section):
    """A model as it is loaded for inference, alone or with others."""

    model: ModelSpec
    quantization: QuantizationParams | None = None
    """Of base weights that stay in 4 bits."""


class OneModelConfig(Member):
    """What decides summaries beside weights and prompts: the content of `data/resolved/<model>/generation.yaml`."""

    generation: GenerationParams
    fold: Fold | None = None
    """Of train: its rows are summarised, too."""

    def members_of(self, name: str) -> dict[str, Member]:
        """The model itself, by its name."""
        return {name: self}

    def in_memory(self, name: str) -> list[str]:
        """Names of what is loaded to write the summaries."""
        return [name]


MeanOf = Literal["logits", "weights"]


class AverageConfig(Section):
    """The same of models whose logits, or whose weights, are averaged."""

    members: dict[str, Member]
    mean_of: MeanOf = "logits"
    generation: GenerationParams
    fold: Fold | None = None
    """That of all members. None where they differ: together they have seen all of train."""

    def members_of(self, name: str) -> dict[str, Member]:
        """The trained models that it is made of."""
        return self.members

    def in_memory(self, name: str) -> list[str]:
        """All members, or the one model that the mean of their weights makes."""
        return [name] if self.mean_of == "weights" else list(self.members)


InferenceConfig = OneModelConfig | AverageConfig


def read_config(path: Path) -> InferenceConfig:
    content = read_yaml(path)
    if "members" in content:
        return check(AverageConfig, content, f"{path}:")
    return check(OneModelConfig, content, f"{path}:")
