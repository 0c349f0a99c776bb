"""Who speaks is read from the labels that people and corpora write; what only looks like one is not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yoyak.core.speakers import speakers
from yoyak.data.dialogues import turns

LABELS = {
    "letters": ["A:", "B:", "C："],
    "syllables": ["가:", "나:", "갑 :"],
    "numbered speakers": ["화자1:", "화자2:", "화자 3："],
    "AIHub's": ["P01:", "P02:", "P10:"],
    "the national institute's": ["SD2000001:", "SD2000002:"],
    "English": ["Speaker 1:", "Speaker_02:", "User1:", "SPEAKER3:"],
    "tags of other names": ["#사람1#:", "#Person 1#:", "#Alex#:", "#person2#：", "# Person3 #:"],
    "tags without a colon": ["#Person1#", "#Person2#", "#Person 3#", "#사람1#"],
    "speakers without a colon": ["화자1", "화자2"],
    "names": ["철수:", "영희 :", "김 과장:", "Mr. Kim:", "민수(남)：", "SPEAKER A:"],
    "brackets": ["[화자1]", "[화자2]", "[A]", "<B>", "【C】:"],
    "a messenger's": ["[철수] [오후 3:12]", "[영희] [오후 3:13]"],
    "bold": ["**철수:**", "**영희**:", "__A:__", "***화자1***："],
    "after a bullet or a time": ["- 철수:", "* 영희:", "3. A:", "[00:12] 화자1:", "오후 3:12 철수:", "> 민수:"],
}
WORDS = [
    "네.",
    "10:30에 봐",
    "https://a.kr 봐",
    "3:1로 이겼어",
    "#Email#: 도",
    "참고: 이거",
    "C:\\Users 있어",
    "ㅋㅋ :)",
]
NO_LABELS = [
    "10:30에 만나",
    "오전 10:30에 만나",
    "오후3:05",
    "3:1로 이겼어",
    "비율 3:1",
    "스코어2:0",
    "https://a.kr",
    "http://b.kr/c:d",
    "C:\\Users",
    "D:/work",
    "안녕 :)",
    "안녕:D",
    "그래서 말인데, 내일: 어때",
    "#Person1#은 온다",
    "#PhoneNumber#: 로",
    "(웃음) 그래",
    "2024-01-02 03:04",
    "1.5배야",
    "",
]


def name(label: str) -> str:
    """As `speakers` gives it."""
    label = label.replace("*", "").replace("__", "").rstrip(":： ").removeprefix(" ")
    for lead in ("- ", "> ", "3. ", "[00:12] ", "오후 3:12 "):
        label = label.removeprefix(lead)
    return label.split(" [오후")[0]


@settings(max_examples=50)
@pytest.mark.parametrize("kind", LABELS)
@given(st.data())
def test_labels_of_each_kind(kind: str, data: st.DataObject) -> None:
    lines = data.draw(
        st.lists(st.tuples(st.sampled_from(LABELS[kind]), st.sampled_from(WORDS)), min_size=2, max_size=8)
    )
    cleaned = turns("\n".join(f"{label} {words}" for label, words in lines))
    assert len(cleaned) == len(lines)
    assert speakers("\n".join(cleaned)) == {name(label) for label, _ in lines}
    assert [turn.split()[-1] for turn in cleaned] == [words.split()[-1] for _, words in lines]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(NO_LABELS), min_size=1, max_size=8))
def test_what_is_no_label(lines: list[str]) -> None:
    cleaned = turns("\n".join(lines))
    assert speakers("\n".join(cleaned)) == set()
    assert cleaned == [line for line in lines if line]


@pytest.mark.parametrize(
    ("dialogue", "expected"),
    [
        ("1. 가\n2. 나\n3. 다", set()),
        ("1. 가\n2. 나\n1. 다", {"1.", "2."}),
        ("1 : 가\n2 : 나\n1 : 다", {"1", "2"}),
        ("참고: 가\n안녕\n그래", set()),
        ("화자1: 가\n사회자: 나\n화자2: 다", {"화자1", "사회자", "화자2"}),
        ("화자1: 가\n라\n참고: 나\n화자2: 다", {"화자1", "화자2"}),
        ("상담원: 가\n그리고\n고객: 나\n상담원: 다", {"상담원", "고객"}),
        ("A: 혼잣말", set()),
        ("#Person1#: 가\nA: 나", {"#Person1#"}),
        ("#Person1#: 가\n#Alex#: 나", {"#Person1#", "#Alex#"}),
    ],
)
def test_how_much_must_agree(dialogue: str, expected: set[str]) -> None:
    assert speakers("\n".join(turns(dialogue))) == expected
