"""`yoyak report --all`: all experiments of a real git and DVC repository, as a reader sees them in a real browser."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from playwright.sync_api import Browser, Page, expect
from project import Project, new_project
from written_experiments import back_to_the_commit, repository_of_experiments, try_out
from written_run import NO_ROWS

from yoyak.evaluation import significance
from yoyak.evaluation.leaderboard import BOOTSTRAP_SAMPLES, SEED
from yoyak.reporting.chance import luck, pair_intervals

HOSTILE = "<img src=x onerror=window.harmed=1>"
ROWS = 40


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`alpha` is better in `words`, both may be in `rank`, none is in `harm`; `google` is scored by another rule."""
    project = repository_of_experiments(tmp_path_factory.mktemp("experiments") / "project", ROWS)
    try_out(project, "words", "models.alpha.right=0.7")
    try_out(project, "rank", "lora.r=18")
    try_out(project, "harm", f"prompts.system='{HOSTILE}'")
    try_out(project, "google", "scoring.library=rouge_score")
    back_to_the_commit(project)
    return project


@pytest.fixture(scope="module")
def file(project: Project) -> Path:
    said = project.run("yoyak", "report", "--all").stdout
    assert re.fullmatch(r"reading runs: 6 of 6 runs, [\d.]+ s\nexperiments\.html\n", said)
    return project.root / "experiments.html"


@pytest.fixture
def open_page(browser: Browser, file: Path) -> Iterator[Callable[..., Page]]:
    """Opens the file; at the end nothing was asked of anybody, no script of a text ran, and no error was thrown."""
    windows: list[Page] = []
    asked: list[str] = []
    thrown: list[str] = []

    def opened(**options: Any) -> Page:
        window = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        windows.append(window)
        window.on("request", lambda request: asked.append(request.url.split("#")[0]))
        window.on("pageerror", lambda error: thrown.append(str(error)))
        window.on("console", lambda said: thrown.append(said.text) if said.type == "error" else None)
        window.goto(file.as_uri())
        return window

    yield opened
    assert [window.evaluate("window.harmed") for window in windows] == [None] * len(windows)
    assert [url for url in asked if url.split("?")[0] != file.as_uri() and not url.startswith("data:")] == []
    assert thrown == []
    for window in windows:
        window.close()


def data(file: Path) -> Any:
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', file.read_text())[1])


def titles(window: Page) -> list[str]:
    return window.locator(".runs thead th").all_text_contents()


def names(window: Page) -> list[str]:
    """Runs in the order of the table; a commit by its subject."""
    return [re.sub(r"^[0-9a-f]{7} ", "", name) for name in window.locator(".runs tbody th").all_text_contents()]


def line(window: Page, name: str) -> dict[str, str]:
    cells = window.locator(".runs tbody tr").filter(has=window.locator("th", has_text=name)).locator("th, td")
    return dict(zip(titles(window), cells.all_text_contents(), strict=True))


def sort(window: Page, title: str) -> list[str]:
    window.locator(".runs thead").get_by_role("button", name=title, exact=True).click()
    return names(window)


def option(window: Page, name: str) -> str:
    return window.locator("[name=baseline] option", has_text=name).get_attribute("value") or ""


# Intervals


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 5)), elements=st.floats(0, 100, width=32)))
def test_intervals_of_pairs_are_those_of_their_differences(scores: Any) -> None:
    found = pair_intervals(scores)
    pairs = [(a, b) for a in range(scores.shape[1]) for b in range(a + 1, scores.shape[1])]
    assert found.shape == (len(pairs), 2)
    for (low, high), (a, b) in zip(found, pairs, strict=True):
        difference = (scores[:, a] - scores[:, b])[:, None]
        means = significance.resampled_means(difference, BOOTSTRAP_SAMPLES, SEED)
        assert np.allclose([low, high], significance.interval(means)[0], atol=1e-6)
        assert difference.any() or (low, high) == (0, 0)


def test_luck_of_equal_columns_is_none() -> None:
    rows = np.random.default_rng(0).normal(40, 15, 50)
    assert luck({"a": rows, "b": rows}) == pytest.approx(0, abs=1e-9)


# The page


def test_scores_are_those_that_the_runs_recorded(open_page: Callable[..., Page], project: Project) -> None:
    window = open_page()
    for name in ("words", "rank", "google"):
        for path, key in (("metrics/scores.json", "models"), ("metrics/ensemble.json", "ensemble")):
            found = json.loads(project.run("git", "show", f"refs/exps/{exp_ref(project, name)}:{path}").stdout)
            entries = {"ensemble": found[key]} if key == "ensemble" else found[key]
            for model, row in entries.items():
                if not model.startswith("baseline/"):
                    shown = f"{row['rouge_mean']:.2f} [{row['ci95'][0]:.1f}, {row['ci95'][1]:.1f}]"
                    assert line(window, name)[model] == shown


def exp_ref(project: Project, name: str) -> str:
    refs = project.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").stdout.split()
    (ref,) = (ref for ref in refs if ref.endswith(f"/{name}"))
    return ref.removeprefix("refs/exps/")


def test_differences_and_what_may_be_chance(open_page: Callable[..., Page], project: Project) -> None:
    window = open_page()
    assert set(names(window)) == {"the first run", "words", "rank", "harm", "google"}
    found = {name: f"{line(window, name)['difference']} {line(window, name)['that is']}" for name in names(window)}
    assert found == {
        "words": "+20.26 [15.64, 25.21] better",
        "rank": "+0.58 [0.00, 1.69] noise",
        "harm": "+0.00 [0.00, 0.00] same",
        "google": " not comparable",
        "the first run": " compared with",
    }
    assert re.search(r"ensemble .* \+20\.26 \[15\.6, 25\.2\]", project.run("yoyak", "compare", "HEAD", "words").stdout)


def test_parameters_that_differ(open_page: Callable[..., Page]) -> None:
    window = open_page()
    assert {"lora.r", "models.alpha.right", "prompts.system", "scoring.library"} <= set(titles(window))
    assert "models.beta.right" not in titles(window)
    assert "training.epochs" not in titles(window)
    assert line(window, "rank")["lora.r"] == "18"
    assert line(window, "harm")["prompts.system"] == HOSTILE
    window.locator("[name=text]").fill("lora.r: 16")
    assert set(names(window)) == {"the first run", "words", "harm", "google"}
    assert "lora.r" not in titles(window), "it does not differ between those shown"


def test_sorting(open_page: Callable[..., Page]) -> None:
    window = open_page()
    assert sort(window, "lora.r")[-1] == "rank"
    assert sort(window, "lora.r")[0] == "rank"
    expect(window.locator(".runs th[aria-sort=descending]")).to_have_text("lora.r")
    expect(window.locator(".runs th[aria-sort]")).to_have_count(1)
    assert sort(window, "run") == ["the first run", "google", "harm", "rank", "words"], "a commit by its digits"
    # By the keyboard: the button keeps the focus.
    window.locator(".runs thead").get_by_role("button", name="difference").focus()
    window.keyboard.press("Enter")
    assert names(window)[0] == "words"
    window.keyboard.press("Enter")
    assert names(window)[0] != "words"
    assert set(names(window)[-2:]) == {"the first run", "google"}, "what has no difference comes last"


def test_picking_what_to_compare_with(open_page: Callable[..., Page]) -> None:
    window = open_page()
    before = line(window, "words")["difference"]
    window.locator("[name=baseline]").select_option(option(window, "words"))
    assert line(window, "words")["that is"] == "compared with"
    mean, low, high = re.findall(r"[−+]?[\d.]+", before)
    assert line(window, "the first run")["difference"] == f"−{mean[1:]} [−{high}, −{low}]"
    assert line(window, "the first run")["that is"] == "worse"
    window.locator("[name=score]").select_option("beta")
    assert line(window, "the first run")["that is"] == "same"
    # By a column of the matrix.
    window.locator("[name=score]").select_option("alpha")
    window.locator("#matrix thead button").last.focus()
    window.keyboard.press("Enter")
    expect(window.locator("#matrix thead button").last).to_be_focused()
    assert line(window, "words")["that is"] == "better"
    cell = window.locator("#matrix tbody tr").filter(has_text="words").locator("td.up").last
    assert cell.text_content() == line(window, "words")["difference"].split()[0]
    assert cell.get_attribute("title").endswith(", better")


def test_another_rule_is_not_compared(open_page: Callable[..., Page], project: Project) -> None:
    window = open_page()
    assert line(window, "google")["difference"] == ""
    title = window.locator(".runs tr[data-run=google] span", has_text="not comparable").get_attribute("title")
    assert "google: 40 rows, rouge_score 0.1.2" in title
    assert "google" not in window.locator("#matrix tbody").text_content()
    assert "google" not in window.locator("#picture tbody").text_content()
    window.locator("[name=baseline]").select_option(option(window, "google"))
    assert line(window, "words")["that is"] == "not comparable"
    expect(window.locator("#told")).to_contain_text("there is nothing to compare it with")


def test_what_is_said_of_chance(open_page: Callable[..., Page]) -> None:
    told = open_page().locator("#told").text_content()
    assert "4 runs have 40 rows in common" in told
    assert "3 comparisons" in told
    assert "6 pairs" in told
    assert "The best of 4 equally good ones would seem 1.08 better than their mean by chance" in told
    assert told.endswith("words, is 15.05 better than the mean.")


def test_in_korean_the_same_is_said(open_page: Callable[..., Page]) -> None:
    window = open_page()
    english = window.locator(".runs tbody").inner_text()
    window.locator("#language").click()
    expect(window.locator("h2").first).to_have_text("실행")
    assert titles(window)[:3] == ["실행", "차이", "판정"]
    words = {"better": "나아짐", "worse": "나빠짐", "noise": "잡음", "same": "같음", "compared with": "기준"}
    words |= {"not comparable": "비교 불가", "not read": "읽지 못함", "no rows": "행 없음"}
    for word, korean in words.items():
        english = re.sub(rf"\t{word}\t", f"\t{korean}\t", english)
    assert window.locator(".runs tbody").inner_text() == re.sub(r"(\d+) rows,", r"\1행,", english)
    expect(window.locator("#told")).to_have_text(re.compile("^실행 4개가 40행을 함께 가지고 있고 .* 높다.$"))


def test_the_picture_has_the_best_first(open_page: Callable[..., Page]) -> None:
    lines = open_page().locator("#picture tr")
    expect(lines).to_have_count(4)
    expect(lines.first.locator("th")).to_have_text("words")
    expect(lines.first.locator("circle")).to_have_count(1)


@pytest.mark.parametrize("width", [390, 1280])
def test_no_scrolling_sideways(open_page: Callable[..., Page], width: int) -> None:
    window = open_page(viewport={"width": width, "height": 844})
    expect(window.locator(".runs tbody tr")).to_have_count(5)
    assert window.evaluate("document.documentElement.scrollWidth") == width


# Reading runs


def test_the_workspace_is_there_where_it_is_another_run(project: Project, file: Path, tmp_path: Path) -> None:
    assert [run["name"] for run in data(file)["runs"] if run["kind"] == "workspace"] == []
    changed = project.copy(tmp_path / "project")
    changed.edit(lambda params: params["lora"].update(r=99))
    changed.run("yoyak", "report", "--all")
    assert data(changed.root / "experiments.html") == data(file), "nothing has run with it yet"
    changed.run("dvc", "repro", "--quiet")
    changed.run("yoyak", "report", "--all")
    found = data(changed.root / "experiments.html")
    assert found["runs"][0]["kind"] == "workspace"
    of, values = found["params"]["lora.r"]["of"], found["params"]["lora.r"]["values"]
    assert values[of[0]] == 99


def test_an_experiment_whose_rows_are_gone_is_told(project: Project, file: Path, tmp_path: Path) -> None:
    """And what was read once is not read again, until it is no run any more."""
    project = project.copy(tmp_path / "project")
    commit = project.run("git", "rev-parse", f"refs/exps/{exp_ref(project, 'words')}").stdout.strip()
    lock = project.run("git", "show", f"{commit}:dvc.lock").stdout
    (md5,) = set(re.findall(r"path: scores/rows\.csv\n +hash: md5\n +md5: (\w+)", lock))
    (project.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").unlink()
    kept = project.root / f".cache/read_runs/{commit}.json"
    project.run("yoyak", "report", "--all")
    assert (project.root / "experiments.html").read_bytes() == file.read_bytes()

    kept.unlink()
    project.run("dvc", "exp", "remove", "rank")
    project.run("yoyak", "report", "--all")
    found = data(project.root / "experiments.html")
    (place,) = (place for place, run in enumerate(found["runs"]) if run["name"] == "words")
    assert found["runs"][place]["told"].startswith("words: scores/rows.csv is not in DVC's cache; `dvc fetch")
    assert found["scores"]["ensemble"][place] is not None
    assert not any(place in group["runs"] for group in found["groups"])
    assert len(list(kept.parent.glob("*.json"))) == 3


def test_nothing_to_read(tmp_path: Path) -> None:

    project = new_project(tmp_path / "project", NO_ROWS)
    done = project.run("yoyak", "report", "--all", check=False)
    assert done.returncode == 1
    assert "error: workspace: no metrics/scores.json there; was dvc.lock committed after `dvc repro`?" in done.stdout
    assert not (project.root / "experiments.html").exists()
