"""The sample dialogues are what the README says of them."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import pytest
from project import ROOT

from yoyak.core.speakers import speakers
from yoyak.data.dialogues import turns
from yoyak.metrics.morphemes import morphemes

SAMPLE = ROOT / "data/sample"
SPLITS = ("train", "dev", "test")
MASK = re.compile(r"#(?!Person\d)[A-Za-z]+#")
RUN = 8
"""So many morphemes in a row make two dialogues alike."""


def rows(name: str) -> list[dict[str, str]]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def header(name: str) -> list[str]:
    with (SAMPLE / name).open(encoding="utf-8", newline="") as file:
        return next(csv.reader(file))


@pytest.fixture(scope="module")
def dialogues() -> dict[str, str]:
    """All dialogues by fname."""
    found = [(row["fname"], row["dialogue"]) for split in SPLITS for row in rows(f"{split}.csv")]
    assert len(dict(found)) == len(found), "an fname stands twice"
    return dict(found)


@pytest.fixture(scope="module")
def summaries() -> dict[str, list[str]]:
    """All summaries by fname: three of a test row."""
    single = {row["fname"]: [row["summary"]] for split in ("train", "dev") for row in rows(f"{split}.csv")}
    return single | {
        row["fname"]: [row[f"summary_{number}"] for number in (1, 2, 3)] for row in rows("test_references.csv")
    }


def test_columns_are_the_competitions() -> None:
    assert header("train.csv") == header("dev.csv") == ["fname", "dialogue", "summary", "topic"]
    assert header("test.csv") == ["fname", "dialogue"]
    assert header("sample_submission.csv") == ["", "fname", "summary"]
    assert header("test_references.csv") == ["fname", "summary_1", "summary_2", "summary_3"]


def test_sizes(dialogues: dict[str, str]) -> None:
    assert len(dialogues) >= 200
    for split in SPLITS:
        assert len(rows(f"{split}.csv")) >= 30
        assert all(row["fname"].startswith(f"{split}_") for row in rows(f"{split}.csv"))


def test_submission_and_references_have_the_test_rows() -> None:
    fnames = [row["fname"] for row in rows("test.csv")]
    assert [row["fname"] for row in rows("test_references.csv")] == fnames
    assert [(row[""], row["fname"]) for row in rows("sample_submission.csv")] == [
        (str(number), fname) for number, fname in enumerate(fnames)
    ]


def test_speakers_and_turns(dialogues: dict[str, str]) -> None:
    sizes = {fname: (len(speakers(text)), len(turns(text))) for fname, text in dialogues.items()}
    assert {fname: size for fname, size in sizes.items() if not (2 <= size[0] <= 5 and 4 <= size[1] <= 20)} == {}
    assert {count for count, _ in sizes.values()} == {2, 3, 4, 5}
    assert max(count for _, count in sizes.values()) >= 15


def test_every_turn_has_a_tag(dialogues: dict[str, str]) -> None:
    untagged = [fname for fname, text in dialogues.items() if not turns(text)[0].startswith("#Person1#:")]
    assert untagged == []


def test_who_is_summarised_was_there(dialogues: dict[str, str], summaries: dict[str, list[str]]) -> None:
    for fname, texts in summaries.items():
        named = set(re.findall(r"#Person\d+#", " ".join(texts)))
        assert named <= set(re.findall(r"#Person\d+#", dialogues[fname])), fname


def test_masks_are_of_the_competitions_kind(dialogues: dict[str, str]) -> None:
    masks = Counter(MASK.findall(" ".join(dialogues.values())))
    known = {"PhoneNumber", "Address", "DateOfBirth", "CardNumber", "Email", "CarNumber", "PassportNumber", "SSN",
             "PersonName", "Name"}  # fmt: skip
    assert {mask.strip("#") for mask in masks} <= known
    assert len(masks) >= 5


def test_both_registers(dialogues: dict[str, str], summaries: dict[str, list[str]]) -> None:
    formal = [fname for fname, text in dialogues.items() if re.search(r"(요|니다|니까)[.?!…]", text)]
    casual = [fname for fname, text in dialogues.items() if not re.search(r"(요|니다|니까)[.?!…]", text)]
    assert len(formal) >= len(dialogues) / 5
    assert len(casual) >= len(dialogues) / 5
    texts = list(chain.from_iterable(summaries.values()))
    polite = sum(text.endswith("니다.") for text in texts)
    assert len(texts) / 3 < polite < len(texts) * 0.9
    assert all(text.endswith("다.") for text in texts)


NOISE = {
    "blank before a line end": r"[ \t]\n",
    "literal line end": r"\\n",
    "<br>": r"<br\s*/?>",
    "speaker in the middle of a line": r"[^\n]#Person\d+#:",
    "dots": "…",
    "laughter": "ㅋㅋ",
}


@pytest.mark.parametrize("pattern", NOISE.values(), ids=NOISE)
def test_noise_is_there(dialogues: dict[str, str], pattern: str) -> None:
    assert any(re.search(pattern, text) for text in dialogues.values())


def test_summaries_are_short_and_three_differ(dialogues: dict[str, str], summaries: dict[str, list[str]]) -> None:
    assert set(summaries) == set(dialogues)
    for fname, texts in summaries.items():
        assert all(20 <= len(text) < len("".join(turns(dialogues[fname]))) for text in texts), fname
        assert all("\n" not in text and text == text.strip() for text in texts), fname
        assert len(set(texts)) == len(texts) == (3 if fname.startswith("test_") else 1), fname


def test_topics_are_filled() -> None:
    assert all(row["topic"].strip() for split in ("train", "dev") for row in rows(f"{split}.csv"))


def test_no_scenario_in_two_splits(dialogues: dict[str, str]) -> None:
    scenarios = {row["fname"]: row["scenario"] for row in rows("scenarios.csv")}
    assert set(scenarios) == set(dialogues)
    by_split = {split: {scenarios[fname] for fname in scenarios if fname.startswith(f"{split}_")} for split in SPLITS}
    assert sum(map(len, by_split.values())) == len(set(scenarios.values()))


def runs(text: str) -> Iterator[tuple[str, ...]]:
    """Every run of morphemes, from turn to turn, the tags of those who speak left out."""
    words = tuple(chain.from_iterable(morphemes(re.sub(r"^#Person\d+#:", "", turn)) for turn in turns(text)))
    yield from (words[start : start + RUN] for start in range(len(words) - RUN + 1))


def shared_runs(texts: dict[str, str]) -> list[tuple[str, str, tuple[str, ...]]]:
    first: dict[tuple[str, ...], str] = {}
    return [
        (first[run], fname, run)
        for fname, text in texts.items()
        for run in runs(text)
        if first.setdefault(run, fname) != fname
    ]


def test_no_two_dialogues_are_alike(dialogues: dict[str, str]) -> None:
    assert shared_runs(dialogues) == []


def test_alike_dialogues_would_be_seen(dialogues: dict[str, str]) -> None:
    one, other = list(dialogues)[:2]
    longest = max(turns(dialogues[one]), key=len)
    copied = {one: dialogues[one], other: f"{dialogues[other]}\n#Person9#: {longest.split(':', 1)[1]}"}
    assert shared_runs(copied)
