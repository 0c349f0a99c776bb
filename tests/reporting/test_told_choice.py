"""What is told of a learned choice: in the terminal, and on the report's page."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from project import ROOT
from world import World, write_world

from yoyak.core.records import read_json
from yoyak.evaluation import written
from yoyak.reporting import console, html


@pytest.fixture(scope="module", params=[True, False], ids=["worth it", "not worth it"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose rescorers hear how good a candidate is, or do not."""
    root = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(root)
        write_world(World(0, hear=request.param), ["a", "b"], rows=40)
        for stage in ("score", "ensemble"):
            runpy.run_path(str(ROOT / f"stages/{stage}.py"), run_name="__main__")
    return root


def report_of(run: Path) -> Any:
    return read_json(run / "metrics/ensemble.json")


def test_readers_know_what_the_stage_writes(run: Path) -> None:
    report = report_of(run)
    known = written.Learned.model_validate(report["learned"])
    assert set(report["learned"]) - set(known.model_fields_set) == {"sharpness"}
    assert report["oracle"]["dev"] > known.dev.learned


def test_the_leaderboard_tells_what_was_learned_and_what_it_is_worth(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    console.print_run(run)
    told, report = capsys.readouterr().out, report_of(run)
    learned = report["learned"]
    name = "the learned choice" if learned["worth_it"] else "MBR"
    assert learned["worth_it"] == (report["used"] == "learned")
    over = learned["delta_over_mbr"]
    assert f"the learned choice over MBR, on dev and 40 rows of train out of fold: {over['rouge_mean']:.2f} [" in told
    assert (
        f"{name} over the best member, on dev and 40 rows of train out of fold: {report['delta']['rouge_mean']:.2f} ["
        in told
    )
    assert re.search(
        rf"so the ensemble is {'the best member alone' if report['used'] == 'best' else name}$", told, re.M
    )
    assert f"only the references tell: {report['oracle']['dev']:.2f}" in told
    assert console.what_was_learned(learned) in " ".join(told.split())
    assert f"learned {learned['out_of_fold']['learned']:.2f}, best candidate of each row" in told
    assert "rescorers: a, b." in told
    table = told[told.index("What the choice goes by") :]
    points = [float(points) for points in re.findall(r"^[a-z_]+ +([+-][0-9.]+) *$", table, re.M)]
    assert len(points) == len(learned["points_a_deviation"])
    assert [abs(value) for value in points] == sorted(map(abs, points), reverse=True)


def test_the_page_tells_it_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    html.write(tmp_path / "report.html")
    page, learned = (tmp_path / "report.html").read_text(), report_of(run)["learned"]
    section = page[page.index('<section id="-choice">') :]
    section = section[: section.index("</section>")]
    for name, points in learned["points_a_deviation"].items():
        assert f'<th scope="row">{name.replace("_", " ")}</th><td>{points:+.2f}</td>' in section
    assert console.what_was_learned(learned) in section
    assert '<a href="#-choice">choice</a>' in page


def test_a_run_without_it_has_no_such_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_world(World(0, hear=True), [], rows=12, strategy="mbr")
    for stage in ("score", "ensemble"):
        runpy.run_path(str(ROOT / f"stages/{stage}.py"), run_name="__main__")
    html.write(Path("report.html"))
    assert "-choice" not in Path("report.html").read_text()
    assert "which only the references tell" in Path("report.html").read_text()
