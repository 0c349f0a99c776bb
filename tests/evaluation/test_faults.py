"""Faults of a summary that ROUGE does not see."""

import csv

import pytest
from project import ROOT

from yoyak.evaluation.faults import copied_share, diagnose

DIALOGUE = """#Person1#: 내일 아침 아홉 시에 강남역 앞에서 만나기로 한 것 잊지 않았지?
#Person2#: 물론이지. Jimmy도 온대. 전화는 #PhoneNumber#로 해.
#Person1#: 알았어. 그럼 내일 봐."""


@pytest.mark.parametrize(
    ("summary", "faults"),
    [
        ("#Person1#과 #Person2#는 내일 역 앞에서 만난다.", set()),
        ("두 사람은 Jimmy를 만난다!", set()),
        ("#Person2#는 #PhoneNumber#를 알려 준다.", set()),
        ("그는 “내일 봐.”라고 했다고 “말한다.”", set()),
        ("", {"empty"}),
        (" \n", {"empty"}),
        ("#Person1#은 내일 아침 아홉 시에 강남역 앞에서", {"no_sentence_end"}),
        ("#Person3#은 내일 온다.", {"unknown_tags"}),
        ("#Email#로 연락한다.", {"unknown_tags"}),
        ("두 사람은 especialmente 만난다.", {"foreign_script"}),
        ("두 사람은 ＪＩＭＭＹ를 만난다.", set()),
        ("Person1과 #Person2#는 내일 만난다.", {"unknown_tags"}),
        ("#Person1 은 내일 만난다.", {"unknown_tags"}),
        ("# Person1 #은 내일 만난다.", {"unknown_tags"}),
        ("#Person1#은 #Person1#은 #Person1#은 만난다.", {"repeated"}),
        ("내일 본다 내일 본다.", set()),
        ("#Person1#은 하나 하나 설명한다.", set()),
        ("#Person1#은 천천히 천천히 걷는다.", set()),
        ("한 명 한 명 만난다.", set()),
        ("마을 마을 다닌다.", set()),
        ("빵을 빵을 만난다.", {"repeated"}),
        ("역에서 역에서 만난다.", {"repeated"}),
        ("천천히 천천히 천천히 만난다.", {"repeated"}),
        ("두 사람은 만난다 만난다 만난다.", {"repeated"}),
        ("내일 만나자고 내일 만나자고 말한다.", {"repeated"}),
        ("#Person1#은 #Person2#에게 빵을, #Person1#은 #Person2#에게 책을 준다.", set()),
        ("두 사람은 내일 역 앞에서 보고 두 사람은 내일 역 앞에서 만난다.", {"repeated"}),
        ("기온은 30℃이고 무게는 5㎏, 3ℓ, №3, Ⅱ부, 30°C이다.", set()),
        ("속도는 10㎞/h, 두께는 10µm, 전력은 3㎾h이다.", set()),
        ("속도는 10㎞per이다.", {"foreign_script"}),
        ("요약: 내일 만난다.", {"labelled"}),
        ("대화 요약: 내일 만난다.", {"labelled"}),
        ("**요약**: 내일 만난다.", {"labelled"}),
        ("**대화 요약:** 내일 만난다.", {"labelled"}),
        ("[대화 요약] 내일 만난다.", {"labelled"}),
        ("【요약】내일 만난다.", {"labelled"}),
        ("## 요약 내일 만난다.", {"labelled", "unknown_tags"}),
        ("요약\n내일 만난다.", {"labelled"}),
        ("다음은 대화의 요약입니다: 내일 만난다.", {"labelled"}),
        ("다음은 대화 요약입니다. 내일 만난다.", {"labelled"}),
        ("네, 대화를 요약해 드리겠습니다. 내일 만난다.", {"labelled"}),
        ("대화를 요약하면 다음과 같습니다. 내일 만난다.", {"labelled"}),
        ("답변: 내일 만난다.", {"labelled"}),
        ("### 답변: 내일 만난다.", {"labelled", "unknown_tags"}),
        ("핵심 내용: 내일 만난다.", {"labelled"}),
        ("assistant\n내일 만난다.", {"labelled", "foreign_script"}),
        ("내일 만난다. [Question]", {"labelled", "no_sentence_end", "foreign_script"}),
        ("#Person1#: 내일 만난다.", {"labelled"}),
        ("내일 만난다. (65자)", {"labelled", "no_sentence_end"}),
        ("내일 만난다. [1] 시작: 내일 본다.", {"labelled"}),
        ("'요약'을 부탁한다.", set()),
        ("<요약 보고서>를 쓴다.", set()),
        ("두 사람은 회의 내용을 요약한다.", set()),
        ("내일 만난다. 다음은 요약입니다.", set()),
        ("답은 내일이다.", set()),
        ("내일 (3명) 만난다.", set()),
        ("내일 본다. 내일 본다.", {"repeated"}),
        (".", set()),
        ("두 사람은 明日 만난다.", {"foreign_script"}),
        ("두 사람은 あした 만난다.", {"foreign_script"}),
        ("두 사람은 завтра 만난다.", {"foreign_script"}),
        ("두 사람은 내일 본다 두 사람은 내일 본다.", {"repeated"}),
        ("내일 아침 아홉 시에 강남역 앞에서 만나기로 한 것 잊지 않았지?", {"copied"}),
    ],
)
def test_each_fault(summary: str, faults: set[str]) -> None:
    diagnosis = diagnose(summary, DIALOGUE)
    assert {fault for fault, found in diagnosis._asdict().items() if found} == faults


def test_latin_is_foreign_where_the_dialogue_has_none() -> None:
    """Person tags and masks aside, for they are in every one."""
    korean = "#Person1#: 내일 봐.\n#Person2#: #PhoneNumber#로 전화해."
    assert diagnose("두 사람은 내일 bye 한다.", korean).foreign_script
    assert not diagnose("#Person1#은 내일 전화한다.", korean).foreign_script


@pytest.mark.parametrize("label", ["Person1", "#Person 1#", "# Person1 #"])
def test_the_dialogues_own_labels_are_known(label: str) -> None:
    dialogue = f"{label}: 내일 봐.\n{label.replace('1', '2')}: 그래."
    assert not diagnose(f"{label}은 내일 온다.", dialogue).unknown_tags
    assert diagnose(f"{label.replace('1', '3')}은 내일 온다.", dialogue).unknown_tags


@pytest.mark.parametrize("summary", ["Summary: they meet.", "Here is a summary of the dialogue: 만난다."])
def test_labels_in_english(summary: str) -> None:
    assert diagnose(summary, None).labelled


def test_without_a_dialogue_only_what_needs_none() -> None:
    diagnosis = diagnose("#Person9#은 明日 온다", None)
    assert diagnosis.no_sentence_end
    assert (diagnosis.copied, diagnosis.unknown_tags, diagnosis.foreign_script) == (None, None, None)


def test_an_empty_dialogue_is_not_known() -> None:
    assert diagnose("#Person9#은 온다.", " ").unknown_tags is None


def test_copied_share() -> None:
    turn = "내일 아침 아홉 시에 강남역 앞에서 만나기로 한 것 잊지 않았지?"
    assert copied_share(turn, DIALOGUE) == 1
    assert copied_share("전혀 다른 이야기를 길게 늘어놓는 문장입니다.", DIALOGUE) == 0
    half = f"{turn} 이것은 대화에 없는 이야기로서 새로 지어낸 것이며 길기도 합니다."
    assert 0.4 < copied_share(half, DIALOGUE) < 0.7
    assert not diagnose(half, DIALOGUE).copied
    assert diagnose(f"{turn} 그렇습니다.", DIALOGUE).copied
    assert copied_share("", DIALOGUE) == copied_share(".", "") == 0


def test_references_have_no_faults() -> None:
    """Of the sample's 224 train and dev references: what flags them would flag good summaries."""
    found = []
    for split in ("train", "dev"):
        with (ROOT / f"data/sample/{split}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found += [fault for fault, has in diagnose(row["summary"], row["dialogue"])._asdict().items() if has]
    assert found == []
