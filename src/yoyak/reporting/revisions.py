"""A revision's files, from git and DVC's cache, and the scores of its dev rows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError

from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError, quoted
from yoyak.core.files import decode
from yoyak.core.records import Floats, Written, checked, parse_json
from yoyak.core.stale_outputs import is_baseline
from yoyak.ensembling.weighting import ENSEMBLE, dev_table
from yoyak.evaluation import leaderboard
from yoyak.evaluation.written import Counted, Summaries, Text

MEND = "run `dvc repro`, and commit what it makes"
SAME_RULE = ("tokenizer", "tokenizer_version", "dictionary", "library", "references")
"""Keys of `scoring` in `metrics/scores.json`: scores that differ in one of them are not comparable."""
WORKSPACE = "workspace"
"""DVC's name of what is in the folder."""


class DevRows(NamedTuple):
    """Scores of the dev rows of a run."""

    rule: dict[str, str]
    """What they were counted by."""
    references: dict[str, list[str]]
    scores: pd.DataFrame
    """Mean ROUGE in percent: rows by fname; a column for the ensemble, where it was made, and one for each model, best
    first."""
    ensemble: dict[str, str]
    """The ensemble's summaries; none where it was not made."""


def dev_rows(files: "Files") -> DevRows:
    """Of a revision; DVC fetches what was pushed, but is not in the cache."""
    table = dev_table(files.text("scores/rows.csv"), files.place("scores/rows.csv"))
    counted = files.object("metrics/scores.json", Counted)
    scores = table.reindex(columns=[name for name in counted["models"] if not is_baseline(name)])
    references = files.by_fname("data/references/dev.jsonl", Summaries)
    for model, column in scores.items():
        if lost := sorted(references.keys() ^ set(column.dropna().index)):
            told = f"scores of {quoted(model)} are not of the rows that have references ({quoted(lost[0])})"
            raise UserError(f"{files.place('scores/rows.csv')}: {told}; {MEND}")
    ensemble = {}
    if files.has("ensemble"):
        ensemble = files.by_fname("ensemble/dev.jsonl", Text)
        check_texts(ensemble, references, files.place("ensemble/dev.jsonl"))
        scores.insert(0, ENSEMBLE, _scored(ensemble, references, list(map(str, scores.index)), counted["scoring"]))
    return DevRows(counted["scoring"], references, scores, ensemble)


def check_texts(texts: dict[str, str], references: dict[str, list[str]], where: str) -> None:
    """Stop where the file `where` was cut off: it has a text of every row."""
    if lost := sorted(references.keys() ^ texts.keys()):
        raise UserError(f"{where}: not of the rows that have scores ({quoted(lost[0])}); {MEND}")


def _scored(texts: dict[str, str], references: dict[str, list[str]], fnames: list[str], rule: dict[str, str]) -> Floats:
    """Mean ROUGE of the ensemble's summaries, which no file has: in percent, shape (rows,)."""
    metric = leaderboard.metric_of(rule)
    mean: Floats = leaderboard.score(
        [texts[fname] for fname in fnames], [references[fname] for fname in fnames], metric
    ).mean(axis=1)
    return mean


@contextmanager
def opened(revision: str) -> Iterator["Files"]:
    """The files of a revision."""
    with repository(revision) as repo, at(repo, revision, revision) as files:
        yield files


@contextmanager
def repository(where: str) -> Iterator[Any]:
    """DVC's repository; `where` names what is read in its own errors."""
    with ExitStack() as stack:
        with in_one_line(where):
            # It takes a second to load.
            from dvc.repo import Repo

            repo = stack.enter_context(Repo())
        yield repo


@contextmanager
def at(repo: Any, revision: str, name: str) -> Iterator["Files"]:
    """The files of a revision of this repository, which errors call `name`.

    `DVCFileSystem(rev=…)` would do, were it not for a project in a folder of a larger git repository: it would open
    the folder above (DVC 3.67).
    """
    with ExitStack() as stack:
        with in_one_line(name):
            if revision != WORKSPACE:
                stack.enter_context(repo.switch(revision))
        yield Files(name, repo.dvcfs)


class Files:
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
