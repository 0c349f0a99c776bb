"""`submissions.csv`: each submission to the competition, what made it, and how it scored there."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field

from yoyak.core.errors import UserError
from yoyak.core.files import read_text, sha256, write_whole
from yoyak.core.params import Section, check
from yoyak.core.records import Written, checked, read_object
from yoyak.data.tables import check_header, check_shape, csv_rows
from yoyak.evaluation.written import Score
from yoyak.submission.file import read_sample

HISTORY = Path("submissions.csv")
CHECKLISTS = tuple(Path("submission", f"{name}.json") for name in ("checklist", "last_good", "final"))
"""Checklists of the latest submission, of the last good one and of `make competition`; each has its submission's
sha256."""
FEWEST = 3
"""Fewest submissions of which a correlation is computed."""
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
"""A time outside is mistyped, and at the ends of the calendar nothing can be drawn."""


class Submission(Section):
    """A row of the history; what is not known is an empty field."""

    time: Annotated[AwareDatetime, Field(ge=EARLIEST, lt=LATEST), AfterValidator(lambda time: time.astimezone(UTC))]
    """When it was first noted, UTC."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Hash of the submission's file; a file has one row."""
    commit: str | None
    """Commit that was checked out when the submission was made."""
    experiment: str | None
    """Name of the DVC experiment that made it."""
    dev: float | None = Field(ge=0, le=100)
    """Mean ROUGE of the ensemble on dev, in percent."""
    public: float | None = Field(ge=0, le=100)
    """Mean ROUGE that the competition shows, in percent; the private one once it is known."""
    private: float | None = Field(ge=0, le=100)
    note: str | None


class Dev(Written):
    """The ensemble's scores on dev."""

    rouge_mean: Score


class Origin(Written):
    """What made a submission."""

    dev: Dev
    commit: str | None = None
    experiment: str | None = None


class Checklist(Written):
    """What the history takes from `submission/checklist.json`."""

    sha256: str
    made_by: dict[str, Any]


class OwnChecklist(Checklist):
    """That of the submission itself."""

    made_by: Origin  # type: ignore[assignment]


def read(root: Path) -> list[Submission]:
    """The rows of `submissions.csv` in its order; none where there is no such file yet."""
    path = root / HISTORY
    if not path.exists():
        return []
    text = read_text(path, missing="no such file", mend=f"save it as UTF-8, or `git checkout {HISTORY}`")
    header, *lines = csv_rows(HISTORY, io.StringIO(text, newline=""))
    check_header(HISTORY, header)
    rows = [_row(number, header, line) for number, line in enumerate(check_shape(HISTORY, header, lines), start=1)]
    for number, row in enumerate(rows, start=1):
        if row.sha256 in {other.sha256 for other in rows[: number - 1]}:
            raise UserError(f"{HISTORY}, row {number}, column 'sha256': it stands in a row above, too; drop one")
    return rows


def _row(number: int, header: Sequence[str], line: Sequence[str]) -> Submission:
    fields = {name: field or None for name, field in zip(header, line, strict=True)}
    return check(Submission, fields, f"{HISTORY}, row {number}, column:")


def add(root: Path, file: Path, public: float | None, private: float | None, note: str | None) -> Submission:
    """Note a submission; where its file is noted already, update its scores and note with those that are given."""
    read_sample(file)
    rows = {row.sha256: row for row in read(root)}
    digest = sha256(file)
    known = rows.get(digest) or _new(root, digest)
    given = {"public": public, "private": private, "note": None if note is None else " ".join(note.split())}
    changed = {name: value for name, value in given.items() if value is not None}
    rows[digest] = check(Submission, known.model_dump() | changed, f"{HISTORY}:")
    _write(root, list(rows.values()))
    return rows[digest]


def _new(root: Path, digest: str) -> Submission:
    origin = _origin(root, digest)
    known = {
        "time": datetime.now(UTC).replace(microsecond=0),
        "sha256": digest,
        "commit": origin.get("commit"),
        "experiment": origin.get("experiment"),
        "dev": origin["dev"]["rouge_mean"] if origin else None,
    }
    return check(Submission, known | dict.fromkeys(("public", "private", "note")), "the submission's checklist:")


def _origin(root: Path, digest: str) -> Mapping[str, Any]:
    """What made the submission, from its own checklist: today's metrics may be another run's."""
    for path in CHECKLISTS:
        if (root / path).exists():
            content = read_object(root / path, Checklist)
            if content["sha256"] == digest:
                return dict(checked(content, OwnChecklist, str(root / path))["made_by"])
    return {}


def _write(root: Path, rows: Sequence[Submission]) -> None:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Submission.model_fields)
    writer.writerows(row.model_dump(mode="json").values() for row in rows)
    write_whole(root / HISTORY, file.getvalue())


def correlation(rows: Sequence[Submission]) -> float | None:
    """Pearson's correlation of dev and public scores; None of fewer than three, or where one never changes."""
    pairs = [(row.dev, row.public) for row in rows if row.dev is not None and row.public is not None]
    if len(pairs) < FEWEST:
        return None
    try:
        return statistics.correlation(*zip(*pairs, strict=True))
    except statistics.StatisticsError:
        return None
