"""Checks of `submission.csv` as it is on the disk: its form, and what to look at."""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from yoyak.core import repository
from yoyak.core.errors import UserError, quoted
from yoyak.core.files import sha256
from yoyak.core.records import Prompt
from yoyak.data.dialogues import DataParams
from yoyak.evaluation.faults import diagnose
from yoyak.submission.file import SubmissionParams

SPECIAL_TOKEN = re.compile(
    r"<[|｜][^<>\s]*[|｜]?>|</?[a-z][a-z0-9_]*[|｜]?>|</?(?:S|BOS|EOS|PAD|UNK|CLS|SEP|MASK|[A-Z]+_\d+)>|<</?SYS>>"
    r"|<0x[0-9A-F]{2}>|\[[|｜][^\[\]\s]*[|｜]\]|\[/?(?:PAD|UNK|CLS|SEP|[gs]?MASK|BOS|EOS|INST|[A-Z]+(?:_[A-Z]+)+)\]"
    r"|\[[a-z]+_?\d+\]|[▁\ufffd]"
)
"""`</s>`, `<|eot_id|>`, `<turn|>`, `<unused0>`, `[SEP]`, `[|endofturn|]`, `[unused1]`, `[TOOL_CALLS]` and the like of
any tokenizer; halves of characters, too."""


class Known(NamedTuple):
    """Data that the summaries are compared with."""

    dialogues: Mapping[str, str]
    """Dialogue of each test row, by fname: its turns, one a line."""
    train_lengths: Sequence[int]
    """Characters of each summary of train."""


@dataclass(frozen=True)
class Check:
    """A line of the checklist."""

    name: str
    faults: list[str]
    """Rows that fail it."""
    hard: bool
    """Whether a fault stops the stage: of the file's form, without which nothing would be scored."""

    def line(self) -> str:
        return f"- [{' ' if self.faults else 'x'}] {self.name}" + (f": {self.reason()}" if self.faults else "")

    def reason(self) -> str:
        return quoted(self.faults[0]) + (f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else "")


def known(train: Sequence[Prompt], test: Sequence[Prompt]) -> Known:
    """Dialogues from the prompts of test, and lengths from the references of train."""
    lengths = [len(row.summary) for row in train if row.summary]
    if not lengths:
        raise UserError("data/prompts/train.jsonl: no row has a summary; run `dvc repro`")
    return Known({row.fname: "\n".join(row.turns) for row in test}, lengths)


def checklist(written: Path, sample: pd.DataFrame, known: Known, params: SubmissionParams) -> list[Check]:
    """Checks of the file as it is on the disk: hard ones of its form, then warnings on lengths and texts."""
    table = _as_written(written)
    return [*_of_form(table, sample), *_of_lengths(table, known, params), *_of_texts(table, known)]


def _as_written(path: Path) -> pd.DataFrame:
    """The file's table. Unlike `read_sample` this reads faulty rows, too, so that the checklist can name them."""
    csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return pd.DataFrame(rows, columns=header, dtype=object)


def _of_form(table: pd.DataFrame, sample: pd.DataFrame) -> list[Check]:
    found = {
        "the sample submission's columns": _differing_columns(table, sample),
        "the sample submission's rows in its order": _differing_rows(table, sample),
        "no row twice": [fname for fname, count in Counter(table["fname"]).items() if count > 1],
        "no empty summary": _where(table, [not text.strip() for text in table["summary"]]),
        "one line each": _where(table, [not set("\n\r").isdisjoint(text) for text in table["summary"]]),
    }
    return [Check(name, faults, hard=True) for name, faults in found.items()]


def _of_lengths(table: pd.DataFrame, known: Known, params: SubmissionParams) -> list[Check]:
    lengths = [len(text) for text in table["summary"]]
    shortest, longest = min(known.train_lengths), max(known.train_lengths)
    found = {
        f"at most {params.max_characters} characters": [length > params.max_characters for length in lengths],
        "none shorter or longer than all of train's": [not shortest <= length <= longest for length in lengths],
    }
    return [Check(name, _where(table, faulty), hard=False) for name, faulty in found.items()]


def _of_texts(table: pd.DataFrame, known: Known) -> list[Check]:
    dialogues = map(known.dialogues.get, table["fname"])
    pairs: list[tuple[str, str | None]] = list(zip(table["summary"], dialogues, strict=True))
    diagnoses = [diagnose(text, dialogue) for text, dialogue in pairs]
    alike = Counter(table["summary"])
    found: dict[str, list[bool | None]] = {
        "each ends as a sentence does": [row.no_sentence_end for row in diagnoses],
        "no tag that the dialogue has not": [row.unknown_tags for row in diagnoses],
        "no foreign words that the dialogue has not": [row.foreign_script for row in diagnoses],
        "no special token left over": [bool(special_tokens(*pair)) for pair in pairs],
        "no summary copied from the dialogue": [row.copied for row in diagnoses],
        "no repetition in a summary": [row.repeated for row in diagnoses],
        "no label before a summary": [row.labelled for row in diagnoses],
        "no two summaries alike": [alike[text] > 1 for text, _ in pairs],
    }
    return [Check(name, _where(table, faulty), hard=False) for name, faulty in found.items()]


def special_tokens(text: str, dialogue: str | None) -> set[str]:
    """Strings that look like a tokenizer's special token, and are not quoted from the dialogue."""
    return set(SPECIAL_TOKEN.findall(text)) - set(SPECIAL_TOKEN.findall(dialogue or ""))


def _where(table: pd.DataFrame, faulty: Sequence[bool | None]) -> list[str]:
    """Names of the rows at fault; None, which is not known, counts as no fault."""
    return [fname for fname, fault in zip(table["fname"], faulty, strict=True) if fault]


def _differing_columns(table: pd.DataFrame, sample: pd.DataFrame) -> list[str]:
    return [] if list(table.columns) == list(sample.columns) else [", ".join(table.columns)]


def _differing_rows(table: pd.DataFrame, sample: pd.DataFrame) -> list[str]:
    keys = [column for column in sample.columns if column != "summary" and column in table.columns]
    if len(table) != len(sample):
        return [f"{len(table)} rows instead of {len(sample)}"]
    same = (table[keys] == sample[keys]).all(axis=1)
    return list(table["fname"][~same])


def made_by(data: DataParams, dev_score: Mapping[str, Any]) -> dict[str, Any]:
    """Experiment, commit, data and dev score that the submission comes from."""
    return {
        "experiment": os.environ.get("DVC_EXP_NAME"),
        "commit": repository.commit(),
        "uncommitted": repository.uncommitted(),
        "data": {name: sha256(data.dir / name) for name in (data.train, data.dev, data.test)},
        "dev": dev_score["ensemble"],
        "scoring": dev_score["scoring"],
    }


def report(written: Path, checks: Sequence[Check], known: Known, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Content of `submission/checklist.json`: lengths in characters, and all rows that fail each check."""
    return {
        "sha256": sha256(written),
        "made_by": origin,
        "lengths": {
            "train": _spread(known.train_lengths),
            "submission": _spread([len(text) for text in _as_written(written)["summary"]]),
        },
        "checks": [
            {"name": check.name, "hard": check.hard, "passed": not check.faults, "faults": check.faults}
            for check in checks
        ],
    }


def _spread(lengths: Sequence[int]) -> dict[str, float]:
    percentiles = {"min": 0, "p5": 5, "median": 50, "p95": 95, "max": 100}
    return {name: round(float(np.percentile(lengths, percent)), 1) for name, percent in percentiles.items()}


def to_markdown(checks: Sequence[Check], content: Mapping[str, Any]) -> str:
    """The checklist for a reader; `content` is that of `report`."""
    origin, lengths = content["made_by"], content["lengths"]
    dev = origin["dev"]
    return "\n".join(
        [
            "# Submission",
            "",
            "Hard: one fault, and there is no `submission.csv`.",
            "",
            *(check.line() for check in checks if check.hard),
            "",
            "Warnings, to be looked at; all rows are in `checklist.json`.",
            "",
            *(check.line() for check in checks if not check.hard),
            "",
            f"| characters | {' | '.join(lengths['train'])} |",
            f"| --- | {' | '.join('---:' for _ in lengths['train'])} |",
            *(f"| {name} | {' | '.join(f'{value:g}' for value in row.values())} |" for name, row in lengths.items()),
            "",
            "Made by",
            "",
            f"- experiment: {origin['experiment'] or 'none'}",
            f"- commit: {repository.told(origin['commit'], digits=40)}",
            *(f"  - {change}" for change in origin["uncommitted"]),
            f"- ensemble on dev: mean ROUGE {dev['rouge_mean']:.2f} [{dev['ci95_low']:.2f}, {dev['ci95_high']:.2f}]",
            *(f"- {name}: sha256 {digest}" for name, digest in origin["data"].items()),
            f"- submission: sha256 {content['sha256']}",
            "",
        ]
    )


def require(checks: Sequence[Check]) -> None:
    """Stop at the first hard check that fails."""
    for check in checks:
        if check.hard and check.faults:
            raise UserError(
                f"the submission fails the check '{check.name}': {check.reason()}; "
                "see submission/checklist.md, mend what wrote ensemble/test.jsonl and run again"
            )
