"""What is marked in a text: nothing of it is lost, and only what a reference has is marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yoyak.metrics.morphemes import morphemes, readable
from yoyak.reporting.highlights import PAIR, WORD, pieces, spans

TEXTS = st.text(st.sampled_from("가나은는#Person12 .\n😀e\u2028<&\"'\0\u1100\u1161"), max_size=40) | st.text(
    max_size=20
)


@given(TEXTS, st.lists(TEXTS, max_size=3))
def test_the_text_stays_whole(text: str, references: list[str]) -> None:
    assert "".join(piece[0] for piece in pieces(text, references)) == readable(text)


@given(TEXTS)
def test_every_morpheme_of_mecab_has_its_place(text: str) -> None:
    text = readable(text)
    assert [text[slice(*span)] for span in spans(text, "mecab")] == list(morphemes(text))


@given(TEXTS, TEXTS)
def test_what_is_marked_stands_in_the_reference(text: str, reference: str) -> None:
    for shown, level, *_ in pieces(text, [reference]):
        if level:
            assert set(morphemes(reference)) & set(morphemes(shown)) or shown.strip() in readable(reference)


def test_words_pairs_and_tags() -> None:
    text = "#Person1#은 #Person2#에게  수요일 저녁 😀 방문을 제안합니다."
    assert pieces(text, ["#Person1#은 수요일 저녁 일곱 시에 방문합니다."]) == [
        ("#Person1#", PAIR, "person1"),
        ("은", PAIR),
        (" ", 0),
        ("#Person2#", 0, "person2"),
        ("에게  ", 0),
        ("수요일 저녁", PAIR),
        (" 😀 ", 0),
        ("방문", WORD),
        ("을 제안", 0),
        ("합니다", WORD),
        (".", 0),
    ]


def test_a_pair_stands_in_one_reference() -> None:
    assert pieces("회의 취소", ["회의를 한다.", "예약 취소"]) == [("회의", WORD), (" ", 0), ("취소", WORD)]
    assert pieces("회의 취소", ["회의를 한다.", "그 회의 취소"]) == [("회의 취소", PAIR)]


def test_without_references_only_tags() -> None:
    assert pieces("#PhoneNumber#로 #Person13#이") == [
        ("#PhoneNumber#", 0, "mask"),
        ("로 ", 0),
        ("#Person13#", 0, "person1"),
        ("이", 0),
    ]


def test_forms_that_are_not_letters_of_the_text() -> None:
    """Kiwi's `하` and `었` for `했` are not looked for further on."""
    pytest.importorskip("kiwipiepy")
    text = "민지는 어제 회의를 했다. 수호는 오늘 예약을 취소하고 전화를 하겠다고 한다."
    found = [text[slice(*span)] for span in spans(text, "kiwi")]
    assert found[:5] == ["민지", "는", "어제", "회의", "를"]
    assert {"수호", "오늘", "예약", "취소", "전화"} <= set(found)
