"""K-fold: of one model several, each trained without a part of train, so that it can be judged on that part."""

import zlib

from pydantic import Field, model_validator

from yoyak.core.params import Section
from yoyak.core.records import Prompt


class Fold(Section):
    """A part of train that a model does not see."""

    part: int = Field(ge=0)
    """Number of the part that is left out, counted from 0."""
    of: int = Field(ge=2)
    """How many parts train is divided into."""

    @model_validator(mode="after")
    def _there_is_such_a_part(self) -> "Fold":
        if self.part >= self.of:
            raise ValueError(f"parts are counted from 0: the last of {self.of} is {self.of - 1}")
        return self

    def holds_out(self, prompt: Prompt) -> bool:
        """Whether the prompt is in the part that is left out. The turns decide: a dialogue that train has twice is in
        one part."""
        return zlib.crc32("\n".join(prompt.turns).encode()) % self.of == self.part


def seen(prompts: list[Prompt], fold: Fold | None) -> list[Prompt]:
    """Prompts of train that a model with this fold is trained on; all where there is no fold."""
    return prompts if fold is None else [prompt for prompt in prompts if not fold.holds_out(prompt)]


def held_out(prompts: list[Prompt], fold: Fold | None) -> list[Prompt]:
    """Prompts of train that a model with this fold does not see; none where there is no fold."""
    return [] if fold is None else [prompt for prompt in prompts if fold.holds_out(prompt)]
