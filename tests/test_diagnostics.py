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
