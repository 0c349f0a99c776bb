"""How near summaries are in meaning to their dialogues and references: a second judge beside ROUGE."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from yoyak.core.records import Floats
from yoyak.core.run import tuned
from yoyak.evaluation import significance
from yoyak.metrics import encoder as encoders
from yoyak.metrics.encoder import Encoder


class Similarities(NamedTuple):
    """Cosines of some summaries, each shape (rows,)."""

    to_dialogue: Floats
    to_references: Floats
    """The mean over a row's references."""


class OfReferences(NamedTuple):
    """What a similarity to the dialogue is to be read against, each shape (rows,)."""

    own: Floats
    """A row's references to its dialogue, their mean."""
    others: Floats
    """Those of the row before it, of the last one for the first: what is alike by chance."""


def of_rows(
    dialogues: Sequence[str], references: Sequence[Sequence[str]], texts: Sequence[Sequence[str]], encoder: Encoder
) -> tuple[list[Similarities], OfReferences]:
    """The similarities of the texts of each model, shape (models, rows), and of the references."""
    said = encoders.vectors(dialogues, encoder)
    expected = _means(references, encoder)
    found = [encoders.vectors(of_model, encoder) for of_model in texts]
    return (
        [Similarities(_cosines(each, said), _cosines(each, expected)) for each in found],
        OfReferences(_cosines(expected, said), _cosines(np.roll(expected, 1, axis=0), said)),
    )


def _means(references: Sequence[Sequence[str]], encoder: Encoder) -> Floats:
    """The mean vector of each row's references: a product with it is the mean of the cosines."""
    found = encoders.vectors([text for row in references for text in row], encoder)
    ends = np.cumsum([len(row) for row in references])
    return np.stack([part.mean(axis=0) for part in np.split(found, ends[:-1])])


def _cosines(left: Floats, right: Floats) -> Floats:
    return np.asarray((left * right).sum(axis=1))


def joined(parts: Sequence[Similarities]) -> Similarities:
    return Similarities(*map(np.concatenate, zip(*parts, strict=True)))


def joined_references(parts: Sequence[OfReferences]) -> OfReferences:
    return OfReferences(*map(np.concatenate, zip(*parts, strict=True)))


def report(
    models: Mapping[str, Similarities],
    lengths: Mapping[str, Floats],
    references: OfReferences,
    encoder: Encoder,
    draws: tuple[int, int],
) -> dict[str, Any]:
    """`similarity` in `metrics/scores.json`, means with 95 % bootstrap intervals, of which `draws` has number and seed.

    `lengths` has each model's characters over those of the references, shape (rows,). Of a tuned model stands beside it
    what tuning has changed.
    """
    entries = {name: _entry(each, draws) for name, each in models.items()}
    for name in models:
        if (learned := tuned(name)) in models:
            longer = lengths[learned] - lengths[name]
            entries[learned]["by_tuning"] = change(models[name], models[learned], longer, draws)
    own, others = _estimates(np.column_stack(references), draws)
    return {
        **encoders.describe(encoder),
        "references": {"to_dialogue": own},
        "references_of_other_rows": {"to_dialogue": others},
        "models": entries,
    }


def _entry(of_model: Similarities, draws: tuple[int, int]) -> dict[str, Any]:
    return dict(zip(Similarities._fields, _estimates(np.column_stack(of_model), draws), strict=True))


def change(before: Similarities, after: Similarities, longer: Floats, draws: tuple[int, int]) -> dict[str, Any]:
    """How much nearer the same rows' summaries are; to the dialogue also `at_equal_length`.

    A shorter summary is less near to its dialogue, whatever it says. That figure is where a line through the rows'
    differences, over how much `longer` each summary is, meets zero.
    """
    rows = np.column_stack([np.subtract(*pair) for pair in zip(after, before, strict=True)])
    estimates = dict(zip(Similarities._fields, _estimates(rows, draws), strict=True))
    nearer = rows[:, 0]
    products = np.column_stack([nearer, longer, nearer * longer, longer * longer])
    drawn = _at_zero(significance.resampled_means(products, *draws))
    found = float(_at_zero(products.mean(axis=0)[None])[0])
    return {**estimates, "at_equal_length": _estimate(found, significance.interval(drawn[:, None])[0])}


def _at_zero(means: Floats) -> Floats:
    """Where least squares' line meets zero, from means of y, x, xy and xx, shape (samples, 4).

    Where x is the same in all rows, the line is flat.
    """
    y, x, xy, xx = means.T
    spread = xx - x * x
    slope = np.where(spread > 1e-12, (xy - x * y) / np.maximum(spread, 1e-12), 0.0)
    return np.asarray(y - slope * x)


def _estimates(rows: Floats, draws: tuple[int, int]) -> list[dict[str, Any]]:
    """Of each column's mean."""
    intervals = significance.interval(significance.resampled_means(rows, *draws))
    return [_estimate(float(mean), bounds) for mean, bounds in zip(rows.mean(axis=0), intervals, strict=True)]


def _estimate(mean: float, bounds: Floats) -> dict[str, Any]:
    return {"mean": round(mean, 4), "ci95_low": round(float(bounds[0]), 4), "ci95_high": round(float(bounds[1]), 4)}
