"""Every summary of a split scored and looked at for faults, a chunk of rows at a time.

Of the texts nothing stays: what is kept of a summary are its figures, some 50 bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yoyak.core.records import Floats
from yoyak.core.speakers import speakers
from yoyak.evaluation import baselines, similarity
from yoyak.evaluation.diagnosis import flags_of, length_ratio
from yoyak.evaluation.faults import diagnose
from yoyak.evaluation.groups import RowGroups, groups_of, register
from yoyak.evaluation.similarity import OfReferences, Similarities
from yoyak.evaluation.summaries import Row
from yoyak.metrics import rouge
from yoyak.metrics.encoder import Encoder
from yoyak.metrics.rouge import Metric

CHUNK = 500
"""Rows that a process judges together."""
DIGEST = 8
"""Bytes; of a million texts two with one digest come with a chance of 3e-8."""

Pairs = list[tuple[str, str]]
"""Summaries, each with a reference."""


class JudgedSummaries(NamedTuple):
    """What is kept of a model's or a baseline's summaries of a split."""

    scores: Floats
    """ROUGE-1, -2 and -L F1 of each, in percent, shape (rows, 3)."""
    length_ratios: Floats
    """Characters of each over the mean characters of its references, shape (rows,)."""
    faults: NDArray[np.int8]
    """Whether each has each fault of `Diagnosis`: 1, 0, or where that is not known -1; shape (rows, faults)."""
    distinct: int
    """How many differ from each other."""
    similarities: Similarities | None
    """None where no encoder judges."""


@dataclass(frozen=True)
class JudgedSplit:
    """Every model's and baseline's summaries of a split, judged."""

    name: str
    groups: RowGroups
    summaries: dict[str, JudgedSummaries]
    human: Floats | None
    """Scores of the references against each other, in percent, shape (rows, 3); None where a row has a single one."""
    pairs: Pairs
    """Some summaries and references that the library `rouge` can score, too."""
    references: OfReferences | None
    """Similarities of the references to the dialogues; None where no encoder judges."""


class _Part(NamedTuple):
    """What is kept of a model's or a baseline's summaries of some rows, as `JudgedSummaries` has it."""

    scores: Floats
    length_ratios: Floats
    faults: NDArray[np.int8]
    digests: NDArray[Any]
    similarities: Similarities | None


class _Chunk(NamedTuple):
    """What a process makes of some rows."""

    parts: list[_Part]
    """Of each model and baseline."""
    human: Floats | None
    references: OfReferences | None
    characters: NDArray[np.int64]
    speakers: NDArray[np.int64]
    registers: list[str]
    pairs: Pairs


def judge(
    split: str, rows: Iterable[Row], names: Sequence[str], metric: Metric, encoder: Encoder | None
) -> JudgedSplit:
    """Judge the summaries by the models `names`, which `rows` have, and the baselines."""
    fnames: list[str] = []
    topics: list[str | None] = []
    done: list[_Chunk] = []
    parts: dict[str, list[_Part]] = {name: [] for name in (*names, *baselines.EXTRACTS)}
    pairs: Pairs = []
    work = partial(_judge_chunk, metric=metric, encoder=encoder)
    for chunk, judged in rouge.stream_on_all_cores(work, rows, CHUNK, metric):
        fnames += [row.fname for row in chunk]
        topics += [row.topic for row in chunk]
        pairs = rouge.thinned([*pairs, *judged.pairs])
        for of_model, part in zip(parts.values(), judged.parts, strict=True):
            of_model.append(part)
        done.append(judged._replace(pairs=[], parts=[]))
    # First, and one model after the other: of a million rows two copies of all are too much.
    summaries = {name: _joined(parts.pop(name)) for name in list(parts)}
    return JudgedSplit(
        split,
        groups_of(
            fnames,
            np.concatenate([each.characters for each in done]),
            np.concatenate([each.speakers for each in done]),
            topics,
            [ending for each in done for ending in each.registers],
        ),
        summaries,
        _all_or_none([each.human for each in done]),
        pairs,
        similarity.joined_references([each.references for each in done if each.references]) if encoder else None,
    )


def _joined(parts: Sequence[_Part]) -> JudgedSummaries:
    near = [part.similarities for part in parts if part.similarities]
    return JudgedSummaries(
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.length_ratios for part in parts]),
        np.concatenate([part.faults for part in parts]),
        len(np.unique(np.concatenate([part.digests for part in parts]))),
        similarity.joined(near) if near else None,
    )


def _all_or_none(parts: Sequence[Floats | None]) -> Floats | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _judge_chunk(rows: Sequence[Row], metric: Metric, encoder: Encoder | None) -> _Chunk:
    judged = [_judge_row(row, metric) for row in rows]
    *figures, pairs = zip(*judged, strict=True)
    scores, ratios, faults, digests = (np.array(column).swapaxes(0, 1) for column in figures)
    near, of_references = _similarities(rows, encoder) if encoder else ([None] * len(scores), None)
    ceiling = baselines.human([row.references for row in rows], metric)
    return _Chunk(
        [_Part(*of_model) for of_model in zip(100 * scores, ratios, faults, digests, near, strict=True)],
        None if ceiling is None else 100 * ceiling,
        of_references,
        np.array([sum(map(len, row.turns)) for row in rows]),
        np.array([len(speakers("\n".join(row.turns))) for row in rows]),
        [register(row.references[0]) for row in rows],
        rouge.spread(list(chain.from_iterable(pairs))),
    )


def _similarities(rows: Sequence[Row], encoder: Encoder) -> tuple[list[Similarities], OfReferences]:
    dialogues, references = ["\n".join(row.turns) for row in rows], [row.references for row in rows]
    texts = list(zip(*map(_texts, rows), strict=True))
    return similarity.of_rows(dialogues, references, texts, encoder)


def _judge_row(row: Row, metric: Metric) -> tuple[Floats, Floats, NDArray[np.int8], NDArray[Any], Pairs]:
    """Of one row after the other, not one model after the other: its dialogue is analysed once."""
    texts = _texts(row)
    dialogue = "\n".join(row.turns)
    return (
        np.array(rouge.score_rows([(text, row.references) for text in texts], metric), dtype=np.float64),
        np.array([length_ratio(text, row.references) for text in texts]),
        np.array([flags_of(diagnose(text, dialogue)) for text in texts], dtype=np.int8),
        np.array([_digest(text) for text in texts], dtype=f"V{DIGEST}"),
        rouge.scorable(((text, reference) for text in texts for reference in row.references), metric),
    )


def _texts(row: Row) -> list[str]:
    return [*row.texts, *baselines.extracts_of(row.turns)]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest()
