"""The submission has the sample's rows, order and columns, and nothing that fails a check bears its name."""

import csv
import io
import runpy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT

from yoyak.errors import UserError
from yoyak.records import Prediction, read_json, write_records
from yoyak.submission import Check, SubmissionParams, checklist, fill, read_sample, require, write

SAMPLE = ",fname,summary\n0,test_0,요약문\n1,test_2,요약문\n2,test_10,요약문\n"
FNAMES = ("test_0", "test_2", "test_10")
PARAMS = SubmissionParams(max_characters=20)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stage `submit` reads: parameters, a sample submission, and the ensemble's summaries."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    Path("data/sample").mkdir(parents=True)
    Path("data/sample/sample_submission.csv").write_text(SAMPLE, encoding="utf-8")
    predict("비가 온다.", "빵을 산다.", "책을 읽는다.")
    return tmp_path


def predict(*texts: str) -> None:
    rows = [Prediction(fname=fname, text=text) for fname, text in zip(FNAMES, texts, strict=True)]
    write_records(Path("ensemble/test.jsonl"), reversed(rows))


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
    hard = [check.name for check in checklist(folder / "submission.csv", sample, PARAMS) if check.hard and check.faults]
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
    assert "fails the check 'no empty summary': test_2 (and 0 more); see submission/checklist.md" in error
    assert not Path("submission/submission.csv").exists()
    assert Path("submission/last_good.csv").read_bytes() == good
    assert "- [ ] no empty summary: 1 rows, the first: test_2" in Path("submission/checklist.md").read_text()
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
    found = checklist(tmp_path / "written.csv", read_sample(tmp_path / "sample.csv"), PARAMS)
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


def test_soft_checks_do_not_stop(tmp_path: Path) -> None:
    found = checks(SAMPLE.replace("요약문", "가" * 21), tmp_path)
    assert list(found) == ["at most 20 characters", "each ends as a sentence does"]
    assert found["at most 20 characters"].line() == "- [ ] at most 20 characters: 3 rows, the first: test_0"
    require(list(found.values()))


def test_sample_is_read_as_it_stands() -> None:
    """The embedded sample goes through unchanged."""
    path = ROOT / "data/sample/sample_submission.csv"
    text = io.StringIO()
    read_sample(path).to_csv(text, index=False, lineterminator="\n")
    assert text.getvalue() == path.read_text(encoding="utf-8")
