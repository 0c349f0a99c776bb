"""Files that pass from stage to stage, a JSON object a line: read and written here and nowhere else."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from yoyak.core.errors import UserError
from yoyak.core.files import read_text, write_whole

Floats = NDArray[np.float64]

RENAMED = {"minus": "delta", "gain": "delta", "unfinished": "no_sentence_end"}
"""Keys of metrics files and columns of tables: their names in earlier versions, and the names of today."""


class Record(BaseModel):
    """A frozen line of a JSONL file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fname: str
    """The row's name in the competition's CSV, such as `dev_17`."""


class Dialogue(Record):
    """A row of a CSV as it was read."""

    dialogue: str
    """Turns, one a line, each beginning with its speaker's tag: `#Person1#: …`."""
    summaries: tuple[str, ...] = ()
    """Reference summaries: none for a test row, one for train and dev, several where annotators were several."""
    topic: str | None = None


class Prompt(Record):
    """A dialogue ready for any model: each model's tokenizer puts its own chat template round these parts."""

    system: str
    turns: tuple[str, ...]
    question: str
    summary: str | None = None
    """The reference that training learns and dev loss is measured on."""


class Reference(Record):
    """Reference summaries of a dialogue."""

    summaries: tuple[str, ...]
    """A summary by each annotator, at least one."""
    topic: str | None = None


class Candidate(BaseModel):
    """One generated summary."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    text: str
    log_probability: float
    """Mean natural log-probability of the generated tokens, the end token included."""
    finished: bool
    """Whether it ended by itself, not at the limit of `max_new_tokens`."""


class Prediction(Record):
    """A model's, a baseline's or the ensemble's summary of one dialogue."""

    text: str
    """The summary: the text of the first candidate."""
    candidates: tuple[Candidate, ...] = ()
    """All generated summaries, best first; empty for baselines."""
    faults: tuple[str, ...] | None = None
    """What is still wrong with `text` after the second search: `empty`, `truncated`, `foreign_script`."""


AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_records(path: Path, records: Iterable[Record]) -> None:
    write_whole(path, "".join(_line(path, record) for record in records))


def _line(path: Path, record: Record) -> str:
    try:
        return record.model_dump_json(exclude_none=True) + "\n"
    except PydanticSerializationError:
        raise UserError(f"{path}: {record.fname}: its text holds what is no character of UTF-8; drop it") from None


def read_records(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All records of a file, in its order."""
    missing = "no such file; run `dvc repro`, or `dvc checkout` if it was made before"
    text = read_text(path, missing, mend="run `dvc repro`")
    # Not `splitlines`: that would also cut at U+2028 and other characters a dialogue may hold.
    lines = text.removesuffix("\n").split("\n") if text else []
    return [_parse(path, number, line, kind) for number, line in enumerate(lines, start=1)]


def _parse(path: Path, number: int, line: str, kind: type[AnyRecord]) -> AnyRecord:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the line"
        raise UserError(f"{path}, line {number}: {place}: {fault['msg']}") from None


def write_json(path: Path, content: object) -> None:
    """Write a metrics file, human-readable; whole or not at all."""
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    text = read_text(path, missing="no such file; run `dvc repro`", mend="run `dvc repro`")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None


def read_object(path: Path, *keys: str) -> dict[str, Any]:
    """The JSON object in a file, which has these keys."""
    return with_keys(read_json(path), str(path), *keys)


def with_keys(content: Any, where: str, *keys: str) -> dict[str, Any]:
    """`content`, an object that has these keys, of which `best.delta` is one within another; `where` names it."""
    if not isinstance(content, dict):
        needed = f" with the key '{keys[0]}'" if keys else ""
        raise UserError(f"{where}: an object{needed} is expected; run `dvc repro`")
    for key in keys:
        inner: Any = content
        for name in key.split("."):
            if not isinstance(inner, dict) or name not in inner:
                found = inner if isinstance(inner, dict) else ()
                raise UserError(f"{where}: the key {absent(key, found)}; run `dvc repro`")
            inner = inner[name]
    return content


def absent(key: str, found: Collection[object]) -> str:
    """Why the last name of `key` is not among the keys or columns `found`: it is missing, or has its former name."""
    *parents, name = key.split(".")
    for former, present in RENAMED.items():
        if present == name and former in found:
            return f"'{'.'.join([*parents, former])}' is named '{key}' now"
    return f"'{key}' is missing"
