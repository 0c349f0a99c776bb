"""Every run that the repository has: the branch's commits with metrics, experiments of DVC, and the workspace."""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError
from yoyak.core.files import write_whole
from yoyak.core.params import PARAMS, parse_yaml
from yoyak.core.progress import Reporter, clock, span
from yoyak.core.records import Written
from yoyak.core.repository import cache_folder, git, short
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE
from yoyak.evaluation.written import Estimate, Scoring
from yoyak.reporting import revisions
from yoyak.reporting.console import printable
from yoyak.reporting.parameters import as_run, flat
from yoyak.reporting.revisions import WORKSPACE, Files

METRICS = ("metrics/scores.json", "metrics/ensemble.json")
KEPT = "read_runs"
"""Folder in the cache of what was read of each commit: DVC takes half a second to open one."""
TOLD_FROM = 5
"""Runs after which the time left is known: the first ones wait for DVC to be loaded, or were read before."""
NOTE = 40
"""Most letters of a run's name beside the bar."""
ROUNDING = 0.02
"""Most by which the mean of a run's rows and the mean that it recorded, both rounded, may differ."""


class Content(BaseModel):
    """What is read of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    params: dict[str, Any]
    """Of `params.yaml`, flat: `lora.r`."""
    rule: dict[str, str]
    """What the scores were counted by."""
    scores: dict[str, Estimate]
    """Mean ROUGE on dev in percent of the ensemble and of each model, with its interval, as the run recorded them."""
    references: str | None
    """Hash of the dev rows' names and references; None where the rows are not known."""
    rows: dict[str, list[float]]
    """Mean ROUGE of each dev row by the same names, in percent, in the order of the rows' names."""


class Run(NamedTuple):
    """A run, as far as it can be read here."""

    name: str
    kind: Literal["workspace", "commit", "experiment"]
    commit: str
    """Empty for the workspace."""
    began_at: str
    """The commit that an experiment began at; empty for others."""
    date: datetime | None
    content: Content | None
    told: str
    """Why something is missing; empty where nothing is."""


class _Scored(Written):
    scoring: Scoring
    models: dict[str, Estimate]


class _Joined(Written):
    ensemble: Estimate


def read_all() -> list[Run]:
    """The workspace, commits and experiments, each kind with the latest first.

    The workspace is left out where a commit or experiment is the same run.
    """
    with revisions.repository(WORKSPACE) as repo, Reporter("reading runs", "runs") as reporter:
        listed = [Run(WORKSPACE, "workspace", "", "", None, None, ""), *_commits(), *_experiments(repo)]
        reporter.begin(0, len(listed))
        started, runs = clock(), []
        for done, run in enumerate(listed, start=1):
            runs.append(_read(repo, run))
            left = (clock() - started) / done * (len(listed) - done)
            line = f"{done} of {len(listed)}, {span(left)} left"
            reporter.show(done, printable(run.name[:NOTE]), line, left if done >= TOLD_FROM else None)
        reporter.end(len(listed), span(clock() - started))
    _forget_others(runs)
    workspace, *others = runs
    return others if workspace.content in [run.content for run in others if run.content] else runs


# Which there are


def _commits() -> list[Run]:
    """The branch's commits that changed metrics: a commit that did not is the same run."""
    return [
        Run(f"{short(commit)} {subject}", "commit", commit, "", date, None, "")
        for commit, date, subject in _log("HEAD", "--", *METRICS)
    ]


def _experiments(repo: Any) -> list[Run]:
    """Those that have ended, of all commits."""
    with in_one_line(WORKSPACE):
        from dvc.repo.experiments.utils import exp_refs

        found = {repo.scm.get_ref(str(ref)): ref for ref in exp_refs(repo.scm)}
    if not found:
        return []
    return [
        Run(found[commit].name, "experiment", commit, found[commit].baseline_sha, date, None, "")
        for commit, date, _ in _log("--no-walk=sorted", *found, "--")
    ]


def _log(*arguments: str) -> Iterator[tuple[str, datetime, str]]:
    """Commit, time and subject of what `git log` lists."""
    # Not `splitlines`: a subject may have what Unicode calls a line's end.
    for line in filter(None, git("log", "--format=%H %ct %s", *arguments).split("\n")):
        commit, seconds, subject = line.split(" ", maxsplit=2)
        yield commit, datetime.fromtimestamp(int(seconds), UTC), subject


# What they are


def _read(repo: Any, run: Run) -> Run:
    kept = cache_folder() / KEPT / f"{run.commit}.json"
    if run.commit and (content := _kept(kept)):
        return run._replace(content=content)
    try:
        with revisions.at(repo, run.commit or WORKSPACE, run.name) as files:
            content, told = _content(files, is_workspace=not run.commit)
    except UserError as error:
        return run._replace(told=str(error))
    if run.commit and not told:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, content.model_dump_json())
    return run._replace(content=content, told=told)


def _kept(path: Path) -> Content | None:
    """What was read before; None where another version of this library wrote it."""
    try:
        return Content.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _content(files: Files, is_workspace: bool) -> tuple[Content, str]:
    """What git has of a run, and what DVC has of its rows; or why that is missing."""
    params = parse_yaml(files.text(str(PARAMS)), files.place(str(PARAMS)))
    # It may have been edited after the run; a commit is of one piece.
    params = as_run(params) if is_workspace else params
    written = files.object(METRICS[0], _Scored)
    scored = _Scored.model_validate(written)
    scores = {name: each for name, each in scored.models.items() if not is_baseline(name)}
    if files.has(METRICS[1]):
        scores = {ENSEMBLE: _Joined.model_validate(files.object(METRICS[1], _Joined)).ensemble, **scores}
    rule = {key: str(written["scoring"].get(key) or "") for key in revisions.SAME_RULE}
    content = Content(params=_plain(dict(flat(params))), rule=rule, scores=scores, references=None, rows={})
    try:
        dev = revisions.dev_rows(files)
    except UserError as error:
        return content, str(error)
    ordered = dev.scores.sort_index()
    rows = {str(name): column.round(4).tolist() for name, column in ordered.items() if name in scores}
    references = json.dumps(sorted(dev.references.items()), ensure_ascii=False).encode()
    told = ""
    if ENSEMBLE in rows:
        mean = sum(rows[ENSEMBLE]) / len(rows[ENSEMBLE])
        if abs(mean - scores[ENSEMBLE].rouge_mean) > ROUNDING:
            told = f"{files.place('ensemble/dev.jsonl')}: scores {mean:.2f} here, where the run had "
            told += f"{scores[ENSEMBLE].rouge_mean:.2f}: another version of the analyser, or other files"
            del rows[ENSEMBLE]
    return content.model_copy(update={"references": hashlib.sha256(references).hexdigest(), "rows": rows}), told


def _plain(params: dict[str, Any]) -> Any:
    """As JSON has them: YAML has dates, too, and numbers that are none."""
    return json.loads(json.dumps(params, default=str), parse_constant=str)


def _forget_others(runs: list[Run]) -> None:
    """Of what was kept, that of commits which are no run any more."""
    listed = {f"{run.commit}.json" for run in runs}
    for path in (cache_folder() / KEPT).glob("*.json"):
        if path.name not in listed:
            path.unlink()
