"""The final models trained a second time, for docs/results.md: how much of a score is chance."""

from comparisons import paired_interval
from markdown_tables import interval, mean, paragraph, signed, table
from provenance import ran_on
from results_dev import gains

from yoyak.core.records import Floats
from yoyak.sweeps.results import Result


def retrained_section(results: list[Result], before: list[Result]) -> str:
    """The section "Trained once more": `results` beside the results `before` of the same experiments."""
    first = {result.experiment: result for result in before}
    header = ["", "mean", "again", "difference", "MBR, all alike", "again", "difference"]
    return "\n\n".join(
        [
            "### Trained once more",
            paragraph(f"""
                `make competition` trained the ensemble's members again, with the same seeds and the same rows:
                {ran_on(results)}. What GPUs add up in another order, and what was mended between the two commits, moves
                scores by as much as this; intervals are of the same rows, paired.
            """),
            table(header, [_line(result, first[result.experiment]) for result in results]),
            gains(results),
        ]
    )


def _line(result: Result, first: Result) -> list[str]:
    own = ["", "", ""] if len(result.models) > 1 else _moved(first.own, result.own)
    return [result.experiment, *own, *_moved(first.mbr, result.mbr)]


def _moved(before: Floats, after: Floats) -> list[str]:
    difference = after - before
    return [mean(before), mean(after), f"{signed(difference.mean())} {interval(paired_interval(difference))}"]
