"""Analysers give the tokens that others get from them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mecab import MeCab
from project import ROOT
from sample import sample_texts

from yoyak.core.errors import UserError
from yoyak.core.text import TAG
from yoyak.metrics.morphemes import PACKAGES, Packages, Tokenizer, around_tags, describe, morphemes, require

EXAMPLE = "호킨스 의사는 매년 건강검진을 받는 것을 권장합니다."
"""The organisers' own, with its morphemes: the baseline's page shows them."""
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java here")

OF_THE_EXAMPLE = {
    "mecab": "호킨스 의사 는 매년 건강 검진 을 받 는 것 을 권장 합니다 .",
    "kiwi": "호킨스 의사 는 매년 건강 검진 을 받 는 것 을 권장 하 ᆸ니다 .",
    "char": "호 킨 스 의 사 는 매 년 건 강 검 진 을 받 는 것 을 권 장 합 니 다 .",
    "whitespace": "호킨스 의사는 매년 건강검진을 받는 것을 권장합니다.",
}
OF_JAVA = {
    "okt": "호킨스 의사 는 매년 건강검진 을 받는 것 을 권장 합니다 .",
    "komoran": "호킨스 의사 는 매년 건강 검진 을 받 는 것 을 권장 하 ㅂ니다 .",
    "kkma": "호 킨스 의사 는 매년 건강 검진 을 받 는 것 을 권장 하 ㅂ니다 .",
}


@pytest.mark.parametrize("tokenizer", OF_THE_EXAMPLE)
def test_the_organisers_example(tokenizer: Tokenizer) -> None:
    assert " ".join(morphemes(EXAMPLE, tokenizer)) == OF_THE_EXAMPLE[tokenizer]


@needs_java
@pytest.mark.parametrize("tokenizer", OF_JAVA)
def test_the_organisers_example_by_analysers_on_java(tokenizer: Tokenizer) -> None:
    assert " ".join(morphemes(EXAMPLE, tokenizer)) == OF_JAVA[tokenizer]


TAGS = "#Person1#은 #Person2#와 #Person3#에게는 #Email#로 쓴다. #Person1##Person2#의 집. 철수는 홍길동이다."
OF_TAGS = {
    "kiwi": "#Person1# 은 #Person2# 와 #Person3# 에게 는 #Email# 로 쓰 ᆫ다 . #Person1# #Person2# 의 집 .",
    "okt": "#Person1# 은 #Person2# 와 #Person3# 에게는 #Email# 로 쓴다 . #Person1# #Person2# 의 집 .",
}


@pytest.mark.parametrize("tokenizer", ["kiwi", *(pytest.param(each, marks=needs_java) for each in OF_JAVA)])
def test_a_tag_is_one_token_and_its_particle_another(tokenizer: Tokenizer) -> None:
    tokens = morphemes(TAGS, tokenizer)
    if tokenizer in OF_TAGS:
        assert " ".join(tokens).startswith(OF_TAGS[tokenizer])
    assert [token for token in tokens if "#" in token] == re.findall(r"#\w+#", TAGS)
    for tag, particles in (("#Person2#", ("와",)), ("#Person3#", ("에게", "에게는")), ("#Email#", ("로",))):
        assert tokens[tokens.index(tag) + 1] in particles


def test_mecab_counts_tags_as_the_competition_does() -> None:
    assert morphemes("#Person1#은") == ("#", "Person", "1", "#", "은")


@given(st.lists(st.sampled_from(["#Person1#", "철수", "홍길동", "은", " ", "집", "#", "."]), max_size=8).map("".join))
def test_tags_by_any_analyser(text: str) -> None:
    """One that joins names with what follows, too."""
    for analyse in (str.split, list, lambda text: re.findall(r"\w+|[^\w\s]", text)):
        tokens = around_tags(text, analyse)
        assert "".join(tokens) == text.replace(" ", "") or analyse is list
        assert [token for token in tokens if TAG.fullmatch(token)] == TAG.findall(text)


def test_mecab_is_konlpys(tmp_path: Path) -> None:
    """On all of the sample data. In a process of its own: konlpy's engine wants another name than it has."""
    texts = sample_texts()
    assert len(texts) > 550
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/konlpy_mecab.py", tmp_path / "texts.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / ".cache/mecab-ko")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [list(morphemes(text)) for text in texts] == json.loads(done.stdout)


def test_mecab_is_its_librarys_own() -> None:
    library = MeCab()
    assert all(list(morphemes(text)) == library.morphs(text) for text in sample_texts())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), (" \n", ""), ("비가\0온다", "비 가 온다"), ("비가\ud800 온다", "비 가 온다"), ("\ud800", "")],
)
def test_odd_text(text: str, expected: str) -> None:
    assert " ".join(morphemes(text)) == expected


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=())), st.sampled_from(["mecab", "kiwi", "char", "whitespace"]))
def test_any_text_has_tokens(text: str, tokenizer: Tokenizer) -> None:
    tokens = morphemes(text, tokenizer)
    assert all(tokens)
    assert tokens or not any(letter.isalnum() for letter in text)


@needs_java
@pytest.mark.parametrize(
    "text", ["", " ", ".", "\0", "\ud800", "비가 온다 😀", "ㅋㅋ", "\u2028", "a\tb\nc", "ﷺ", "\u200b"]
)
@pytest.mark.parametrize("tokenizer", OF_JAVA)
def test_analysers_on_java_read_odd_text(text: str, tokenizer: Tokenizer) -> None:
    assert isinstance(morphemes(text, tokenizer), tuple)


def test_each_says_what_it_is() -> None:
    assert describe("mecab") == {
        "tokenizer": "mecab",
        "tokenizer_version": "python-mecab-ko 1.3.7",
        "dictionary": "python-mecab-ko-dic 2.1.1.post2",
    }
    assert describe("kiwi")["dictionary"] == "kiwipiepy-model 0.24.0"
    assert describe("okt")["tokenizer_version"] == "konlpy 0.6.0"
    assert describe("char")["tokenizer"] == "char"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "kiwi", Packages("kiwipiepy-absent", "kiwipiepy"))
    with pytest.raises(UserError, match=r"the tokenizer kiwi needs the package kiwipiepy-absent; `pip install"):
        require("kiwi")


def test_a_missing_java_is_one_line(tmp_path: Path) -> None:
    """No JVM is found where neither JAVA_HOME nor the usual folders have one: here, in an empty root of its own."""
    code = (
        "import jpype\n"
        "def none(*_): raise jpype.JVMNotFoundException('none')\n"
        "jpype.getDefaultJVMPath = none\n"
        "from yoyak.metrics.morphemes import require\n"
        "from yoyak.core.errors import exits_with_one_line\n"
        "exits_with_one_line(lambda: require('okt'))()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert "okt runs on Java, and none is installed" in line
