"""The rows of a split with every model's summary of each, read from the stages' files side by side, a row at a time."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from yoyak.core.errors import UserError, quoted
from yoyak.core.records import Prediction, Prompt, Reference, iter_records


class Row(NamedTuple):
    """A dialogue, what is expected of its summary, and what was said."""

    fname: str
    turns: tuple[str, ...]
    references: tuple[str, ...]
    topic: str | None
    texts: tuple[str, ...]
    """A summary of each model, in the order of their names."""


def read_rows(split: str, names: Sequence[str]) -> Iterator[Row]:
    """The rows of a split, with the summaries by the models `names`."""
    prompts = Path(f"data/prompts/{split}.jsonl")
    references = iter_records(Path(f"data/references/{split}.jsonl"), Reference)
    models = [_Summaries(name, prompts) for name in names]
    row = None
    for prompt, row in zip_longest(iter_records(prompts, Prompt), references):
        if prompt is None and row is None:
            break
        if prompt is None or row is None or prompt.fname != row.fname:
            raise UserError(f"data/prompts and data/references of {split} are of different rows; run `dvc repro`")
        texts = tuple(model.text_of(row.fname) for model in models)
        yield Row(row.fname, prompt.turns, row.summaries, row.topic, texts)
    if row is None:
        raise UserError(f"{prompts}: no rows; run `dvc repro`")
    for model in models:
        model.read_to_the_end()


class _Summaries:
    """The summaries by a model: as inference writes them, in the order of the prompts, or in any other."""

    def __init__(self, name: str, prompts: Path) -> None:
        self._name, self._prompts = name, prompts
        self._path = Path(f"predictions/{name}/{prompts.name}")
        self._rows = iter_records(self._path, Prediction)
        self._by_name: dict[str, str] | None = None
        """All of them, from where the order differs on."""

    def text_of(self, fname: str) -> str:
        if self._by_name is None:
            row = next(self._rows, None)
            if row is not None and row.fname == fname:
                return row.text
            self._by_name = {row.fname: row.text for row in iter_records(self._path, Prediction)}
        if fname not in self._by_name:
            rows = iter_records(self._prompts, Prompt)
            missing_summaries(self._name, [row.fname for row in rows if row.fname not in self._by_name])
        return self._by_name[fname]

    def read_to_the_end(self) -> None:
        """A line that no row asks for may be damaged all the same."""
        for _ in self._rows:
            pass


def missing_summaries(name: str, fnames: Sequence[str]) -> None:
    """Stop where a model has no summary of some rows."""
    if fnames:
        raise UserError(
            f"predictions of {name}: {quoted(fnames[0])} is missing (and {len(fnames) - 1} more); run `dvc repro`"
        )
