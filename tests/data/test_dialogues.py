"""Cleaning keeps every word, and repairs the noise that the competition's rows carry."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoyak.core.records import Dialogue
from yoyak.core.speakers import read, speakers
from yoyak.data.dialogues import clean, turns
from yoyak.data.quality import Quality

WRITTEN_OUT = re.compile(r"(\\+r)?\\+n")

TAGS = ["#Person1#", "#Person2#:", "#Person3# :", "**#Person1#**：", "#PhoneNumber#", "#", ":", "**"]
TAGS += ["\nA:", "\n화자1: ", "\n철수 :", "\n[화자2] ", "\n1. ", "#사람1#:", "\n10:30 ", "\nC:\\"]
LINE_ENDS = ["\n", "\r\n", "\r", "\\n", "<br>", "<br/>", "<BR />", "<br", ">", "\\", "n"]
BLANKS = [" ", "\t", "\u3000", "\u2028", "\x85", "\u200b"]
WORDS = ["각", "ㅋㅋ", "…", "e\u0301", "\u0301"]
PIECES = st.sampled_from(TAGS + LINE_ENDS + BLANKS + WORDS)
NOISY = st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join)
ANY_TEXT = NOISY | st.text()
WITH_WORDS = ANY_TEXT.map(lambda text: f"가{text}")


@settings(max_examples=300)
@given(ANY_TEXT)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = turns(text)
    assert turns("\n".join(once)) == once


@settings(max_examples=300)
@given(WITH_WORDS)
def test_no_character_is_lost(text: str) -> None:
    """But blanks, line ends written out as text, and Markdown round labels. Neither is one added."""
    without_line_ends = re.sub(r"(<br\s*)+/?>", " ", unicodedata.normalize("NFC", text), flags=re.IGNORECASE)
    assert letters("\n".join(turns(text))) == letters(without_line_ends)


def letters(text: str) -> str:
    return "".join(WRITTEN_OUT.sub(" ", text).replace("：", ":").replace("*", "").replace("_", "").split())


@settings(max_examples=300)
@given(ANY_TEXT)
def test_each_turn_after_the_first_has_a_speaker_or_none_has(text: str) -> None:
    cleaned = turns(text)
    labels = read(cleaned)
    assert not any(labels) or all(labels[1:]), cleaned


@settings(max_examples=300)
@given(ANY_TEXT)
def test_a_turn_is_one_trimmed_line(text: str) -> None:
    for turn in turns(text):
        assert turn
        assert turn == " ".join(turn.split())


@given(WITH_WORDS)
def test_cleaning_keeps_the_speakers(text: str) -> None:
    assert speakers("\n".join(turns(text))) >= set(re.findall(r"(#Person\d+#)\s*:", text))


GOLDEN = {
    "blanks before line ends": (
        "#Person1#: 창문 닫았어? \n#Person2#: 응, 방금.  \n#Person1#: 고마워.\t",
        ["#Person1#: 창문 닫았어?", "#Person2#: 응, 방금.", "#Person1#: 고마워."],
    ),
    "line end written out": (
        "#Person1#: 우체국 어디예요?\\n#Person2#: 저 모퉁이요.",
        ["#Person1#: 우체국 어디예요?", "#Person2#: 저 모퉁이요."],
    ),
    "line end of a web page": (
        "#Person1#: 몇 번 버스예요?<br>#Person2#: 7번이요.<br/>#Person1#: 네.<BR />#Person2#: 또 오세요.",
        ["#Person1#: 몇 번 버스예요?", "#Person2#: 7번이요.", "#Person1#: 네.", "#Person2#: 또 오세요."],
    ),
    "speaker in the middle of a line": (
        "#Person1#: 불 껐지? #Person2#: 껐어.#Person1#: 확실해?",
        ["#Person1#: 불 껐지?", "#Person2#: 껐어.", "#Person1#: 확실해?"],
    ),
    "speaker parted from the colon": (
        "#Person1# : 왔니?\n#Person2#\n: 왔어.",
        ["#Person1#: 왔니?", "#Person2#: 왔어."],
    ),
    "a person who is spoken of": (
        "#Person1#: #Person3#은 언제 와?\n#Person2#: #Person3# 지금 온대.",
        ["#Person1#: #Person3#은 언제 와?", "#Person2#: #Person3# 지금 온대."],
    ),
    "a turn of several lines": (
        "#Person1#: 살 것은\n우유,\n빵이야.\n#Person2#: 알겠어.",
        ["#Person1#: 살 것은 우유, 빵이야.", "#Person2#: 알겠어."],
    ),
    "blank lines and Windows line ends": (
        "\r\n#Person1#: 자?\r\n\r\n#Person2#: 아니.\r\n",
        ["#Person1#: 자?", "#Person2#: 아니."],
    ),
    "dots and laughter": (
        "#Person1#: 음… 글쎄ㅋㅋㅋ\n#Person2#: ㅠㅠ...",
        ["#Person1#: 음… 글쎄ㅋㅋㅋ", "#Person2#: ㅠㅠ..."],
    ),
    "masks": (
        "#Person1#: #PhoneNumber#로 걸어 줘.\n#Person2#: #Email#: 도 알려 줘.",
        ["#Person1#: #PhoneNumber#로 걸어 줘.", "#Person2#: #Email#: 도 알려 줘."],
    ),
    "decomposed Hangul": (
        unicodedata.normalize("NFD", "#Person1#: 한글\n#Person2#: 네"),
        ["#Person1#: 한글", "#Person2#: 네"],
    ),
    "other blanks": ("#Person1#:\u3000가\u00a0나\u2028다", ["#Person1#: 가 나 다"]),
    "seven speakers": (
        "\n".join(f"#Person{number}#: 네" for number in range(1, 8)),
        [f"#Person{number}#: 네" for number in range(1, 8)],
    ),
    "no speaker": ("안내 말씀\n드립니다", ["안내 말씀", "드립니다"]),
    "a colon forgotten": ("#Person1#: 왔니?\n#Person2# 왔어.", ["#Person1#: 왔니?", "#Person2# 왔어."]),
    "full-width colon": ("#Person1#： 왔니?\n#Person2#：왔어.", ["#Person1#: 왔니?", "#Person2#:왔어."]),
    "bold": ("**#Person1#:** 왔니?\n**#Person2#**: **왔어.**", ["#Person1#: 왔니?", "#Person2#: **왔어.**"]),
    "a turn of several lines under another label": ("A: 살 것은\n우유,\n빵.\nB: 응", ["A: 살 것은 우유, 빵.", "B: 응"]),
    "speaker of another name in a line": ("#사람1#: 껐지? #사람2#: 껐어.", ["#사람1#: 껐지?", "#사람2#: 껐어."]),
    "labels alone": ("화자1:\n화자2 : ", []),
    "words before the first speaker": ("(전화)\n#Person1#: 네?", ["(전화)", "#Person1#: 네?"]),
    "nothing": (" \n\\n<br>", []),
    "tags alone": ("#Person1#:\n#Person2# : ", []),
    "no width": ("#Person1#: \u200b\ufeff\n\u2060", []),
    "a turn without words among others": ("#Person1#:\n#Person2#: 네", ["#Person1#:", "#Person2#: 네"]),
}


@pytest.mark.parametrize(("text", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden(text: str, expected: list[str]) -> None:
    assert turns(text) == expected


LINE_ENDS_WRITTEN_OUT = {
    "after a sentence": ("#Person1#: 왔니?\\nNo.", ["#Person1#: 왔니? No."]),
    "before a tag": ("#Person1#: ok\\n#Person2#: ok", ["#Person1#: ok", "#Person2#: ok"]),
    "between lines without marks": ("뭐 했어\\n등산\\n그래", ["뭐 했어", "등산", "그래"]),
    "of Windows": ("A: 가.\\r\\nB: 나.", ["A: 가.", "B: 나."]),
    "escaped twice": ("A: 가.\\\\nB: 나.", ["A: 가.", "B: 나."]),
    "several": ("가.\\n\\n나.", ["가.", "나."]),
    "before a capital letter": ("철수: 응\\nAnna: 네", ["철수: 응", "Anna: 네"]),
    "before a quotation": ('가.\\n"나."라고 해', ["가.", '"나."라고 해']),
    "after dots": ("음..\\n나", ["음..", "나"]),
    "between blanks": ("가 \\n 나", ["가", "나"]),
}
NO_LINE_ENDS = [
    "C:\\new\\notes에 있어",
    "D:\\n\\m 폴더",
    "경로는 C:\\work\\notes야",
    "\\\\nas\\share에 올려",
    "기울기는 \\nabla 로 써",
    "f=\\nabla g, \\nu, \\neq",
    "문자열 \\n을 넣어",
    "'\\n'은 줄바꿈이야",
    "정규식 [\\n\\t]",
    "경로는 .\\new야",
    "cd ..\\notes 해 봐",
    "~\\news에 있어",
    'printf("Hello!\\n"); 라고 써',
    "print('끝.\\n')라고 써",
]


@pytest.mark.parametrize(("text", "expected"), LINE_ENDS_WRITTEN_OUT.values(), ids=LINE_ENDS_WRITTEN_OUT)
def test_line_ends_written_out_are_repaired(text: str, expected: list[str]) -> None:
    assert turns(text) == expected


@pytest.mark.parametrize("text", NO_LINE_ENDS)
def test_a_backslash_inside_words_stays(text: str) -> None:
    assert turns(f"#Person1#: {text}\n#Person2#: 네.") == [f"#Person1#: {text}", "#Person2#: 네."]


def row(fname: str, dialogue: str, *summaries: str) -> Dialogue:
    return Dialogue(fname=fname, dialogue=dialogue, summaries=summaries)


def test_quality_report_counts_repairs_leaks_and_duplicates() -> None:
    plain, noisy, other = "#Person1#: 가\n#Person2#: 나", "#Person1#: 가 \n#Person2#: 나", "#Person1#: 다"
    splits = {
        "train": [row("a", plain, "요약"), row("b", noisy, "긴 요약")],
        "dev": [row("c", noisy, "요약"), row("d", other, "요약")],
        "test": [row("e", other)],
    }
    train = Quality()
    quality = {"train": train, "dev": Quality(train.texts), "test": Quality(train.texts)}
    for split, rows in splits.items():
        for each in rows:
            quality[split].add(*clean(each))
    report = {split: counted.report() for split, counted in quality.items()}
    figures = ("rows", "repaired_rows", "rows_in_train_too", "duplicate_dialogues")
    assert [[report[split][key] for key in figures] for split in report] == [[2, 1, 0, 1], [2, 1, 1, 0], [1, 0, 0, 0]]
    assert report["train"]["summary_characters"] == {"median": 3, "p95": 2, "max": 4}
    assert report["test"]["summary_characters"] is None
    assert report["dev"]["speakers"] == {"1": 1, "2": 1}
    assert report["dev"]["turns"]["max"] == 2


@pytest.mark.parametrize(
    "part", ["가\n", "\\", "\\nabla", "C:\\nab ", "<br", "<br ", "#Person1#: ", "가: ", ".a", "1. "]
)
def test_no_text_takes_time_that_grows_with_its_square(part: str) -> None:
    """As long as the page takes it; with a square in it, each of these would take minutes."""
    assert "\n" not in "".join(turns((part * 200_000)[:200_000]))
