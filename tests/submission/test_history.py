"""`yoyak submissions`: the history of submissions and their scores, a row a file, whatever is noted when."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import new_project

from yoyak import cli
from yoyak.core.errors import UserError
from yoyak.submission import history, plots
from yoyak.submission.history import Submission, correlation

FILE = "submission/submission.csv"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    make(40.0)
    return tmp_path


def make(dev: float, experiment: str | None = None, text: str = "비가 온다.") -> None:
    """What the stage `submit` leaves behind."""
    Path("submission").mkdir(exist_ok=True)
    Path(FILE).write_text(f",fname,summary\n0,test_0,{text} {dev}\n", encoding="utf-8")
    made_by = {"commit": "c" * 40, "experiment": experiment, "dev": {"rouge_mean": dev}}
    content = {"sha256": history.sha256(Path(FILE)), "made_by": made_by}
    Path("submission/checklist.json").write_text(json.dumps(content))


def yoyak(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["yoyak", "submissions", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def rows() -> list[dict[str, str]]:
    with Path("submissions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def add(**given: Any) -> Submission:
    return history.add(Path(), Path(FILE), **({"public": None, "private": None, "note": None} | given))


def test_a_row_says_what_made_the_submission(workplace: Path) -> None:
    make(41.25, "lucky-day")
    add(public=47.1, note='first,\n "try"')
    (row,) = rows()
    assert list(row) == ["time", "sha256", "commit", "experiment", "dev", "public", "private", "note"]
    assert row["sha256"] == history.sha256(Path(FILE))
    assert row["commit"] == "c" * 40
    assert (row["experiment"], row["dev"], row["public"], row["private"]) == ("lucky-day", "41.25", "47.1", "")
    assert row["note"] == 'first, "try"'
    assert row["time"].endswith("Z")


def test_a_later_score_goes_into_the_same_row(workplace: Path) -> None:
    add(public=47.1, note="first")
    before = rows()
    make(42.0)
    add(public=47.5)
    make(40.0)
    add(private=45.2)
    first, second = rows()
    assert first == {**before[0], "private": "45.2"}
    assert (second["public"], second["private"]) == ("47.5", "")
    add(public=47.2, note="mistyped before")
    assert (rows()[0]["public"], rows()[0]["private"], rows()[0]["note"]) == ("47.2", "45.2", "mistyped before")
    assert len(rows()) == 2


def test_a_copy_elsewhere_is_the_same_submission(workplace: Path, tmp_path: Path) -> None:
    copy = tmp_path / "sent.csv"
    copy.write_bytes(Path(FILE).read_bytes())
    assert history.add(Path(), copy, 47.1, None, None).dev == 40
    assert add(private=45.0).public == 47.1


def test_the_last_good_submission_is_known_by_its_own_checklist(workplace: Path) -> None:
    Path("submission/checklist.json").rename("submission/last_good.json")
    Path("submission/checklist.json").write_text('{"sha256": "of another", "made_by": {}}')
    assert add(public=47.1).dev == 40


def test_a_strange_file_has_no_dev_score(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(FILE).write_text("fname,summary\ntest_0,다른 것.\n", encoding="utf-8")
    assert yoyak(monkeypatch, "add", FILE, "--public", "47.1") == 0
    assert "is not what the last run made" in capsys.readouterr().err
    assert (rows()[0]["dev"], rows()[0]["commit"], rows()[0]["public"]) == ("", "", "47.1")


def test_the_table_and_the_picture(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert yoyak(monkeypatch) == 0
    assert "nothing was sent yet" in capsys.readouterr().out
    for dev, public in ((40.0, "46.0"), (41.0, "47.0"), (42.0, "46.5")):
        make(dev, "a[b]c")
        assert yoyak(monkeypatch, "add", FILE, "--public", public, "--note", "[bold]") == 0
    capsys.readouterr()
    assert yoyak(monkeypatch) == 0
    printed = capsys.readouterr().out
    for part in ("41.00", "46.50", "a[b]c", "[bold]", "correlation of dev and public: +0.50", "plots/submissions.png"):
        assert part in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert Path("plots/submissions.png").stat().st_size > 1000


def test_scores_not_known_yet_are_drawn_around(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(note="sent, no score yet")
    assert yoyak(monkeypatch) == 0
    assert Path("plots/submissions.png").exists()


def submission(number: int, dev: float | None, public: float | None) -> Submission:
    return Submission(
        time="2026-01-01T00:00:00Z",
        sha256=f"{number:064x}",
        commit=None,
        experiment=None,
        dev=dev,
        public=public,
        private=None,
        note=None,
    )


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(40, 46), (41, 47)], None),
        ([(40, 46), (41, 47), (None, 48), (43, None)], None),
        ([(40, 46), (40, 47), (40, 48)], None),
        ([(40, 46), (41, 47), (42, 48)], 1),
        ([(40, 48), (41, 47), (42, 46), (None, 90)], -1),
    ],
)
def test_correlation(pairs: list[tuple[float | None, float | None]], expected: float | None) -> None:
    found = correlation([submission(number, *pair) for number, pair in enumerate(pairs)])
    assert found == (None if expected is None else pytest.approx(expected))


HEADER = "time,sha256,commit,experiment,dev,public,private,note\n"
GOOD = f"2026-01-01T00:00:00Z,{'a' * 64},,,40,46,,\n"
BAD = {
    "score": (HEADER + GOOD.replace(",46,", ",4b,"), "row 1, column: public: Input should be a valid number"),
    "range": (HEADER + GOOD.replace(",46,", ",146,"), "row 1, column: public: Input should be less than or equal"),
    "time": (HEADER + GOOD.replace("T00:00:00Z", " 00:00"), "row 1, column: time: Input should have timezone"),
    "twice": (HEADER + GOOD + GOOD, "row 2, column 'sha256': it stands in a row above"),
    "short": (HEADER + GOOD + "2026\n", "row 2: 1 fields, but the header has 8"),
    "year": (HEADER + GOOD.replace("2026", "9999"), "row 1, column: time: Input should be less than 2100-01-01"),
    "no year": (HEADER + GOOD.replace("2026", "0001"), "row 1, column: time: Input should be greater than or equal"),
    "column twice": (HEADER.replace("note", "dev") + GOOD, "column 'dev' stands 2 times in the header; keep one"),
    "header": (HEADER.replace("public", "pubic") + GOOD, "pubic: unknown key; did you mean 'public'?"),
    "quote": (HEADER + '"a', "row 1, up to line 2: unexpected end of data; close each double quote"),
    "encoding": (b"\xff\xff", "line 1: not UTF-8 (byte 0); save it as UTF-8, or `git checkout submissions.csv`"),
}


@pytest.mark.parametrize(("content", "told"), BAD.values(), ids=BAD)
def test_a_spoilt_history_is_named_and_kept(workplace: Path, content: str | bytes, told: str) -> None:
    content = content if isinstance(content, bytes) else content.encode()
    Path("submissions.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        add(public=47.1)
    assert str(error.value).startswith("submissions.csv")
    assert told in str(error.value)
    assert Path("submissions.csv").read_bytes() == content


def test_a_folder_in_the_place_of_the_history(workplace: Path) -> None:
    Path("submissions.csv").mkdir()
    with pytest.raises(UserError, match=r"^submissions.csv: a folder, not a file; name the file inside it$"):
        add(public=47.1)


def test_what_cannot_be_written_leaves_the_history_as_it_was(workplace: Path) -> None:
    add(public=47.1)
    before = Path("submissions.csv").read_bytes()
    with pytest.raises(UserError, match=r"^submissions.csv: note: holds a NUL, or half of a letter"):
        add(note="a\udcffb")
    assert Path("submissions.csv").read_bytes() == before
    assert [path.name for path in Path().glob("submissions*")] == ["submissions.csv"]


@pytest.mark.parametrize("name", ["checklist", "last_good"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("null", "an object is expected"),
        ("[]", "an object is expected"),
        ("{}", "the key 'sha256' is missing"),
        ('{"sha256": "of another"}', "the key 'made_by' is missing"),
        ('{"sha256": "DIGEST", "made_by": {"dev": {}}}', "the key 'made_by.dev.rouge_mean' is missing"),
    ],
)
def test_a_spoilt_checklist_is_named(workplace: Path, name: str, content: str, told: str) -> None:
    Path("submission/checklist.json").unlink()
    Path(f"submission/{name}.json").write_text(content.replace("DIGEST", history.sha256(Path(FILE))))
    with pytest.raises(UserError) as error:
        add(public=47.1)
    assert str(error.value) == f"submission/{name}.json: {told}; run `dvc repro`"


def test_times_elsewhere_are_told_in_utc(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("submissions.csv").write_text(HEADER + GOOD.replace("2026-01-01T00:00:00Z", "2024-01-01T00:00:00+09:00"))
    drawn: list[pd.DataFrame] = []
    monkeypatch.setattr(plots, "draw_submissions", lambda submissions, _: drawn.append(submissions))
    assert yoyak(monkeypatch) == 0
    assert "12-31 15:00" in capsys.readouterr().out
    assert str(drawn[0]["time"][0]) == "2023-12-31 15:00:00+00:00"


def test_a_picture_that_cannot_be_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("submissions.csv").write_text(HEADER + GOOD)
    Path("plots/submissions.png").mkdir(parents=True)
    assert yoyak(monkeypatch) == 1
    assert capsys.readouterr().err == "error: plots/submissions.png: cannot be written: Is a directory\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("add", "no.csv", "--public", "47"), "no.csv: no such file"),
        (("add", "other.csv", "--public", "47"), "other.csv: column 'fname' is missing"),
    ],
)
def test_nothing_wrong_is_noted(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    Path("other.csv").write_text("a,b\n1,2\n")
    assert yoyak(monkeypatch, *arguments) == 1
    assert f"error: {told}" in capsys.readouterr().err
    assert not Path("submissions.csv").exists()


def test_the_history_is_kept_in_git_and_its_picture_is_not(tmp_path: Path) -> None:
    project = new_project(tmp_path / "project", dict.fromkeys(("train", "dev", "test"), 1))
    (project.root / "sent.csv").write_text("fname,summary\ntest_0,비가 온다.\n", encoding="utf-8")
    project.commit("a submission")
    project.run("yoyak", "submissions", "add", "sent.csv", "--public", "47.1")
    project.run("yoyak", "submissions")
    assert (project.root / "plots/submissions.png").exists()
    assert project.run("git", "status", "--short", "--untracked-files=all").stdout == "?? submissions.csv\n"
