"""K-fold: of one model several, each trained without a part of train, so that it can be judged on that part."""

import zlib
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from ruamel.yaml import YAML

from yoyak.errors import UserError
from yoyak.parameters import Section, read_yaml
from yoyak.records import Prompt


class Fold(Section):
    """A part of train that a model does not see."""

    part: int = Field(ge=0)
    """Which, counted from 0."""
    of: int = Field(ge=2)
    """Parts in all."""

    @model_validator(mode="after")
    def _there_is_such_a_part(self) -> "Fold":
        if self.part >= self.of:
            raise ValueError(f"parts are counted from 0: the last of {self.of} is {self.of - 1}")
        return self

    def holds_out(self, prompt: Prompt) -> bool:
        """By what is said: a dialogue that train has twice is in one part."""
        return zlib.crc32("\n".join(prompt.turns).encode()) % self.of == self.part


def seen(prompts: list[Prompt], fold: Fold | None) -> list[Prompt]:
    """Those of train that a model with this fold is trained on."""
    return prompts if fold is None else [prompt for prompt in prompts if not fold.holds_out(prompt)]


def held_out(prompts: list[Prompt], fold: Fold | None) -> list[Prompt]:
    """All others."""
    return [] if fold is None else [prompt for prompt in prompts if fold.holds_out(prompt)]


def add_entries(path: Path, name: str, parts: int) -> list[str]:
    """Write the entries `<name>_f0` … behind `models.<name>`, as it stands there, comments and all; their names."""
    if parts < 2:
        raise UserError(f"{parts} folds: at least 2 are needed")
    models = read_yaml(path).get("models") or {}
    if name not in models:
        raise UserError(f"{path}: no model {name!r}; there are {', '.join(models)}")
    if "members" in models[name]:
        raise UserError(f"{path}: models.{name} has members in place of weights, and is never trained")
    if "fold" in models[name]:
        raise UserError(f"{path}: models.{name} is a fold itself")
    names = [f"{name}_f{part}" for part in range(parts)]
    if there := [new for new in names if new in models]:
        raise UserError(f"{path}: models.{there[0]} is there already; take it out first")
    text = path.read_text(encoding="utf-8")
    lines = f"{text.rstrip()}\n".splitlines(keepends=True)
    start, end = _block(path, name, len(lines))
    head, *keys = lines[start:end]
    if "{" in head or not keys:
        raise UserError(f"{path}: models.{name} stands on one line; write its keys on lines of their own")
    first_key = YAML().load(text)["models"][name].lc
    for part, new in reversed(list(enumerate(names))):
        fold = f"{' ' * first_key.col}fold: {{part: {part}, of: {parts}}}\n"
        lines[end:end] = ["\n", f"{_indent(head)}{new}:{head.partition(':')[2]}", *keys, fold]
    path.write_text("".join(lines), encoding="utf-8")
    return names


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _block(path: Path, name: str, last: int) -> tuple[int, int]:
    """Lines of `models.<name>`: the first, and the one behind the last, blank lines and comments behind it left out."""
    text = path.read_text(encoding="utf-8")
    content: Any = YAML().load(text)
    starts = [mapping.lc.key(key)[0] for mapping in (content, content["models"]) for key in mapping]
    start = content["models"].lc.key(name)[0]
    end = min((line for line in starts if line > start), default=last)
    lines = text.splitlines()
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return start, end
