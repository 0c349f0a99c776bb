"""Experiments side by side, in the few columns that one wants of the hundreds that DVC has."""

from collections.abc import Mapping
from gettext import gettext as _
from typing import Any, NamedTuple

from rich.table import Table

from yoyak.core import params
from yoyak.core.dvc_project import in_one_line
from yoyak.core.language import N_
from yoyak.core.params import PARAMS, read_section
from yoyak.core.run import RunParams
from yoyak.reporting.console import printable

UNFINISHED = (N_("queued"), N_("running"), N_("failed"))
"""DVC's states of an experiment whose figures are still its baseline's."""


class Experiment(NamedTuple):
    """A line of the table."""

    name: str
    state: str
    """`queued`, `running` or `failed`; nothing where it has ended well."""
    dev: float | None
    """Mean ROUGE of the ensemble on dev, in percent."""
    best: str
    """The best single model on dev."""
    changed: list[str]
    """Parameters that differ from the commit that it began at."""


def tables(all_commits: bool) -> list[Table | str]:
    """What `yoyak experiments` prints: the commit and its experiments, best first; or those of all commits."""
    # DVC would pass over a workspace that it cannot read.
    read_section(RunParams, "run")
    shown = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", _("state")):
        shown.add_column(column, no_wrap=True)
    shown.add_column("dev", justify="right", no_wrap=True)
    shown.add_column(_("best model"), no_wrap=True)
    shown.add_column(_("changed"), overflow="fold")
    for row in read(all_commits):
        dev = "" if row.dev is None else f"{row.dev:.2f}"
        shown.add_row(
            printable(row.name), row.state and _(row.state), dev, printable(row.best), printable("; ".join(row.changed))
        )
    return [
        shown,
        _(
            "dev: mean ROUGE of the ensemble, percent; changed: parameters that are not as in the commit. "
            "`yoyak compare COMMIT EXPERIMENT` tells whether a difference may be chance."
        ),
    ]


def read(all_commits: bool) -> list[Experiment]:
    """The workspace, then each commit with its experiments behind it, best first, as DVC has recorded them."""
    with in_one_line("workspace"):
        from dvc.repo import Repo

        with Repo() as repo:
            workspace, *commits = repo.experiments.show(all_commits=all_commits)
    head = _parameters(commits[0].data) if commits else {}
    rows = [_row("workspace", "", workspace.data, head)]
    for commit in commits:
        rows.append(_row(commit.name or commit.rev[:7], "", commit.data, _parameters(commit.data)))
        inner = [
            _row(f"  {tip.name or tip.rev[:7]}", _state(tried), tip.data, _parameters(commit.data))
            for tried in commit.experiments or ()
            for tip in tried.revs[:1]
        ]
        rows += sorted(inner, key=lambda row: (row.dev is None, -(row.dev or 0)))
    return rows


def _state(tried: Any) -> str:
    state = str(tried.executor.state) if tried.executor else ""
    return state if state in UNFINISHED else ""


def _row(name: str, state: str, data: Any, before: Mapping[str, Any]) -> Experiment:
    # While it runs, its metrics are those of the commit.
    figures = {} if state else _figures(data)
    dev = _at(figures, "metrics/ensemble.json", "ensemble", "rouge_mean")
    best = _at(figures, "metrics/scores.json", "best", "model")
    changed = params.changes(before, _parameters(data)) if data else []
    return Experiment(
        name, state, dev if isinstance(dev, float) else None, best if isinstance(best, str) else "", changed
    )


def _at(content: Any, *keys: str) -> Any:
    """What lies under these keys, one within another; None where a damaged file, or an old one, has no such place."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _figures(data: Any) -> dict[str, dict[str, Any]]:
    """Each metrics file's content; nothing of those that cannot be read."""
    found = ((path, entry.get("data")) for path, entry in (data.metrics if data else {}).items())
    return {path: content for path, content in found if isinstance(content, dict)}


def _parameters(data: Any) -> dict[str, Any]:
    content = data.params.get(str(PARAMS), {}).get("data") if data else None
    return content if isinstance(content, dict) else {}
