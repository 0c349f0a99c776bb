"""Write docs/parameters.md: each key of params.yaml, from the docstring under its field and its value in the file.

    python docs/generate/parameters.py

A test writes the page anew and compares.
"""

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from yoyak.core.files import write_whole
from yoyak.core.folds import Fold
from yoyak.core.params import Section, read_yaml
from yoyak.modeling.spec import ModelSpec
from yoyak.preflight.params import INHERITED, Average, Params

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/parameters.md"
HEAD = """# Parameters

Every key of `params.yaml`. This page is generated from the code (`python docs/generate/parameters.py`): a type, a bound
and a sentence come from where the key is checked, and a default from `params.yaml` itself. *Empty* is a key without a
value. The first stage checks all of them before any work; an unknown key is refused with the nearest known one.

`dvc exp run -S section.key=value` changes a key for one experiment: [Experiments](experiments.md)."""
OVERRIDABLE = "Each entry of `models` may override these keys one by one: `models.<name>.{section}.<key>`."
MODELS_HEAD = """## models

One entry a model, by a name of small letters, digits and `_`. An entry may also have the sections `lora`,
`quantization`, `training` and `generation`, with the keys that differ from the defaults above."""
FOLD_HEAD = """### models: fold

For an entry that is trained without a part of train: `yoyak folds` writes such entries
([The ensemble](competition.md#the-ensemble))."""
AVERAGE_HEAD = """### models: members

For an entry that has members in place of weights. Beside these it has `generation` alone
([Averages](competition.md#averages))."""
SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", Any: "anything"}


def main() -> None:
    write_whole(PAGE, document())
    print(f"{PAGE.relative_to(ROOT)}: written")


def document() -> str:
    """The whole page."""
    values = read_yaml(ROOT / "params.yaml")
    sections = [part for name in Params.model_fields if name != "models" for part in _section(name, values[name])]
    parts = [HEAD, *sections, *_models()]
    return "\n\n".join(parts) + "\n"


def _section(name: str, values: dict[str, Any]) -> list[str]:
    """Heading, what the section is, and its table."""
    kind = Params.model_fields[name].annotation
    assert isinstance(kind, type)
    assert issubclass(kind, Section)
    notes = [OVERRIDABLE.format(section=name)] if name in INHERITED else []
    return [f"## {name}", _summary(kind), *notes, table(kind, values)]


def _models() -> list[str]:
    """What an entry of `models` may have."""
    return [MODELS_HEAD, table(ModelSpec, {}, {"pin"}), FOLD_HEAD, table(Fold, {}), AVERAGE_HEAD, table(Average, {})]


def _summary(kind: type[Section]) -> str:
    """The first paragraph of the section's docstring."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def table(kind: type[Section], values: dict[str, Any], without: set[str] | frozenset[str] = frozenset()) -> str:
    """A line a key; `values` are those of `params.yaml`."""
    lines = [
        f"| `{name}` | {_cell(shown_type(field))} | {_cell(shown_default(name, field, values))} | {_meaning(field)} |"
        for name, field in kind.model_fields.items()
        if name not in without
    ]
    return "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *lines])


def _meaning(field: FieldInfo) -> str:
    return _cell(" ".join((field.description or "").split()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def shown_type(field: FieldInfo) -> str:
    """`integer, ≥ 1`; of a field that may be empty, what it is otherwise."""
    return _with_bounds(_type_name(field.annotation), field.metadata)


def _with_bounds(name: str, metadata: list[Any] | tuple[Any, ...]) -> str:
    bounds = [f"{SIGNS[type(one)]} {_limit(one)}" for one in metadata if type(one) in SIGNS]
    least = [f"at least {one.min_length}" for one in metadata if isinstance(one, MinLen) and one.min_length > 1]
    filled = ["not empty" for one in metadata if isinstance(one, MinLen) and one.min_length == 1]
    return ", ".join([name, *bounds, *least, *filled])


def _limit(bound: Any) -> str:
    (value,) = (getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name))
    return "2^32" if value == 2**32 else f"{value:g}"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is Annotated:
        constraints = [each for one in arguments[1:] for each in getattr(one, "metadata", [one])]
        return _with_bounds(_type_name(arguments[0]), constraints)
    if origin in (Union, types.UnionType):
        return ", or ".join(_type_name(one) for one in arguments if one is not type(None))
    if origin is list:
        return f"list of {_type_name(arguments[0])}s".replace("texts", "names")
    return "mapping" if origin is dict else NAMES[annotation]


def shown_default(name: str, field: FieldInfo, values: dict[str, Any]) -> str:
    """The value in `params.yaml`; of a key that is not there the code's own."""
    if name in values:
        return _value(values[name])
    return "required" if field.default is PydanticUndefined else _value(field.default)


def _value(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    main()
