"""`yoyak report`: the file as a reader sees it, in a real browser, without a server."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect
from project import Project
from written_run import large_run, write_run

from yoyak.core.errors import UserError
from yoyak.core.params import write_yaml
from yoyak.core.records import Reference
from yoyak.reporting import parameters
from yoyak.reporting.console import print_run
from yoyak.reporting.page import embedded

HOSTILE = (
    "</script><script>window.harmed = 1</script><!--<script>",
    "<img src=x onerror='window.harmed = 1'> \"quotes\" & 'more' {{ 7 * 7 }}",
    "줄\u2028바꿈\u2029 😀 가족 👨‍👩‍👧 `${window.harmed = 1}`",
)
ODD_NAME = 'a "b" <i>%#\''
NAMES = [*(f"dev_{place}" for place in range(11)), ODD_NAME]
TOPICS = ["회의 일정", "</datalist><b>주제"]
REFERENCES = [f"#Person1#은 #Person2#에게 {place}번 회의에 오라고 합니다." for place in range(12)]
HEADER = b"split,model,rouge1,rouge2,rougeL,rouge_mean"


def written(root: Path) -> Project:
    """`good` says what the references say, but of the last three rows; `bad` stutters; `odd` is out for harm."""
    references = [
        Reference(fname=name, summaries=(text, text) if place == 1 else (text,), topic=TOPICS[place % 2])
        for place, (name, text) in enumerate(zip(NAMES, REFERENCES, strict=True))
    ]
    dialogues = [[f"#Person1#: {place}번 회의에 오세요." * (place + 1), "#Person2#: 네."] for place in range(12)]
    said = {
        "good": [*REFERENCES[:9], "전혀 다른 말을 한다.", "전혀 다른 말을 한다.", ""],
        "bad": ["회의 회의 회의"] * 12,
        "odd": [HOSTILE[place % 3] for place in range(12)],
    }
    project = write_run(root, dialogues, references, said)
    for model, rate in (("good", 0.0002), ("bad", 0.001), ("odd", 0.0002)):
        training = {
            "model": {"weights": f"local/{model}"},
            "lora": None,
            "training": {"epochs": 3.0, "learning_rate": rate},
        }
        (root / f"data/resolved/{model}").mkdir(parents=True)
        write_yaml(root / f"data/resolved/{model}/training.yaml", training)
    return project


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = written(tmp_path_factory.mktemp("report") / "project")
    assert project.run("yoyak", "report").stdout == "report.html\n"
    return project.root / "report.html"


@pytest.fixture
def open_page(browser: Browser, file: Path) -> Iterator[Callable[..., Page]]:
    """Opens the file; at the end nothing was asked of anybody, no script of a text ran, and no error was thrown."""
    windows: list[Page] = []
    asked: list[str] = []
    thrown: list[str] = []

    def opened(place: str = "", **options: Any) -> Page:
        window = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        windows.append(window)
        window.on("request", lambda request: asked.append(re.split("[#?]", request.url)[0]))
        window.on("pageerror", lambda error: thrown.append(str(error)))
        window.on("console", lambda said: thrown.append(said.text) if said.type == "error" else None)
        window.goto(f"{file.as_uri()}{place}")
        return window

    yield opened
    assert [window.evaluate("window.harmed") for window in windows] == [None] * len(windows)
    assert [url for url in asked if url != file.as_uri() and not url.startswith("data:")] == []
    assert thrown == []
    for window in windows:
        window.close()


def shown(window: Page) -> list[str]:
    """The rows' names, in the order in which they stand."""
    expect(window.locator("#list")).to_have_attribute("aria-busy", "false")
    return window.locator(".row h3").all_text_contents()


def fill(window: Page, **values: str) -> None:
    window.locator("#controls details").evaluate("details => details.open = true")
    for name, value in values.items():
        field = window.locator(f"#controls [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


# The run


def test_the_leaderboard_is_that_of_the_metrics(open_page: Callable[..., Page], file: Path) -> None:
    scores = json.loads((file.parent / "metrics/scores.json").read_text())
    ensemble = json.loads((file.parent / "metrics/ensemble.json").read_text())["ensemble"]
    board = open_page().locator("[id='-dev'] tbody tr").all()
    lines = [" ".join(cell.strip() for cell in row.locator("th, td").all_text_contents()) for row in board]
    assert len(lines) == len(scores["models"]) + 1
    for name, row in (scores["models"] | {"ensemble": ensemble}).items():
        (line,) = (line for line in lines if line.split()[0] == name.removeprefix("baseline/"))
        assert f"{row['rouge_mean']:.2f} [{row['ci95'][0]:.1f}, {row['ci95'][1]:.1f}]" in line
        assert line.endswith("noise") == scores["best"]["delta"].get(name, {}).get("noise", False)


def test_the_page_is_switched_to_korean_and_back(open_page: Callable[..., Page]) -> None:
    """What is the page's own, and nothing of the rows; the link to a row stays."""
    window = open_page("#dev_3")
    english = own_text(window)
    assert set(re.findall("[가-힣]+", english)) <= {"요약", "한국어", "회의", "일정", "주제", "니다"}
    window.locator("#language").click()
    expect(window.locator("html")).to_have_attribute("lang", "ko")
    assert window.url.endswith("?lang=ko#dev_3")
    korean = own_text(window)
    left = re.findall(r"[a-z]+ [a-z]+", re.sub(r"rouge 1.+|</datalist>.+|(normalise|trim|drop).+", "", korean))
    assert left == []
    # A row's figures and texts are the same.
    assert re.findall(r"\d+\.\d\d", korean) == re.findall(r"\d+\.\d\d", english)
    assert window.locator("#controls [name=text]").get_attribute("placeholder") == "대화나 요약의 낱말"
    expect(window.locator(".row.linked h3")).to_have_text("dev_3")
    fill(window, fault="any", order="worst")
    assert shown(window)
    expect(window.locator("#count")).to_have_text(re.compile(r"^대화 12개 중 \d+개$"))
    window.locator("#language").click()
    expect(window.locator("html")).to_have_attribute("lang", "en")
    assert own_text(window) == english


def test_a_reader_of_korean_sees_korean_first(browser: Browser, file: Path) -> None:
    context = browser.new_context(locale="ko-KR")
    window = context.new_page()
    window.goto(file.as_uri())
    expect(window.locator("h2").first).to_have_text("dev의 리더보드")
    window.goto(f"{file.as_uri()}?lang=en")
    expect(window.locator("h2").first).to_have_text("Leaderboard on dev")
    context.close()


def own_text(window: Page) -> str:
    """All that the page says above the rows, beside Matplotlib's pictures."""
    expect(window.locator("#list")).to_have_attribute("aria-busy", "false")
    return "\n".join(
        window.locator(
            "header.top, main > *:not([id='-rows'], [id='-training']), figcaption, [id='-rows'] > h2"
        ).all_inner_texts()
    )


def test_pictures_groups_and_faults(open_page: Callable[..., Page]) -> None:
    window = open_page()
    expect(window.locator(".pictures svg")).to_have_count(2)
    assert "odd" in window.locator(".pictures svg").first.text_content()
    expect(window.locator("[id='-groups'] details")).to_have_count(6)
    repeats = window.locator("[id='-faults'] tbody tr").filter(has_text="bad").locator("td").nth(5)
    expect(repeats).to_have_text("100")


def test_what_post_processing_gains(open_page: Callable[..., Page], file: Path) -> None:
    measured = json.loads((file.parent / "metrics/postprocessing.json").read_text())
    lines = open_page().locator("[id='-postprocessing'] tbody tr").all()
    assert len(lines) == len(measured["rules"]) == 3
    for line, (name, rule) in zip(lines, measured["rules"].items(), strict=True):
        cells = [cell.strip() for cell in line.locator("th, td").all_text_contents()]
        assert cells[:3] == [name.replace("_", " "), "off", str(rule["rows_changed"])]
        assert cells[3] == f"{rule['delta']['rouge_mean']:+.2f}"


def table_of(window: Page, place: str) -> dict[str, list[str]]:
    """Lines of the first table there, by their heading."""
    lines = window.locator(f"{place} table").first.locator("tbody tr").all()
    cells = [[" ".join(cell.split()) for cell in line.locator("th, td").all_text_contents()] for line in lines]
    return {heading: others for heading, *others in cells}


def test_parameters_in_which_models_differ(open_page: Callable[..., Page]) -> None:
    window = open_page()
    assert table_of(window, "[id='-parameters']") == {
        "model.weights": ["–", "local/good", "local/bad", "local/odd"],
        "training.learning_rate": ["0.0002", "0.0002", "0.001", "0.0002"],
    }
    expect(window.locator("[id='-parameters'] .own")).to_have_text(["0.001"])
    rest = table_of(window, "[id='-parameters'] details")
    assert rest["training.epochs"] == ["3"]
    assert rest["scoring.tokenizer"] == ["mecab"]
    assert "training.learning_rate" not in rest


def test_parameters_are_those_that_the_run_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("training: {epochs: 9}\nscoring: {seed: 0}\nnew: 1\n")
    recorded = "{params.yaml: {training: {epochs: 3}, scoring: {seed: 0}}}"
    (tmp_path / "dvc.lock").write_text(f"stages: {{prepare_prompts: {{params: {recorded}}}}}\n")
    found = parameters.of_the_run([])
    assert found == parameters.Parameters(["training.epochs: 3 → 9"], {}, {"training.epochs": "3", "scoring.seed": "0"})


# Errors


def test_errors_by_fault_lead_to_their_rows_and_back(open_page: Callable[..., Page]) -> None:
    window = open_page("#-groups")
    by_fault = table_of(window, "[id='-groups']")
    assert by_fault["repeats"] == ["", "", "12 rows 9.6", ""]
    assert by_fault["empty"] == ["1 row 0.0", "1 row 0.0", "", ""]
    window.locator("[id='-groups'] details").first.locator("tr", has_text="repeats").locator("a").click()
    expect(window.locator("[name=fault]")).to_have_value("repeated")
    assert shown(window) == NAMES
    expect(window.locator("[id='-rows'] h2")).to_be_in_viewport()
    expect(window.locator("[name=model]")).to_have_value("bad")
    # From a model's fault in a row to all rows with it, and back to that row.
    window.evaluate("location.hash = 'dev_9'")
    expect(window.locator(".row.linked h3")).to_have_text("dev_9")
    window.locator(".row.linked .card[data-model=bad] .fault", has_text="no end").click()
    expect(window.locator(".row.linked")).to_have_count(0)
    expect(window.locator("[name=fault]")).to_have_value("no_sentence_end")
    window.go_back()
    expect(window.locator(".row.linked h3")).to_have_text("dev_9")
    window.go_back()
    expect(window.locator("[name=fault]")).to_have_value("repeated")


def test_a_link_into_another_report_shows_what_this_one_has(open_page: Callable[..., Page]) -> None:
    window = open_page("#-rows?model=gone&fault=gone&group=topic: gone&nothing=1")
    assert shown(window) == NAMES


@pytest.mark.parametrize("by", ["by the dialogue's length", "by topic", "by the summary's length"])
def test_groups_lead_to_their_rows(open_page: Callable[..., Page], by: str) -> None:
    window = open_page()
    groups = window.locator("[id='-groups'] details").filter(has=window.locator("summary", has_text=by))
    counted = 0
    for link in groups.locator("a[href*='model=good&']").all():
        line = link.locator("xpath=ancestor::tr")
        own = re.search(r"(\d+) rows?", link.text_content())
        rows = int(own[1] if own else line.locator("td").first.text_content())
        mean = float(link.text_content().split()[-1])
        link.click()
        expect(window.locator("#count")).to_have_text(f"{rows} of 12 dialogues")
        expect(window.locator("[name=model]")).to_have_value("good")
        assert mean_of(window, shown(window)) == pytest.approx(mean, abs=0.11)
        counted += rows
    assert counted == 12


def mean_of(window: Page, names: list[str]) -> float:
    """Mean ROUGE of the model's summaries of these rows."""
    data = json.loads(window.locator("#data").text_content())
    return sum(data["mean"]["good"][data["fname"].index(name)] for name in names) / len(names)


# A row


def test_a_row_has_all_that_was_said_of_it(open_page: Callable[..., Page], file: Path) -> None:
    window = open_page("#dev_3")
    row = window.locator(".row.linked")
    expect(row.locator("h3")).to_have_text("dev_3")
    expect(row).to_be_in_viewport()
    expect(row.locator(".dialogue .turn").last).to_have_text("#Person2#: 네.")
    expect(row.locator(".reference")).to_have_text(REFERENCES[3])
    assert row.locator(".card h4").all_text_contents()[:2] == ["ensemble", "good"]
    good = row.locator(".card[data-model=good]")
    expect(good.locator(".summary")).to_have_text(REFERENCES[3])
    expect(good.locator(".facts")).to_have_text("R-1 100.0R-2 100.0R-L 100.0mean 100.0")
    expect(good.locator(".tag.person2")).to_have_text("#Person2#")
    expect(row.locator(".card[data-model=bad] .fault")).to_have_text(["no end", "repeats"])
    expect(row.locator(".card[data-model=bad] mark").first).to_have_text("회의")
    baselines = row.locator(".baselines")
    expect(baselines.locator(".card").first).not_to_be_visible()
    baselines.locator("> summary").click()
    expect(baselines.locator(".card")).to_have_count(3)


def test_several_references(open_page: Callable[..., Page]) -> None:
    row = open_page("#dev_1").locator(".row.linked")
    expect(row.locator(".reference")).to_have_count(2)


def test_following_a_link_to_a_row_that_is_filtered_out(open_page: Callable[..., Page]) -> None:
    window = open_page()
    fill(window, text="dev_2")
    assert shown(window) == ["dev_2"]
    window.evaluate("location.hash = 'dev_7'")
    expect(window.locator(".row.linked h3")).to_have_text("dev_7")
    expect(window.locator(".row.linked")).to_be_in_viewport()
    assert len(shown(window)) == 12


def test_a_link_is_the_row_s_name_whatever_it_is(open_page: Callable[..., Page]) -> None:
    window = open_page()
    window.locator(".row h3 a").last.click()
    expect(window.locator(".row.linked h3")).to_have_text(ODD_NAME)


def test_texts_stay_texts(open_page: Callable[..., Page]) -> None:
    window = open_page()
    for place, text in enumerate(HOSTILE):
        window.evaluate("name => location.hash = name", f"dev_{place}")
        summary = window.locator(".row.linked .card[data-model=odd] .summary")
        expect(summary).to_be_visible()
        assert summary.text_content() == text
    assert window.locator("#topics option").evaluate_all("all => all.map(each => each.value)") == sorted(TOPICS)
    expect(window.locator(".row img, .row b b, .row script")).to_have_count(0)


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists) | st.text("<>/!-scriptSCRIPT&\u2028\u2029\"'\\ "))
def test_whatever_is_embedded_comes_out_and_ends_no_script(content: Any) -> None:
    written = embedded(content)
    assert json.loads(written) == content
    assert not set(written) & set("<>&\u2028\u2029\n")


# Looking for rows


def test_sorting(open_page: Callable[..., Page]) -> None:
    window = open_page()
    assert shown(window) == NAMES
    fill(window, model="good", order="worst")
    assert set(shown(window)[:3]) == {"dev_9", "dev_10", ODD_NAME}
    fill(window, order="best")
    assert shown(window)[:9] == NAMES[:9]
    fill(window, order="longest")
    assert shown(window) == NAMES[::-1]
    fill(window, order="shortest")
    assert shown(window) == NAMES
    fill(window, order="disagreement")
    values = [float(value) for value in re.findall(r"disagreement (\d+)", window.locator("#list").inner_text())]
    assert values == sorted(values, reverse=True)
    fill(window, order="file", model="odd")
    window.locator(".row").first.scroll_into_view_if_needed()
    expect(window.locator(".row.filled .card.chosen").first).to_have_attribute("data-model", "odd")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"text": "5번 회의"}, ["dev_5"]),
        ({"text": "전혀 다른"}, ["dev_9", "dev_10"]),
        ({"text": " DEV_1"}, ["dev_1", "dev_10"]),
        ({"topic": "주제"}, NAMES[1::2]),
        ({"model": "good", "scoreFrom": "99"}, NAMES[:9]),
        ({"model": "good", "scoreTo": "99"}, NAMES[9:]),
        ({"model": "good", "fault": "empty"}, [ODD_NAME]),
        ({"model": "bad", "fault": "repeated"}, NAMES),
        ({"model": "bad", "fault": "any", "lengthTo": "60"}, NAMES[:2]),
        ({"disagreementTo": "10"}, []),
    ],
)
def test_filters(open_page: Callable[..., Page], wanted: dict[str, str], names: list[str]) -> None:
    window = open_page()
    fill(window, **wanted)
    assert shown(window) == names
    expect(window.locator("#count")).to_have_text(f"{len(names)} of 12 dialogues")
    window.get_by_role("button", name="Show all").click()
    expect(window.locator("#count")).to_have_text("12 of 12 dialogues")


# Looks


@pytest.mark.parametrize("width", [390, 1280])
def test_no_scrolling_sideways(open_page: Callable[..., Page], width: int) -> None:
    window = open_page("#dev_0", viewport={"width": width, "height": 844})
    expect(window.locator(".row.linked .card").first).to_be_visible()
    assert window.evaluate("document.documentElement.scrollWidth") == width


def test_light_and_dark(open_page: Callable[..., Page]) -> None:
    window = open_page("#dev_0")
    for scheme, ground in (("light", "rgb(246, 248, 250)"), ("dark", "rgb(15, 22, 32)")):
        window.emulate_media(color_scheme=scheme)
        expect(window.locator("body")).to_have_css("background-color", ground)


def test_only_rows_in_sight_are_filled(browser: Browser, tmp_path: Path) -> None:
    """So that a run of any size opens at once; benchmarks/report.py says how fast."""
    project = large_run(tmp_path / "project", rows=510, models=2)
    project.run("yoyak", "report")
    window = browser.new_page()
    window.goto(f"{(project.root / 'report.html').as_uri()}#dev_490")
    expect(window.locator(".row.linked .card[data-model=model_1]")).to_be_in_viewport(ratio=0)
    expect(window.locator(".row")).to_have_count(500)
    assert 1 <= window.locator(".row:has(.card)").count() < 60

    window.get_by_role("button", name="next").first.click()
    assert shown(window) == [f"dev_{place}" for place in range(500, 510)]
    expect(window.locator(".pages").last).to_contain_text("page 2 of 2")
    expect(window.get_by_role("button", name="last").first).to_be_disabled()
    window.evaluate("location.hash = 'dev_3'")
    expect(window.locator(".row.linked h3")).to_have_text("dev_3")
    expect(window.locator("#list")).to_be_in_viewport(ratio=0)

    words = window.locator(".row.linked .reference").text_content()
    fill(window, text=words)
    assert shown(window) == ["dev_3"]
    expect(window.locator(".pages").first).to_be_hidden()
    fill(window, text="이런 말은 없다")
    assert shown(window) == []
    window.close()


# What is missing


@pytest.mark.parametrize(
    "path", ["metrics/scores.json", "scores/rows.csv", "predictions/good/dev.jsonl", "plots/training/bad/epochs.csv"]
)
def test_a_run_that_is_not_whole(file: Path, tmp_path: Path, path: str) -> None:
    project = Project(file.parent).copy(tmp_path / "project")
    (project.root / path).unlink()
    done = project.run("yoyak", "report", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith(f"error: {path}: no such file; run `dvc repro`")
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("metrics/scores.json", b"{}", ": the key 'models' is missing; run `dvc repro`"),
        ("metrics/scores.json", b"[]", ": an object is expected; run `dvc repro`"),
        (
            "metrics/ensemble.json",
            b"null",
            ": an object is expected; run `dvc repro`",
        ),
        ("metrics/postprocessing.json", b"\xff", ", line 1: not UTF-8 (byte 0); run `dvc repro`"),
        ("scores/rows.csv", b"", ": cannot be read as CSV: No columns to parse from file; run `dvc repro`"),
        ("scores/rows.csv", HEADER, ": column 'fname' is missing; run `dvc repro`"),
        (
            "scores/rows.csv",
            HEADER + ",fname\ndev,good,1,2,3,4,회".encode()[:-1],
            ", line 2: not UTF-8 (byte ",
        ),
        ("scores/breakdowns.csv", b"\xff", ", line 1: not UTF-8 (byte 0); run `dvc repro`"),
        ("predictions/good/dev.jsonl", b"\xff", ", line 1: not UTF-8 (byte 0); run `dvc repro`"),
        ("plots/training/bad/epochs.csv", b"epoch,loss\n1,\n", ", row 1, column 'loss': a number is expected"),
        ("params.yaml", b"", ": run: this key is missing"),
        ("params.yaml", b"run:\n  averaged:\n", ": run.models: this key is missing"),
    ],
)
def test_a_spoilt_file_is_named_and_the_report_kept(
    file: Path, tmp_path: Path, path: str, content: bytes, told: str
) -> None:
    project = Project(file.parent).copy(tmp_path / "project")
    (project.root / path).write_bytes(content)
    done = project.run("yoyak", "report", check=False)
    assert done.stdout.startswith(f"error: {path}{told}")
    assert done.stdout.count("\n") == 1
    assert (project.root / "report.html").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("metrics/scores.json", "{}", "the key 'models' is missing"),
        ("metrics/scores.json", "[]", "an object is expected"),
        ("metrics/ensemble.json", "null", "an object is expected"),
        ("metrics/postprocessing.json", "{}", "the key 'rules' is missing"),
    ],
)
def test_the_leaderboard_names_a_spoilt_file(file: Path, tmp_path: Path, path: str, content: str, told: str) -> None:
    shutil.copytree(file.parent / "metrics", tmp_path / "metrics")
    (tmp_path / path).write_text(content)
    with pytest.raises(UserError) as error:
        print_run(tmp_path)
    assert str(error.value) == f"{tmp_path / path}: {told}; run `dvc repro`"


def test_a_folder_in_the_reports_place(file: Path, tmp_path: Path) -> None:
    project = Project(file.parent).copy(tmp_path / "project")
    (project.root / "report.html").unlink()
    (project.root / "report.html").mkdir()
    done = project.run("yoyak", "report", check=False)
    assert done.stdout == "error: report.html: cannot be written: Is a directory\n"
    assert not (project.root / "report.html.half").exists()


def test_without_the_ensemble(file: Path, tmp_path: Path) -> None:
    project = Project(file.parent).copy(tmp_path / "project")
    for name in ("ensemble", "postprocessing"):
        (project.root / f"metrics/{name}.json").unlink()
    shutil.rmtree(project.root / "ensemble")
    project.run("yoyak", "report")
    assert '"ensemble"' not in (project.root / "report.html").read_text()
