"""Reading YAML, and checking a section of it against the class that describes it."""

import difflib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import read_text, write_whole

PARAMS = Path("params.yaml")
UNKNOWN = ("extra_forbidden", "invalid_key")
"""Pydantic's types of fault for keys that a section does not have."""


class Section(BaseModel):
    """A frozen section of `params.yaml`; the docstring under a field describes it, with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, field: ValidationInfo) -> object:
        """Python and pydantic take `true` for 1, so that `r: true` would be rank 1."""
        if isinstance(value, bool) and cls.model_fields[str(field.field_name)].annotation is not bool:
            raise ValueError("neither true nor false has a meaning here")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _text_can_be_written(cls, value: object) -> object:
        """JSON and YAML have escapes for half a letter, and for a NUL, which no file's name has."""
        if isinstance(value, str) and ("\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)):
            raise ValueError("holds a NUL, or half of a letter; write it anew")
        return value


AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in `path`, read as YAML 1.2, in which `1e-4` is a number (to PyYAML it is text); empty: no keys."""
    text = read_text(path, missing="no such file; is this the project's folder?", mend="save it as UTF-8")
    return parse_yaml(text, path)


def parse_yaml(text: str, where: object) -> dict[str, Any]:
    """The mapping that a text is; `where` names it in errors."""
    try:
        content = YAML(typ="safe").load(text)
    except MarkedYAMLError as error:
        raise UserError(f"{where}{_line_of(error)}: not valid YAML: {error.problem}") from None
    except TypeError:
        raise UserError(f"{where}: not valid YAML: a key is a list or a mapping; write a name") from None
    # Beside its own errors ruamel lets through those of Python's types, of the date 2024-99-99 for one.
    except (YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{where}: keys with values are expected, such as `run:`; this is {_shown(content)}")
    return content


def changes(before: object, after: object, key: str = "") -> list[str]:
    """Each parameter that differs, in a line: `lora.r: 16 → 32`; a key that one has not is `none` there."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys([*before, *after])
        return [
            line
            for inner in keys
            for line in changes(
                before.get(inner, _ABSENT), after.get(inner, _ABSENT), f"{key}.{inner}" if key else str(inner)
            )
        ]
    return [] if before == after else [f"{key}: {_in_a_line(before)} → {_in_a_line(after)}"]


_ABSENT = object()


def _in_a_line(value: object) -> str:
    if value is _ABSENT:
        return "none"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _line_of(error: MarkedYAMLError) -> str:
    return f", line {error.problem_mark.line + 1}" if error.problem_mark else ""


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` in block style, keys in the order given."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 2**16
    text = io.StringIO()
    yaml.dump(dict(content), text)
    write_whole(path, text.getvalue())


def check(section: type[AnySection], values: object, where: str) -> AnySection:
    """`values` as a `section`; `where` is its place in the file (`params.yaml: lora`), for the error message."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        # A misspelt key is missing under its right name too: the fault that names it comes first.
        faults = sorted(error.errors(), key=lambda fault: fault["type"] not in UNKNOWN)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(_one_line(section, faults[0], where) + more) from None


def read_section(section: type[AnySection], key: str, path: Path = PARAMS) -> AnySection:
    """The section `key` of `params.yaml`, checked."""
    content = read_yaml(path)
    if key not in content:
        raise UserError(f"{_place(f'{path}:', [key])}: this key is missing; add it")
    return check(section, content[key], f"{path}: {key}")


def refuse_unknown(keys: Iterable[object], known: Iterable[str], where: str) -> None:
    """Stop at the first of `keys` that is not `known`."""
    names = list(known)
    for key in keys:
        if key not in names:
            raise UserError(f"{_place(where, [key])}: {_unknown(str(key), names)}")


def _one_line(section: type[Section], fault: ErrorDetails, where: str) -> str:
    *parents, last = fault["loc"] or ("",)
    place = _place(where, fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{place}: {_unknown(str(last), _fields_at(section, parents))}"
    if fault["type"] == "missing":
        return f"{place}: this key is missing; add it"
    message = fault["msg"].removeprefix("Value error, ")
    # The value of a whole section is too much for a line, and its keys are named in the message.
    return f"{place}: {message}" + ("" if isinstance(fault["input"], dict) else f" (got {_shown(fault['input'])})")


def _place(where: str, keys: Iterable[object]) -> str:
    """`params.yaml:` and `lora`, `r` → `params.yaml: lora.r`."""
    path = quoted(".".join(map(str, keys)))
    return where + (" " if where.endswith(":") else ".") + path if path else where.removesuffix(":")


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(map(quoted, known[:20]))}"
    return f"unknown key; {hint}" + (", …" if not close and len(known) > 20 else "")


def _shown(value: object) -> str:
    return quoted(repr(value))


def _fields_at(section: type[Section], parents: list[int | str]) -> list[str]:
    fields = section.model_fields
    for parent in parents:
        annotation = fields[str(parent)].annotation if str(parent) in fields else None
        for kind in get_args(annotation) or [annotation]:
            if isinstance(kind, type) and issubclass(kind, Section):
                fields = kind.model_fields
    return list(fields)
