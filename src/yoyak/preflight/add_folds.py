"""Entries for the folds of a model, written into `params.yaml`."""

import warnings
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import ReusedAnchorWarning, YAMLError

from yoyak.core.errors import UserError
from yoyak.core.files import write_whole
from yoyak.core.params import read_yaml


def add_entries(path: Path, name: str, parts: int) -> list[str]:
    """Write the entries `<name>_f0` … after `models.<name>`, copies of its text with comments and all; their names."""
    if parts < 2:
        raise UserError(f"{parts} folds: at least 2 are needed")
    content = read_yaml(path)
    models = content.get("models")
    if not isinstance(models, dict):
        raise UserError(f"{path}: models: names with keys below them are expected")
    entry = _whole_model(path, models, name)
    folds = {f"{name}_f{part}": {**entry, "fold": {"part": part, "of": parts}} for part in range(parts)}
    if there := [new for new in folds if new in models]:
        raise UserError(f"{path}: models.{there[0]} is there already; take it out first")
    text = _with_copies(path, name, {new: f"{{part: {part}, of: {parts}}}" for part, new in enumerate(folds)})
    if _read(text) != {**content, "models": {**models, **folds}}:
        raise UserError(
            f"{path}: models.{name} is written in a way that cannot be copied (an anchor, say); write it as `{name}:`, "
            "with its keys below it, a line each"
        )
    write_whole(path, text)
    return list(folds)


def _whole_model(path: Path, models: dict[str, Any], name: str) -> dict[str, Any]:
    """The entry of a model that is trained on all of train; others are refused."""
    if name not in models:
        raise UserError(f"{path}: no model {name!r}; there are {', '.join(map(str, models))}")
    entry = models[name]
    if not isinstance(entry, dict):
        raise UserError(f"{path}: models.{name} has no keys to copy")
    if "members" in entry:
        raise UserError(f"{path}: models.{name} has members in place of weights, and is never trained")
    if "fold" in entry:
        raise UserError(f"{path}: models.{name} is a fold itself")
    return entry


def _with_copies(path: Path, name: str, folds: dict[str, str]) -> str:
    """The file's text with copies of an entry behind it, each with its `fold` as its last key."""
    lines = f"{path.read_text(encoding='utf-8').rstrip()}\n".splitlines(keepends=True)
    start, end = _block(path, name, len(lines))
    head, *keys = lines[start:end]
    first_key = next((line for line in keys if line.strip() and not line.lstrip().startswith("#")), None)
    if "{" in head or first_key is None:
        raise UserError(f"{path}: models.{name} stands on one line; write its keys on lines of their own")
    behind_name = head.partition(":")[2]
    copies = [
        line
        for new, fold in folds.items()
        for line in ("\n", f"{_indent(head)}{new}:{behind_name}", *keys, f"{_indent(first_key)}fold: {fold}\n")
    ]
    return "".join([*lines[:end], *copies, *lines[end:]])


def _read(text: str) -> object:
    """Content of the YAML text; None where it is no YAML, or has an anchor twice."""
    try:
        with warnings.catch_warnings(action="error", category=ReusedAnchorWarning):
            return YAML(typ="safe").load(text)
    except (YAMLError, ReusedAnchorWarning):
        return None


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _block(path: Path, name: str, last: int) -> tuple[int, int]:
    """Lines of `models.<name>`: the first, and the one behind the last, blank lines and comments behind it left out."""
    text = path.read_text(encoding="utf-8")
    content: CommentedMap = YAML().load(text)
    starts = [mapping.lc.key(key)[0] for mapping in (content, content["models"]) for key in mapping]
    start = content["models"].lc.key(name)[0]
    end = min((line for line in starts if line > start), default=last)
    lines = text.splitlines()
    while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
        end -= 1
    return start, end
