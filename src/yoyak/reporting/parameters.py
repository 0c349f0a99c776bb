"""The parameters of the last run: those in which its models differ, and the rest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core.params import PARAMS, changes, read_yaml

LOCK = Path("dvc.lock")
FIRST = "prepare_prompts"
"""The stage that has all of `params.yaml` as its parameters."""
OF_A_MODEL = ("training", "tuning", "generation")
"""Files that this stage writes for a model."""
INHERITED = ("lora", "quantization", "training", "tuning", "generation")
"""Sections of `params.yaml` that a model may override."""
NONE = "–"


class Value(NamedTuple):
    """A model's, as it is shown."""

    text: str
    is_own: bool
    """Whether the default is another one."""


class Parameters(NamedTuple):
    """Of a run."""

    edited: list[str]
    """How `params.yaml` differs from what the run had."""
    own: dict[str, tuple[str, list[Value]]]
    """Where models differ from each other, or from the default: that default, and a value a model."""
    rest: dict[str, str]
    """What is the same for all of them."""


def of_the_run(models: Sequence[str]) -> Parameters:
    """Parameters as the first stage had them, and as it resolved them for `models`."""
    now = read_yaml(PARAMS)
    used = as_run(now)
    sections = {key: value for key, value in used.items() if key != "models"}
    defaults = dict(flat({key: sections[key] for key in INHERITED if isinstance(sections.get(key), dict)}))
    resolved = [_resolved(model) for model in models]
    everything = {**dict(flat(sections)), **{key: value for each in resolved for key, value in each.items()}}
    own = {
        key: (_text(defaults, key), [Value(_text(each, key), _is_own(each, defaults, key)) for each in resolved])
        for key in dict.fromkeys(key for each in resolved for key in each)
        if len({_text(each, key) for each in (defaults, *resolved) if key in each}) > 1
    }
    edited = changes(used, {key: now.get(key) for key in used})
    return Parameters(edited, own, {key: _text(everything, key) for key in everything if key not in own})


def flat(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """`{"lora": {"r": 16}}` → `lora.r`, 16; a list is a value."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def as_run(params: dict[str, Any]) -> dict[str, Any]:
    """`params.yaml` as DVC has recorded it with the first stage; `params` where there is no such record."""
    content: Any = read_yaml(LOCK) if LOCK.exists() else {}
    for key in ("stages", FIRST, "params", str(PARAMS)):
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else params


def _resolved(model: str) -> dict[str, Any]:
    """All parameters that decide the model; a section that it does without, such as `lora`, is left out."""
    files = [path for name in OF_A_MODEL if (path := Path(f"data/resolved/{model}/{name}.yaml")).exists()]
    return {key: value for path in files for key, value in flat(read_yaml(path)) if key not in INHERITED}


def _is_own(parameters: Mapping[str, Any], defaults: Mapping[str, Any], key: str) -> bool:
    return key in parameters and key in defaults and _text(parameters, key) != _text(defaults, key)


def _text(parameters: Mapping[str, Any], key: str) -> str:
    value = parameters.get(key)
    if value is None:
        return NONE
    # `epochs: 3` is resolved as 3.0.
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
