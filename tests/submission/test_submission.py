"""The submission has the sample's rows, order and columns, and nothing that fails a check bears its name."""

import csv
import hashlib
import io
import re
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project, new_project
from twins import FAMILIES

from yoyak.core.errors import UserError
from yoyak.core.records import Prediction, Prompt, read_json, write_json, write_records
from yoyak.submission.checklist import Check, Known, checklist, require, special_tokens
from yoyak.submission.file import SubmissionParams, fill, read_sample, write

SAMPLE = ",fname,summary\n0,test_0,요약문\n1,test_2,요약문\n2,test_10,요약문\n"
FNAMES = ("test_0", "test_2", "test_10")
PARAMS = SubmissionParams(max_characters=20)
DIALOGUE = (
    "#Person1#: 비가 오네. NASA라고 알아?\n#Person2#: <br> 나는 어제 새로 문을 연 빵집에서 따뜻한 빵을 두 개 샀어."
)
KNOWN = Known(dict.fromkeys(FNAMES, DIALOGUE), [3, 30])
METRICS = {
    "scoring": {"tokenizer": "mecab"},
    "ensemble": {"rouge_mean": 41.25, "ci95": [40.0, 42.5], "ci95_low": 40.0, "ci95_high": 42.5, "rows": 250},
}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stage `submit` reads: parameters, a sample submission, and the ensemble's summaries."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    Path("data/sample").mkdir(parents=True)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    give_inputs()
    return tmp_path


def give_inputs(root: Path = Path()) -> None:
    """All that the stage depends on but code and parameters."""
    folder = root / "data/sample"
    (folder / "sample_submission.csv").write_text(SAMPLE, encoding="utf-8")
    for split in ("train", "dev", "test"):
        (folder / f"{split}.csv").write_text(f"of {split}", encoding="utf-8")
    for split, rows in (("train", ["가" * 3, "가" * 30]), ("test", [None] * len(FNAMES))):
        prompts = [
            Prompt(fname=fname, system="", turns=tuple(DIALOGUE.splitlines()), question="", summary=summary)
            for fname, summary in zip(FNAMES, rows, strict=False)
        ]
        write_records(root / f"data/prompts/{split}.jsonl", prompts)
    write_json(root / "ensemble/dev_score.json", METRICS)
    predict("비가 온다.", "빵을 산다.", "책을 읽는다.", root=root)


def predict(*texts: str, root: Path = Path()) -> None:
    rows = [Prediction(fname=fname, text=text) for fname, text in zip(FNAMES, texts, strict=True)]
    write_records(root / "ensemble/test.jsonl", reversed(rows))


def submit() -> None:
    runpy.run_path(str(ROOT / "stages/submit.py"), run_name="__main__")


def submitted() -> list[list[str]]:
    with Path("submission/submission.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        submit()
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    return error


def test_rows_order_and_columns_are_the_samples(workplace: Path) -> None:
    submit()
    assert Path("submission/submission.csv").read_text(encoding="utf-8") == (
        ",fname,summary\n0,test_0,비가 온다.\n1,test_2,빵을 산다.\n2,test_10,책을 읽는다.\n"
    )
    assert read_json(Path("metrics/submission.json"))["rows"] == 3
    assert "- [x] no empty summary" in Path("submission/checklist.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "header", [",fname,summary", "fname,summary", "Unnamed: 0,fname,summary", "id,fname,summary,note", "summary,fname"]
)
def test_header_is_the_samples_to_the_byte(workplace: Path, header: str) -> None:
    columns = header.split(",")
    row = {"fname": "test_2", "summary": "요약문"}
    lines = [header, ",".join(row.get(column, "7") for column in columns)]
    Path("data/sample/sample_submission.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    submit()
    assert Path("submission/submission.csv").read_bytes().split(b"\n")[0] == header.encode()
    assert submitted() == [columns, [({**row, "summary": "빵을 산다."}).get(column, "7") for column in columns]]


def test_index_is_kept_as_it_is_written(workplace: Path) -> None:
    sample = ",fname,summary\n007,test_10,nan\n1.50,test_0,\n"
    Path("data/sample/sample_submission.csv").write_text(sample, encoding="utf-8")
    submit()
    assert submitted()[1:] == [["007", "test_10", "책을 읽는다."], ["1.50", "test_0", "비가 온다."]]


ODD = [
    '"네", 라고 했다.',
    "=1+1",
    "@A1,-2",
    "nan",
    "첫 줄\n다음 줄.",
    "가\r\n나\u2028다.",
    "끝에 빈칸 ",
    "🙂, 'x'",
    "a\0b",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_survives(workplace: Path, text: str) -> None:
    predict("비가 온다.", text, "책을 읽는다.")
    submit()
    assert submitted()[2] == ["1", "test_2", " ".join(text.replace("\0", " ").split())]
    assert len(Path("submission/submission.csv").read_text(encoding="utf-8").splitlines()) == 4


@given(st.lists(st.text(), min_size=3, max_size=3))
def test_any_text_comes_back_as_one_line(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("submission")
    (folder / "sample.csv").write_text(SAMPLE, encoding="utf-8")
    sample = read_sample(folder / "sample.csv")
    predictions = [Prediction(fname=fname, text=text) for fname, text in zip(FNAMES, texts, strict=True)]
    write(fill(sample, predictions), folder / "submission.csv")
    table = read_sample(folder / "submission.csv")
    assert list(table["summary"]) == [" ".join(text.replace("\0", " ").split()) for text in texts]
    hard = [
        check.name
        for check in checklist(folder / "submission.csv", sample, KNOWN, PARAMS)
        if check.hard and check.faults
    ]
    assert hard == (["no empty summary"] if not all(table["summary"]) else [])


def test_summaries_of_other_rows_are_left_out(workplace: Path) -> None:
    Path("data/sample/sample_submission.csv").write_text("fname,summary\ntest_10,-\n", encoding="utf-8")
    submit()
    assert submitted() == [["fname", "summary"], ["test_10", "책을 읽는다."]]


def test_row_without_a_summary_is_named(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data/sample/sample_submission.csv").write_text(SAMPLE + "3,test_11,-\n", encoding="utf-8")
    assert "the sample submission asks for test_11" in complaint(capsys)
    assert not Path("submission").exists()


@pytest.mark.parametrize("empty", ["", " \n\u3000", "\0"])
def test_empty_summary_stops_the_stage(workplace: Path, capsys: pytest.CaptureFixture[str], empty: str) -> None:
    submit()
    good = Path("submission/submission.csv").read_bytes()
    # DVC deletes a stage's outputs before it runs.
    Path("submission/submission.csv").unlink()
    predict("비가 온다.", empty, "책을 읽는다.")
    error = complaint(capsys)
    assert "fails the check 'no empty summary': test_2; see submission/checklist.md" in error
    assert not Path("submission/submission.csv").exists()
    assert Path("submission/last_good.csv").read_bytes() == good
    assert "- [ ] no empty summary: test_2\n" in Path("submission/checklist.md").read_text()
    assert read_json(Path("metrics/submission.json"))["checks"]["no empty summary"] == 1


def test_no_predictions(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ensemble/test.jsonl").unlink()
    assert "ensemble/test.jsonl: no such file; run `dvc repro`" in complaint(capsys)


def test_spoilt_predictions(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ensemble/test.jsonl").write_text('{"fname": "test_0", "text": "가"}\n{"fname": "test_2"', encoding="utf-8")
    assert "ensemble/test.jsonl, line 2: the line: " in complaint(capsys)


def checks(written: str, tmp_path: Path) -> dict[str, Check]:
    (tmp_path / "sample.csv").write_text(SAMPLE, encoding="utf-8")
    (tmp_path / "written.csv").write_text(written, encoding="utf-8")
    found = checklist(tmp_path / "written.csv", read_sample(tmp_path / "sample.csv"), KNOWN, PARAMS)
    return {check.name: check for check in found if check.faults}


WRONG = {
    "columns": ("fname,summary\ntest_0,가.\ntest_2,나.\ntest_10,다.\n", "the sample submission's columns"),
    "order": (
        ",fname,summary\n0,test_2,가.\n1,test_0,나.\n2,test_10,다.\n",
        "the sample submission's rows in its order",
    ),
    "index": (
        ",fname,summary\n0,test_0,가.\n5,test_2,나.\n2,test_10,다.\n",
        "the sample submission's rows in its order",
    ),
    "duplicate": (",fname,summary\n0,test_0,가.\n1,test_2,나.\n2,test_2,다.\n", "no row twice"),
    "rows": (",fname,summary\n0,test_0,가.\n", "the sample submission's rows in its order"),
    "line break": (SAMPLE.replace("요약문", '"가\n나."'), "one line each"),
    "empty": (SAMPLE.replace("요약문", " "), "no empty summary"),
}


@pytest.mark.parametrize(("written", "name"), WRONG.values(), ids=WRONG)
def test_hard_checks_stop(tmp_path: Path, written: str, name: str) -> None:
    found = checks(written, tmp_path)
    assert name in found
    with pytest.raises(UserError, match="fails the check"):
        require(list(found.values()))


WARNED = {
    "long": ("아침부터 비가 많이 와서 우산을 쓰고 간다.", ["at most 20 characters"]),
    "longest": (
        "아침부터 비가 아주 많이 와서 두 사람은 함께 우산을 쓰고 간다.",
        ["at most 20 characters", "none shorter or longer than all of train's"],
    ),
    "shortest": ("네.", ["none shorter or longer than all of train's"]),
    "cut off": ("비가 오는데", ["each ends as a sentence does"]),
    "tag": ("#Person3#은 간다.", ["no tag that the dialogue has not"]),
    "foreign": ("ESA를 안다.", ["no foreign words that the dialogue has not"]),
    "token": ("비가 온다.▁", ["each ends as a sentence does", "no special token left over"]),
    "copied": ("나는 어제 새로 문을 연 빵집에서.", ["no summary copied from the dialogue"]),
    "stutter": ("빵을 빵을 산다.", ["no repetition in a summary"]),
    "label": ("요약: 빵을 산다.", ["no label before a summary"]),
}


@pytest.mark.parametrize(("text", "names"), WARNED.values(), ids=WARNED)
def test_warnings_do_not_stop(tmp_path: Path, text: str, names: list[str]) -> None:
    lines = [",fname,summary", "0,test_0,비가 온다.", f"1,test_2,{text}", "2,test_10,빵을 산다."]
    found = checks("\n".join(lines) + "\n", tmp_path)
    assert {name: check.faults for name, check in found.items()} == {name: ["test_2"] for name in names}
    require(list(found.values()))


def test_summaries_alike_are_a_warning(tmp_path: Path) -> None:
    found = checks(SAMPLE.replace("요약문", "비가 온다."), tmp_path)
    assert list(found) == ["no two summaries alike"]
    assert found["no two summaries alike"].line() == "- [ ] no two summaries alike: test_0 (and 2 more)"
    require(list(found.values()))


def test_warnings_are_told_and_written(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict("비가 온다.", "비가 오는데</s>", "책을 읽는다.")
    submit()
    assert capsys.readouterr().err.splitlines() == [
        "warning: check failed: each ends as a sentence does: test_2",
        "warning: check failed: no foreign words that the dialogue has not: test_2",
        "warning: check failed: no special token left over: test_2",
    ]
    written = {check["name"]: check for check in read_json(Path("submission/checklist.json"))["checks"]}
    assert written["no special token left over"] == {
        "name": "no special token left over",
        "hard": False,
        "passed": False,
        "faults": ["test_2"],
    }
    assert written["no empty summary"]["passed"]
    assert [name for name, check in written.items() if check["hard"]] == [
        "the sample submission's columns",
        "the sample submission's rows in its order",
        "no row twice",
        "no empty summary",
        "one line each",
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_special_tokens_of_every_family_are_known(family: str) -> None:
    _, tokenizer = FAMILIES[family]()
    special = {*tokenizer.all_special_tokens, *(str(token) for token in tokenizer.added_tokens_decoder.values())}
    assert special
    assert {token for token in special if not special_tokens(f"비가 온다{token}", DIALOGUE)} == set()


@pytest.mark.parametrize(
    "token",
    [
        *("<s>", "</s>", "<pad>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<extra_id_0>", "<0xEA>", "[SEP]"),
        *("[/INST]", "[|endofturn|]", "[|assistant|]", "<turn|>", "<|turn>", "<|think|>", "[unused1]", "<unused0>"),
        *("<PAD>", "[gMASK]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[/AVAILABLE_TOOLS]", "<SPECIAL_12>"),
        *("[control_7]", "</think>", "<｜end▁of▁sentence｜>"),
    ],
)
def test_special_tokens(token: str) -> None:
    assert special_tokens(f"비가{token} 온다.", DIALOGUE) == {token}
    assert special_tokens(f"비가{token} 온다.", f"#Person1#: {token}?") == set()


@pytest.mark.parametrize(
    "text",
    [
        "<기생충>을 본다.",
        "3 < 5 > 2",
        "[속보] 비가 온다.",
        "#Person1#은 <Titanic>을 본다.",
        "[NASA] 발표",
        "<ESA>를 안다.",
        "[3] 다",
        "[a]",
    ],
)
def test_titles_are_no_special_tokens(text: str) -> None:
    assert special_tokens(text, DIALOGUE) == set()


def test_checklist_says_what_made_it(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "lucky-day")
    submit()
    written = read_json(Path("submission/checklist.json"))
    assert written["sha256"] == hashlib.sha256(Path("submission/submission.csv").read_bytes()).hexdigest()
    assert written["made_by"] == {
        "experiment": "lucky-day",
        "commit": "no commit",
        "data": {
            f"{split}.csv": hashlib.sha256(f"of {split}".encode()).hexdigest() for split in ("train", "dev", "test")
        },
        "dev": METRICS["ensemble"],
        "scoring": METRICS["scoring"],
    }
    assert written["lengths"] == {
        "train": {"min": 3, "p5": 4.3, "median": 16.5, "p95": 28.6, "max": 30},
        "submission": {"min": 6, "p5": 6, "median": 6, "p95": 6.9, "max": 7},
    }
    text = Path("submission/checklist.md").read_text(encoding="utf-8")
    for line in (
        "- experiment: lucky-day",
        "- ensemble on dev: mean ROUGE 41.25 [40.00, 42.50]",
        "| train | 3 | 4.3 | 16.5 | 28.6 | 30 |",
        f"- submission: sha256 {written['sha256']}",
    ):
        assert f"\n{line}\n" in text


def test_last_good_submission_keeps_its_own_checklist(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit()
    good = Path("submission/checklist.json").read_bytes()
    predict("비가 온다.", "", "책을 읽는다.")
    complaint(capsys)
    assert Path("submission/last_good.json").read_bytes() == good
    assert Path("submission/checklist.json").read_bytes() != good


@pytest.fixture
def repository(tmp_path: Path) -> Project:
    """A git and DVC repository of the last stage alone, with what the others would have made."""
    project = new_project(tmp_path / "project", dict.fromkeys(("train", "dev", "test"), 1))
    give_inputs(project.root)
    project.edit(lambda pipeline: pipeline.update(stages={"submit": pipeline["stages"]["submit"]}), "dvc.yaml")
    project.commit("what the stage needs")
    return project


def test_dvc_runs_the_stage_and_keeps_the_last_good_one(repository: Project) -> None:
    repository.run("dvc", "repro")
    folder = repository.root / "submission"
    made = sorted(path.name for path in folder.iterdir())
    assert made == [".gitignore", "checklist.json", "checklist.md", "last_good.csv", "last_good.json", "submission.csv"]
    commit = repository.run("git", "rev-parse", "HEAD").stdout.strip()
    assert read_json(folder / "checklist.json")["made_by"]["commit"] == commit
    good = (folder / "submission.csv").read_bytes()
    repository.commit("a submission")
    assert repository.run("git", "status", "--short").stdout == ""

    predict("비가 온다.", "", "책을 읽는다.", root=repository.root)
    failed = repository.run("dvc", "repro", check=False)
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout
    (told,) = re.findall(r"^error: .*", failed.stdout, re.MULTILINE)
    assert "no empty summary" in told
    assert not (folder / "submission.csv").exists()
    assert (folder / "last_good.csv").read_bytes() == good

    predict("비가 온다.", "빵을 산다.", "책을 편다.", root=repository.root)
    repository.run("dvc", "exp", "run", "--name", "better")
    assert read_json(folder / "checklist.json")["made_by"]["experiment"] == "better"


def test_sample_is_read_as_it_stands() -> None:
    """The embedded sample goes through unchanged."""
    path = ROOT / "data/sample/sample_submission.csv"
    text = io.StringIO()
    read_sample(path).to_csv(text, index=False, lineterminator="\n")
    assert text.getvalue() == path.read_text(encoding="utf-8")
