"""English or Korean, as the user reads; what is pasted into an issue stays English."""

import io
import re
import runpy
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from project import ROOT, Project
from rich.cells import cell_len
from rich.console import Console

from yoyak.core import language
from yoyak.reporting import console
from yoyak.submission.history import Submission

messages = SimpleNamespace(**runpy.run_path(str(ROOT / "docs/generate/messages.py")))
KOREAN = re.compile("[가-힣]")
NOTE = "말투를 바꾸고 온도를 낮춘 뒤에 다시 제출한 파일, 아무것도 고르지 않았다."


@pytest.fixture
def korean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process, as `yoyak --lang ko` has it."""
    monkeypatch.setenv("LANGUAGE", "en")
    language.choose(["--lang", "ko"])
    yield
    language.choose(["--lang", "en"])


def test_the_catalogue_has_all_that_is_said_and_no_more() -> None:
    """`python docs/generate/messages.py` brings it up to date."""
    catalogue = messages.up_to_date()
    assert messages.faults(catalogue) == []
    assert messages.CATALOGUE.read_bytes() == messages.written(catalogue)
    assert messages.CATALOGUE.with_suffix(".mo").read_bytes() == messages.compiled(catalogue)


def test_translations_are_korean_and_whole_letters() -> None:
    for message in messages.up_to_date():
        text = str(message.string)
        assert text == unicodedata.normalize("NFC", text)
        # `{run} − {other}` has no words.
        words = re.search("[A-Za-z]", messages.PLACEHOLDER.sub("", text))
        assert KOREAN.search(text) or not words or not message.id, text


@pytest.mark.parametrize(
    ("environment", "asked", "is_korean"),
    [
        ({}, "", False),
        ({"LANG": "ko_KR.UTF-8"}, "", True),
        ({"LC_ALL": "ko", "LANG": "C"}, "", True),
        ({"LANG": "en_US.UTF-8"}, "--lang=ko", True),
        ({"LANG": "ko_KR.UTF-8"}, "--lang en", False),
        ({"LANG": "fr_FR.UTF-8"}, "", False),
    ],
)
def test_who_decides_on_the_language(
    environment: dict[str, str], asked: str, is_korean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = Project(ROOT).run("yoyak", *asked.split(), "score", "--help").stdout
    assert ("형태소 분석기." in said) == is_korean
    assert ("Morpheme analyser." in said) != is_korean


def test_nothing_of_a_line_is_lost_in_either_language(korean: None) -> None:
    """Whatever the terminal's width: Rich takes letters off where a column is not told to fold."""
    row = Submission(
        time=datetime(2026, 11, 30, tzinfo=UTC), sha256="0" * 64, commit=None, experiment=None, dev=40, public=41,
        private=None, note=NOTE,
    )  # fmt: skip
    for width in range(60, 120):
        printed = io.StringIO()
        Console(file=printed, width=width, color_system=None).print(*console.submissions_tables([row]))
        lines = printed.getvalue().splitlines()
        assert max(map(cell_len, lines)) <= width
        assert "…" not in printed.getvalue()
    assert lines[0].strip() == "제출 기록: 평균 ROUGE, 백분율"


def test_an_error_stays_as_the_documents_quote_it() -> None:
    said = Project(ROOT).run("yoyak", "--lang", "ko", "score", "missing.csv", "missing.csv", check=False)
    assert (said.returncode, said.stdout[:39]) == (1, "error: missing.csv: no such file; is th")
    assert "'xx' is not one of 'en', 'ko'" in Project(ROOT).run("yoyak", "--lang", "xx", check=False).stdout
