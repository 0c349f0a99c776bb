"""What was tried on rows of train that were held out, for docs/results.md: the sweep, and the ablations."""

import numpy as np
import wording
from comparisons import p_values, paired_interval, same_runs
from markdown_tables import interval, mean, paragraph, signed, table
from provenance import counted, entry_of, ran_on, rows_of

from yoyak.core.errors import UserError
from yoyak.core.records import Floats
from yoyak.evaluation.leaderboard import NOISE
from yoyak.sweeps.results import Result

BASE = "base"
"""The ablation that others are compared with."""


def sweep_section(results: list[Result]) -> str:
    """The section "Sweep": a table for each entry of `params.yaml` whose weights were tuned."""
    by_entry: dict[str, list[Result]] = {}
    for result in results:
        by_entry.setdefault(entry_of(result, result.model), []).append(result)
    return "\n\n".join(
        [
            "## Sweep",
            paragraph(f"""
                Run after the final models, whose parameters come from a first look at part of it at an earlier commit.
                {rows_of(results)} rows of train that were held out, trained on the rest; one training each, whose best
                epoch was chosen on these rows, too. {ran_on(results)}; {counted(results)}. Mean: of the likeliest
                candidate, by log-probability a token; of beams, of the first. MBR: of the model's own candidates.
                Differences are to the first line, row by row, with paired 95 % intervals, which know neither how much
                seeds differ nor how many lines are compared. What differs in `generation` alone is the same training.
            """),
            *(_swept(entry, runs) for entry, runs in by_entry.items()),
        ]
    )


def _swept(entry: str, results: list[Result]) -> str:
    """Of one model: the experiment that changes nothing, and the others, the best first."""
    base = [run for run in results if not run.overrides]
    others = sorted((run for run in results if run.overrides), key=lambda run: -float(run.own.mean()))
    lines = [_line(run, base) for run in [*base, *others]]
    header = ["", "changed", "held out", "mean", "difference", "MBR", "difference"]
    unchanged = f"Nothing changed: {wording.parameters(base[0], base[0].model)}.\n\n" if base else ""
    return f"### `{entry}`\n\n{unchanged}{table(header, lines)}"


def _line(run: Result, base: list[Result]) -> list[str]:
    others = [other for _, other in same_runs([run], base) if other is not run]
    own, mbr = _minus(run.own, [other.own for other in others]), _minus(run.mbr, [other.mbr for other in others])
    return [run.experiment, _listed(run), run.on, mean(run.own), own, mean(run.mbr), mbr]


def _listed(run: Result) -> str:
    return ", ".join(f"`{each}`" for each in run.overrides)


def _minus(rows: Floats, others: list[Floats]) -> str:
    return "; ".join(f"{signed((rows - other).mean())} {interval(paired_interval(rows - other))}" for other in others)


def ablations_section(results: list[Result]) -> str:
    """The section "Ablations": each experiment's differences to `BASE`, over seeds and rows.

    Raises a `UserError` where `BASE` has no result.
    """
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.experiment, []).append(result)
    if BASE not in by_name:
        raise UserError(f"sweeps/results/ablations: no result of `{BASE}`, which others are compared with; run it")
    base = by_name.pop(BASE)
    compared = {name: _by_seed(runs, base) for name, runs in by_name.items()}
    left_out = ", ".join(name for name, differences in compared.items() if not differences)
    seeds = ", ".join(map(str, sorted({result.seed for result in base})))
    return "\n\n".join(
        [
            "## Ablations",
            paragraph(f"""
                One thing changed, seeds {seeds}, {rows_of(base)} rows of train that were held out. The difference of
                the mean over seeds, its paired interval over rows, and its p by swaps, Holm-corrected for all lines:
                undecided where p is above {NOISE}, or where seeds disagree on the sign. Both are of these trainings and
                know nothing of other seeds, for which three are too few; differences are of single summaries but where
                MBR is named. Each training chose its best epoch on these same rows. The weights were 4-bit values
                before anything was trained: NF4 against bf16 is of those. {ran_on(base)}; {counted(base)}.
            """),
            f"The base: {wording.parameters(base[0], base[0].model)}; mean {mean([run.own for run in base])}, "
            f"MBR of its samples {mean([run.mbr for run in base])}.",
            _compared(by_name, {name: rows for name, rows in compared.items() if rows}),
        ]
        + ([f"Left out, for the base has no run of their seeds and rows: {left_out}."] if left_out else [])
    )


def _by_seed(runs: list[Result], base: list[Result]) -> dict[str, list[Floats]]:
    """By data folder, of each seed that both have run there: what the rows gain over the base's."""
    found: dict[str, list[Floats]] = {}
    for run, other in same_runs(runs, base):
        found.setdefault(run.on, []).append(run.own - (other.mbr if _searches(run) else other.own))
    return found


def _searches(run: Result) -> bool:
    """Otherwise than by samples: what MBR of them gives is what it must be compared with."""
    return any(each.startswith("generation.search=") for each in run.overrides)


def _compared(by_name: dict[str, list[Result]], differences: dict[str, dict[str, list[Floats]]]) -> str:
    by_row = {name: np.concatenate([np.mean(rows, axis=0) for rows in of.values()]) for name, of in differences.items()}
    lines = []
    for (name, rows), p in zip(by_row.items(), p_values(list(by_row.values())), strict=True):
        run = by_name[name][0]
        seeds = [float(each.mean()) for of_seeds in differences[name].values() for each in of_seeds]
        numbers = [signed(rows.mean()), interval(paired_interval(rows)), f"{p:.4f}", ", ".join(map(signed, seeds))]
        against = "the base's MBR" if _searches(run) else "the base"
        lines.append([name, _listed(run), against, *numbers, _verdict(float(p), seeds)])
    return table(["", "changed", "against", "difference", "95 %", "p", "of each seed", ""], lines)


def _verdict(p: float, seeds: list[float]) -> str:
    if p > NOISE or min(seeds) < 0 < max(seeds):
        return "undecided"
    return "better" if min(seeds) > 0 else "worse"
