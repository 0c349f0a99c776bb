"""Two revisions of this project: which dev rows each model summarises better or worse, and what may be chance."""

from gettext import gettext as _
from typing import NamedTuple

import pandas as pd
from rich.markup import escape
from rich.table import Table

from yoyak.core.errors import UserError
from yoyak.core.records import Floats
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.evaluation import significance
from yoyak.evaluation.leaderboard import BOOTSTRAP_SAMPLES, NOISE, SEED
from yoyak.evaluation.written import Text
from yoyak.reporting import revisions
from yoyak.reporting.console import interval, printable

SHOWN = 3
"""Rows shown of each model that got better, and as many that got worse."""


class Run(NamedTuple):
    """The dev rows in a revision."""

    revision: str
    rule: dict[str, str]
    models: list[str]
    """Names of the models, best first; before them the ensemble, where it was made."""
    scores: pd.DataFrame
    """Mean ROUGE in percent: rows by fname, a column for each of them."""
    references: dict[str, list[str]]
    texts: dict[str, dict[str, str]]
    """Summaries by model and fname."""


class Changes(NamedTuple):
    """Differences of each model that both runs have."""

    models: list[str]
    differences: pd.DataFrame
    """After less before: rows by fname, a column a model."""
    intervals: Floats
    """95 % intervals of the means, shape (models, 2)."""
    p_values: Floats
    """Holm-corrected for the number of models."""


def tables(before: str, after: str) -> list[Table | str]:
    """Output of `yoyak compare`."""
    runs = read(before), read(after)
    changes = changes_between(*runs)
    return [
        _overview(runs, changes),
        *(table for model in changes.models for table in _of_model(runs, changes.differences[model], model)),
    ]


# Reading a revision


def read(revision: str) -> Run:
    """A revision's dev rows, from git and DVC's cache; DVC fetches what was pushed, but is not in the cache."""
    with revisions.opened(revision) as files:
        dev = revisions.dev_rows(files)
        texts = {ENSEMBLE: dev.ensemble} if dev.ensemble else {}
        for model in map(str, dev.scores.columns):
            if model != ENSEMBLE:
                path = f"predictions/{model}/dev.jsonl"
                texts[model] = files.by_fname(path, Text)
                revisions.check_texts(texts[model], dev.references, files.place(path))
    return Run(revision, dev.rule, list(texts), dev.scores, dev.references, texts)


# Comparing


def changes_between(before: Run, after: Run) -> Changes:
    """Differences of the models that both have, on the rows that both have with the same references."""
    _check_rule(before, after)
    models = [model for model in after.models if model in before.models]
    if not models:
        has = [f"{run.revision} has {', '.join(run.models)}" for run in (before, after)]
        raise UserError(f"no model in common: {has[0]}; {has[1]}")
    fnames = [
        fname
        for fname in after.scores.index
        if fname in before.scores.index and before.references[fname] == after.references[fname]
    ]
    if not fnames:
        raise UserError(f"{before.revision} and {after.revision} have no dev row in common, with the same references")
    differences = after.scores.loc[fnames, models] - before.scores.loc[fnames, models]
    values = differences.to_numpy()
    return Changes(
        models,
        differences,
        significance.interval(significance.resampled_means(values, BOOTSTRAP_SAMPLES, SEED)),
        significance.holm(significance.paired_p_values(values, SEED), len(models)),
    )


def _check_rule(before: Run, after: Run) -> None:
    for name in revisions.SAME_RULE:
        if before.rule.get(name) != after.rule.get(name):
            raise UserError(
                f"scores are not comparable: {name} is {before.rule.get(name)} at {before.revision}, "
                f"{after.rule.get(name)} at {after.revision}"
            )


# Printing, in 80 columns


def _overview(runs: tuple[Run, Run], changes: Changes) -> Table:
    before, after = (run.scores.loc[changes.differences.index] for run in runs)
    table = Table(
        title=_("Mean ROUGE on dev, percent: {before} → {after}").format(
            before=escape(runs[0].revision), after=escape(runs[1].revision)
        ),
        caption=_rows_compared(runs, changes)
        + " "
        + _("Brackets: 95 % bootstrap interval; p: paired, Holm-corrected; noise: p above {noise}.").format(
            noise=NOISE
        ),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    counted = (_("better"), _("worse"), _("same"))
    for column in (_("before"), _("after"), _("change"), "", "p", "", *counted):
        table.add_column(column, justify="right", no_wrap=True)
    for place, model in enumerate(changes.models):
        difference, p = changes.differences[model], changes.p_values[place]
        table.add_row(
            model,
            f"{before[model].mean():.2f}",
            f"{after[model].mean():.2f}",
            f"{difference.mean():+.2f}",
            escape(interval(changes.intervals[place].tolist())),
            f"{p:.3f}",
            _("noise") * bool(p > NOISE),
            *(str(int(chosen.sum())) for chosen in (difference > 0, difference < 0, difference == 0)),
        )
    return table


def _rows_compared(runs: tuple[Run, Run], changes: Changes) -> str:
    """`48 rows; 2 of HEAD~1 and 0 of HEAD left out.`"""
    rows = len(changes.differences)
    lost = [
        _("{rows} of {revision}").format(rows=len(run.scores) - rows, revision=escape(run.revision))
        for run in runs
        if len(run.scores) > rows
    ]
    if not lost:
        return _("{rows} rows.").format(rows=rows)
    told = _("{rows} rows; {lost} stand in one alone, or have other references.")
    return told.format(rows=rows, lost=_(" and ").join(lost))


def _of_model(runs: tuple[Run, Run], difference: "pd.Series[float]", model: str) -> list[Table | str]:
    """The rows that changed most: the best first, then the worst."""
    ordered = difference.sort_values(ascending=False, kind="stable")
    better, worse = ordered[ordered > 0].head(SHOWN), ordered[ordered < 0].tail(SHOWN)[::-1]
    return [
        _texts(runs, part, model, f"{model}: {what}")
        for part, what in ((better, _("better")), (worse, _("worse")))
        if len(part)
    ]


def _texts(runs: tuple[Run, Run], part: "pd.Series[float]", model: str, title: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", show_header=False, box=None, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    before, after = runs
    for fname, change in zip(map(str, part.index), part, strict=True):
        scores = f"{before.scores[model][fname]:.1f} → {after.scores[model][fname]:.1f}"
        table.add_row(printable(fname), f"[bold]{scores}[/bold] ({change:+.1f})")
        for reference in after.references[fname]:
            table.add_row(_("reference"), printable(reference))
        for name, run in ((_("before"), before), (_("after"), after)):
            table.add_row(name, printable(run.texts[model][fname]))
        table.add_row()
    return table
