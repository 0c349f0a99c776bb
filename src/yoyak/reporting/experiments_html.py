"""All runs of the repository as one HTML file: parameters that differ, scores, and which differences may be chance."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yoyak.core.errors import UserError
from yoyak.core.language import N_
from yoyak.core.records import Floats
from yoyak.core.repository import short
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.reporting import page, runs
from yoyak.reporting.chance import luck, pair_intervals
from yoyak.reporting.runs import Content, Run

WORDS = (
    *(N_("better"), N_("worse"), N_("noise"), N_("same")),
    *(N_("compared with"), N_("not read"), N_("no rows"), N_("not comparable")),
)
"""What the page's script says of a comparison."""


def write(path: Path) -> None:
    """The page of all runs; what cannot be read of one stands in its line. A `UserError` where none can be read."""
    found = runs.read_all()
    if not any(run.content for run in found):
        raise UserError(found[0].told)
    page.write(path, "experiments", figures(found), messages=WORDS)


def figures(found: Sequence[Run]) -> dict[str, Any]:
    """Data of the page's script; a run is its place among `runs`."""
    names = dict.fromkeys(name for run in found if run.content for name in run.content.scores)
    return {
        "runs": [
            {
                "name": run.name,
                "kind": run.kind,
                "commit": short(run.commit),
                "began_at": short(run.began_at),
                "date": run.date.isoformat(timespec="minutes").removesuffix("+00:00") if run.date else "",
                "told": run.told,
            }
            for run in found
        ],
        "params": _differing([run.content.params if run.content else {} for run in found]),
        "scores": {name: [_score(run, name) for run in found] for name in names},
        "groups": [
            {
                "rows": len(next(iter(contents[0].rows.values()))),
                "rule": what_was_counted(contents[0].rule),
                "runs": places,
                "compared": {
                    name: compared
                    for name in names
                    if (compared := _compared(dict(zip(places, contents, strict=True)), name))
                },
            }
            for places, contents in _comparable(found)
        ],
    }


def _score(run: Run, name: str) -> list[float] | None:
    """Mean and ends of its interval, in percent."""
    score = run.content and run.content.scores.get(name)
    return [score.rouge_mean, *score.ci95] if score else None


def _differing(params: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Parameters that differ between any two runs: the values that occur, and which of them each run has; -1: none."""
    found = {}
    for key in dict.fromkeys(key for each in params for key in each):
        values: list[Any] = []
        of: list[int] = []
        for each in params:
            if key not in each:
                of.append(-1)
                continue
            value = each[key]
            # 1 and true, which Python takes for equal, are not.
            same = [at for at, other in enumerate(values) if other == value and type(other) is type(value)]
            if not same:
                values.append(value)
            of.append(same[0] if same else len(values) - 1)
        if len({at for at, each in zip(of, params, strict=True) if each}) > 1:
            found[key] = {"values": values, "of": of}
    return found


# Comparing


def _comparable(found: Sequence[Run]) -> list[tuple[list[int], list[Content]]]:
    """Places and contents of runs whose scores are of the same dev rows by the same rule, the largest group first."""
    groups: dict[Any, tuple[list[int], list[Content]]] = {}
    for place, run in enumerate(found):
        if run.content and run.content.rows:
            places, contents = groups.setdefault((run.content.references, *run.content.rule.items()), ([], []))
            places.append(place)
            contents.append(run.content)
    return sorted(groups.values(), key=lambda group: -len(group[0]))


def _compared(group: Mapping[int, Content], name: str) -> dict[str, Any] | None:
    """All differences between those of the runs that have a score of this name; None of fewer than two.

    Ends of intervals are hundredths, rounded outwards: one that excludes 0 does so as it is shown, too.
    """
    rows = {place: content.rows[name] for place, content in group.items() if name in content.rows}
    if len(rows) < 2:
        return None
    scores = np.column_stack(list(rows.values()))
    low, high = np.round(100 * pair_intervals(scores), 6).T
    of_rows = {str(place): scores[:, at] for at, place in enumerate(rows)}
    return {
        "runs": list(rows),
        "means": scores.mean(axis=0).round(4).tolist(),
        "low": _packed(np.floor(low)),
        "high": _packed(np.ceil(high)),
        "luck": round(luck(of_rows), 2),
    }


def _packed(values: Floats) -> str:
    """16-bit integers, little-endian, in Base64: a page of 200 runs has 20,000 pairs by each score."""
    return b64encode(values.astype("<i2").tobytes()).decode()
