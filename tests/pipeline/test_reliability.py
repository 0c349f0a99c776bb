"""benchmarks/reliability.py kills a run and compares; docs/reliability.md says what it found."""

import json
import random
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Project

RESULTS = [ROOT / f"benchmarks/results/{name}.json" for name in ("reliability", "serve_load")]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])


@pytest.mark.usefixtures("benchmarks")
def test_a_killed_stage_is_compared_with_the_undisturbed_one(reproduced: Project, tmp_path: Path) -> None:
    """What differs is told, too."""
    import sameness
    import trials
    from kills import Duration

    # Its checklist names the commit, which is another by now.
    undisturbed = reproduced.copy(tmp_path / "undisturbed")
    undisturbed.run("dvc", "repro", "--force", "--single-item", "submit")
    trial = trials.killed(undisturbed, tmp_path / "trial", "submit", "group", Duration(0.5, 0.1), random.Random(0))
    assert trial.faults == []
    assert [kill["target"] for kill in trial.kills]
    work = tmp_path / "trial/project"
    (work / "submission/draft.csv").write_text("half")
    (work / "metrics/scores.json").unlink()
    assert sameness.differences(work, undisturbed.root) == [
        "metrics/scores.json: missing",
        "submission/draft.csv: left over",
    ]
    assert sameness.leftovers(work) == ["submission/draft.csv: left over"]


def test_the_page_is_what_the_results_make_of_it() -> None:
    page: dict[str, Any] = runpy.run_path(str(ROOT / "docs/generate/reliability.py"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in RESULTS]
    assert page["document"](*results) == (ROOT / "docs/reliability.md").read_text(encoding="utf-8")


def test_each_file_that_proves_something_is_there() -> None:
    page: dict[str, Any] = runpy.run_path(str(ROOT / "docs/generate/reliability.py"))
    for _, _, paths in page["PROOFS"]:
        assert [path for path in paths if not (ROOT / path).is_file()] == []
