"""Two revisions of this project: which dev rows each model summarises better or worse, and what may be chance."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from gettext import gettext as _
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError, quoted
from yoyak.core.files import decode
from yoyak.core.records import Floats, Written, checked, parse_json
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE, dev_table
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import BOOTSTRAP_SAMPLES, NOISE, SEED
from yoyak.evaluation.written import Counted, Summaries, Text
from yoyak.reporting.console import interval, printable

SHOWN = 3
"""Rows shown of each model that got better, and as many that got worse."""
SAME_RULE = ("tokenizer", "tokenizer_version", "dictionary", "library", "references")
"""Keys of `scoring` in `metrics/scores.json`: scores that differ in one of them are not comparable."""
MEND = "run `dvc repro`, and commit what it makes"


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
    with _opened(revision) as files:
        return _read(revision, files)


def _read(revision: str, files: "_Files") -> Run:
    table = dev_table(files.text("scores/rows.csv"), files.place("scores/rows.csv"))
    counted = files.object("metrics/scores.json", Counted)
    models = [name for name in counted["models"] if not is_baseline(name)]
    paths = {model: f"predictions/{model}/dev.jsonl" for model in models}
    if files.has("ensemble"):
        paths = {ENSEMBLE: "ensemble/dev.jsonl", **paths}
    run = Run(
        revision,
        counted["scoring"],
        list(paths),
        table.reindex(columns=models),
        files.by_fname("data/references/dev.jsonl", Summaries),
        {model: files.by_fname(path, Text) for model, path in paths.items()},
    )
    _check_rows(run, {model: files.place(path) for model, path in paths.items()}, files.place("scores/rows.csv"))
    return run._replace(scores=run.scores.assign(**{ENSEMBLE: _scored(run)})) if ENSEMBLE in paths else run


def _check_rows(run: Run, texts: dict[str, str], scores: str) -> None:
    """Stop where a file was cut off: each model has a score and a text of every row."""
    for model, column in run.scores.items():
        if lost := sorted(run.references.keys() ^ set(column.dropna().index)):
            told = f"scores of {quoted(model)} are not of the rows that have references ({quoted(lost[0])})"
            raise UserError(f"{scores}: {told}; {MEND}")
    for model, where in texts.items():
        if lost := sorted(run.references.keys() ^ run.texts[model].keys()):
            raise UserError(f"{where}: not of the rows that have scores ({quoted(lost[0])}); {MEND}")


def _scored(run: Run) -> Floats:
    """Mean ROUGE of the ensemble's summaries, which no file has: in percent, shape (rows,)."""
    fnames = list(map(str, run.scores.index))
    texts = [run.texts[ENSEMBLE][fname] for fname in fnames]
    references = [run.references[fname] for fname in fnames]
    mean: Floats = leaderboard.score(texts, references, leaderboard.metric_of(run.rule)).mean(axis=1)
    return mean


@contextmanager
def _opened(revision: str) -> Iterator["_Files"]:
    """The files of a revision.

    `DVCFileSystem(rev=…)` would do, were it not for a project in a folder of a larger git repository: it would open
    the folder above (DVC 3.67).
    """
    with ExitStack() as opened:
        with in_one_line(revision):
            # It takes a second to load.
            from dvc.repo import Repo

            repo = opened.enter_context(Repo())
            if revision != "workspace":
                opened.enter_context(repo.switch(revision))
        yield _Files(revision, repo.dvcfs)


class _Files:
    """The files of a revision, whether git has them or DVC."""

    def __init__(self, revision: str, files: Any) -> None:
        self.revision = revision
        self.files = files
        with in_one_line(self.revision):
            # Where DVC cannot read its own files, `exists` would say that nothing is there.
            _ = self.files.repo.index

    def text(self, path: str) -> str:
        from dvc_data.index import DataIndexDirError

        try:
            with in_one_line(self.revision):
                content = bytes(self.files.read_bytes(path))
        except (FileNotFoundError, DataIndexDirError) as error:
            raise UserError(self._missing(path, error)) from None
        except OSError as error:
            raise UserError(f"{self.place(path)}: cannot be read: {error.strerror}") from None
        return decode(content, self.place(path), MEND)

    def has(self, path: str) -> bool:
        # Its `exists` says no of whatever goes wrong.
        with in_one_line(self.revision):
            try:
                self.files.info(path)
            except FileNotFoundError:
                return False
        return True

    def place(self, path: str) -> str:
        """The name of a file in errors."""
        return f"{self.revision}: {path}"

    def object(self, path: str, kind: type[Written]) -> dict[str, Any]:
        """The object in a JSON file, which is of this kind."""
        return checked(parse_json(self.text(path), self.place(path), MEND), kind, self.place(path), MEND)

    def by_fname(self, path: str, kind: type[Written]) -> dict[str, Any]:
        """The field beside `fname` of each row of a JSONL file. No records: an old revision's may have other fields."""
        (key,) = kind.model_fields.keys() - {"fname"}
        found = {}
        for number, line in enumerate(self.text(path).removesuffix("\n").split("\n"), start=1):
            try:
                row = kind.model_validate_json(line).model_dump()
            except ValidationError:
                where = f"{self.place(path)}, line {number}"
                raise UserError(f"{where}: an object with fname and {key} is expected; {MEND}") from None
            found[row["fname"]] = row[key]
        return found

    def _missing(self, path: str, error: Exception) -> str:
        if isinstance(error, FileNotFoundError) and not self.has(path):
            return f"{self.revision}: no {path} there; was dvc.lock committed after `dvc repro`?"
        return (
            f"{self.revision}: {path} is not in DVC's cache; `dvc fetch --all-commits` brings what was pushed, "
            "`dvc exp pull` an experiment's; where nothing was pushed, commit a run of your own"
        )


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
    for name in SAME_RULE:
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
