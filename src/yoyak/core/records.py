"""Files that pass from stage to stage, a JSON object a line: read and written here and nowhere else."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticSerializationError

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import read_text, text_lines, whole, write_whole

Floats = NDArray[np.float64]

RENAMED = {"minus": "delta", "gain": "delta", "unfinished": "no_sentence_end"}
"""Keys of metrics files and columns of tables: their names in earlier versions, and the names of today."""

MEND = "run `dvc repro`"


class Record(BaseModel):
    """A frozen line of a JSONL file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    fname: str
    """The row's name in the competition's CSV, such as `dev_17`."""


class Written(BaseModel):
    """What readers need of a JSON file that a stage wrote; further keys do not matter to them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


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
    turns: tuple[str, ...] = Field(min_length=1)
    question: str
    summary: str | None = None
    """The reference that training learns and dev loss is measured on."""


def _not_empty(text: str) -> str:
    # No `min_length`: it takes half of a letter for no text, and what is written tells that better.
    if not text:
        raise ValueError("text is expected, and it is empty")
    return text


class Reference(Record):
    """Reference summaries of a dialogue."""

    summaries: tuple[Annotated[str, AfterValidator(_not_empty)], ...] = Field(min_length=1)
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


@contextmanager
def record_writer(path: Path) -> Iterator[Callable[[Record], object]]:
    """What writes a record at a time; the file is there, whole, at the end of the block."""
    with whole(path) as half, half.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda record: file.write(_line(path, record))


def _line(path: Path, record: Record) -> str:
    try:
        return record.model_dump_json(exclude_none=True) + "\n"
    except PydanticSerializationError:
        raise UserError(
            f"{path}: {quoted(record.fname)}: its text holds what is no character of UTF-8; drop it"
        ) from None


def read_records(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All records of a file, in its order."""
    return list(iter_records(path, kind))


def iter_records(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a file in its order, one at a time: the file may be larger than memory."""
    missing = "no such file; run `dvc repro`, or `dvc checkout` if it was made before"
    for number, line in enumerate(_lines(text_lines(path, missing, MEND)), start=1):
        yield _parse(path, number, line, kind)


def _lines(parts: Iterable[str]) -> Iterator[str]:
    """Lines as JSON has them, which end at line feeds alone; a file of nothing has none."""
    begun: list[str] = []
    for part in parts:
        begun.append(part.removesuffix("\n"))
        if part.endswith("\n"):
            yield "".join(begun)
            begun = []
    if begun:
        yield "".join(begun)


def _parse(path: Path, number: int, line: str, kind: type[AnyRecord]) -> AnyRecord:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        place = quoted(".".join(map(str, fault["loc"]))) or "the line"
        raise UserError(f"{path}, line {number}: {place}: {fault['msg']}; {MEND}") from None


def write_json(path: Path, content: object) -> None:
    """Write a metrics file, human-readable; whole or not at all."""
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    return parse_json(read_text(path, missing="no such file; run `dvc repro`", mend=MEND), path)


def parse_json(text: str, where: object, mend: str = MEND) -> Any:
    """What a JSON text holds; `where` names it in errors, and `mend` says what to do."""
    try:
        content = json.loads(text)
        # An escape may be half of a letter, which nothing can print or write again.
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}; {mend}") from None
    # Half a letter, a number of thousands of digits, brackets within brackets without end.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not valid JSON: {quoted(error)}; {mend}") from None
    return content


def read_object(path: Path, kind: type[Written]) -> dict[str, Any]:
    """The JSON object in a file, which is of this kind."""
    return checked(read_json(path), kind, str(path))


def checked(content: Any, kind: type[Written], where: str, mend: str = MEND) -> dict[str, Any]:
    """`content` as it is, an object with what `kind` needs; `where` names it in errors, and `mend` says what to do."""
    try:
        kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_fault(content, error.errors()[0])}; {mend}") from None
    assert isinstance(content, dict)
    return content


def _fault(content: Any, fault: ErrorDetails) -> str:
    key = ".".join(quoted(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"the key {absent(key, _at(content, fault['loc'][:-1]))}"
    message = "an object is expected" if fault["type"] == "model_type" else fault["msg"]
    return f"{key}: {message}" if key else message


def _at(content: Any, keys: Sequence[int | str]) -> Any:
    """What lies under these keys, one within another."""
    for key in keys:
        content = content[key]
    return content


def absent(key: str, found: Collection[object]) -> str:
    """Why the last name of `key` is not among the keys or columns `found`: it is missing, or has its former name."""
    *parents, name = key.split(".")
    for former, present in RENAMED.items():
        if present == name and former in found:
            return f"'{'.'.join([*parents, former])}' is named '{key}' now"
    return f"'{key}' is missing"
