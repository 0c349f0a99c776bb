"""`yoyak serve`: the page as a reader sees it, in a real browser."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from project import Project
from typed_summaries import DIALOGUE, summarize

from yoyak.core.records import Candidate, Prediction
from yoyak.serving import web
from yoyak.serving.summarizer import Summaries

NAMES = ["llama32_3b", "bart_mini", "ensemble"]
A_MINUTE = 60_000
"""In milliseconds: models are loaded while the reader waits."""


@pytest.fixture(scope="module")
def address(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that was started as a user starts it."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            ["yoyak", "serve", "--port", str(port)],
            cwd=reproduced.root,
            # Whatever gradio asks for beyond this machine gets no answer.
            env=reproduced.environment() | {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(log, f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
        assert "Traceback" not in log.read_text()
    finally:
        server.terminate()
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(log: Path, text: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        if text in log.read_text():
            return
        try:
            server.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(log.read_text())


@pytest.fixture
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """The page, which asks nobody but its own server."""
    window = browser.new_page()
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.goto(address)
    yield window
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    window.close()


def ask(window: Page, dialogue: str) -> None:
    window.locator("#dialogue textarea").fill(dialogue)
    window.locator("#summarize").click()


def summary(window: Page, model: str) -> str:
    card = window.locator(f".card[data-model={model}] .summary")
    expect(card).to_be_visible(timeout=A_MINUTE)
    return str(card.text_content())


def test_the_page_says_what_the_command_says(opened: Page, reproduced: Project) -> None:
    ask(opened, DIALOGUE)
    shown = {name: summary(opened, name) for name in NAMES}
    printed = {name: summarize(reproduced, "-", "--model", name, stdin=DIALOGUE).stdout for name in NAMES}
    assert {name: f"{text}\n" for name, text in shown.items()} == printed
    assert opened.locator(".card h2").all_inner_texts() == ["llama32_3b", "bart_mini", "앙상블"]
    others = opened.locator(".card[data-model=bart_mini] details")
    others.locator("summary").click()
    expect(others.locator("li")).to_have_count(3)


def test_the_models_that_were_chosen_answer(opened: Page) -> None:
    opened.locator("#models").get_by_label("llama32_3b").uncheck()
    opened.locator("#models").get_by_label("앙상블").uncheck()
    opened.locator("#example").click()
    expect(opened.locator("#dialogue textarea")).to_have_value(web.EXAMPLE)
    opened.locator("#summarize").click()
    assert summary(opened, "bart_mini")
    expect(opened.locator(".card")).to_have_count(1)


def test_errors_are_a_line_in_the_page(opened: Page) -> None:
    ask(opened, " \n")
    expect(opened.get_by_role("alert")).to_have_text(
        "대화가 비어 있습니다. 대화를 붙여 넣거나 예시 대화를 눌러 주세요.", use_inner_text=True
    )
    for box in opened.locator("#models input").all():
        box.uncheck()
    ask(opened, DIALOGUE)
    expect(opened.get_by_role("alert")).to_have_text("모델을 하나 이상 골라 주세요.", use_inner_text=True)


def test_the_page_is_switched_to_english_and_back(opened: Page) -> None:
    """All of it, what was there and what comes; it is remembered."""
    expect(opened.locator("#summarize")).to_have_text("요약하기")
    korean = opened.locator("body").inner_text()
    opened.locator("#language").click()
    opened.locator("#example").click()
    shown = opened.locator("body").inner_text()
    assert not re.search("[가-힣]", shown.replace("한국어", "")), shown
    for text in ("Summaries", "Dialogue", "One turn per line", "Models", "ensemble", "Example", "Summarise"):
        assert text in shown
    for box in opened.locator("#models input").all():
        box.uncheck()
    ask(opened, DIALOGUE)
    expect(opened.get_by_role("alert")).to_have_text("Choose at least one model.", use_inner_text=True)
    opened.reload()
    expect(opened.locator("#summarize")).to_have_text("Summarise")
    opened.locator("#language").click()
    expect(opened.locator("#summarize")).to_have_text("요약하기")
    assert opened.locator("body").inner_text() == korean


def test_what_a_model_says_is_no_html() -> None:
    candidate = Candidate(text="#Person1#은 <b>1 & 2</b>를 산다.", log_probability=-0.5, finished=False)
    row = Prediction(fname="a", text=candidate.text, candidates=(candidate,), faults=("truncated",))
    made = web.card(Summaries("bart_mini", [row], shortened=1))
    assert "&lt;b&gt;1 &amp; 2&lt;/b&gt;" in made
    for shown in ("끝맺지 못함", "덜어 냄", "−0.50", 'class="tag person1"'):
        assert shown in made


def test_a_port_that_is_taken(reproduced: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = reproduced.run("yoyak", "serve", "--port", str(port), check=False)
    assert done.returncode == 1
    assert f"error: port {port} of 127.0.0.1 is taken; choose another with --port\n" in done.stdout
    assert "Traceback" not in done.stdout
