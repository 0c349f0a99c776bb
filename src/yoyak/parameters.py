"""Reading YAML, and checking a section of it against the room that owns it."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from yoyak.errors import UserError


class Section(BaseModel):
    """A frozen section of `params.yaml`; the docstring under a field says what it is and its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`, read as YAML 1.2, in which `1e-4` is a number (to PyYAML it is text)."""
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a mapping of sections is expected")
    return content


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` in block style, keys in the order given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 2**16
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(dict(content), file)


def check(section: type[AnySection], values: object, where: str) -> AnySection:
    """`values` as a `section`; `where` is its place in the file (`params.yaml: lora`), for the error message."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        faults = error.errors()
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(_one_line(section, faults[0], where) + more) from None


def _one_line(section: type[Section], fault: ErrorDetails, where: str) -> str:
    *parents, last = fault["loc"] or ("",)
    key = where + "".join(f".{part}" for part in fault["loc"] if part != "")
    if fault["type"] == "extra_forbidden":
        known = _fields_at(section, parents)
        close = difflib.get_close_matches(str(last), known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if fault["type"] == "missing":
        return f"{key}: this key is missing"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r})"


def _fields_at(section: type[Section], parents: list[int | str]) -> list[str]:
    fields = section.model_fields
    for parent in parents:
        inner = fields[str(parent)].annotation if str(parent) in fields else None
        if isinstance(inner, type) and issubclass(inner, Section):
            fields = inner.model_fields
    return list(fields)
