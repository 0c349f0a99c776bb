"""What decides a model's summaries, written by the first stage: `data/resolved/<model>/generation.yaml`."""

from pathlib import Path

from yoyak.folds import Fold
from yoyak.parameters import Section, check, read_yaml
from yoyak.search import GenerationParams
from yoyak.spec import ModelSpec, QuantizationParams


class Member(Section):
    """A model as it is loaded for inference, alone or with others."""

    model: ModelSpec
    quantization: QuantizationParams | None = None
    """Of base weights that stay in 4 bits."""


class GenerationJob(Member):
    """What decides summaries beside weights and prompts: the content of `data/resolved/<model>/generation.yaml`."""

    generation: GenerationParams
    fold: Fold | None = None
    """Of train: its rows are summarised, too."""

    def members_of(self, name: str) -> dict[str, Member]:
        """The model itself, by its name."""
        return {name: self}


class AveragedJob(Section):
    """The same of models whose logits are averaged."""

    members: dict[str, Member]
    generation: GenerationParams

    @property
    def fold(self) -> None:
        """None, even where the members are folds: together they have seen all of train."""
        return None

    def members_of(self, name: str) -> dict[str, Member]:
        return self.members


Job = GenerationJob | AveragedJob


def read_job(path: Path) -> Job:
    content = read_yaml(path)
    if "members" in content:
        return check(AveragedJob, content, f"{path}:")
    return check(GenerationJob, content, f"{path}:")
