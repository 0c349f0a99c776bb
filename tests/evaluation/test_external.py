"""`yoyak score`: any team's file, scored as ours."""

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import ROOT
from typer.testing import CliRunner

from yoyak import commands
from yoyak.core.errors import UserError

SAMPLE = ROOT / "data/sample"
TEST_REFERENCES = SAMPLE / "test_references.csv"


def run(*arguments: object) -> Any:
    done = CliRunner().invoke(commands.app, ["score", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def as_json(*arguments: object) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json")))


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_lead_2_of_the_sample_is_what_the_pipeline_says(tmp_path: Path) -> None:
    """The same figures, to the last digit, as `metrics/scores.json` of the repository has them."""
    dev = pd.read_csv(SAMPLE / "dev.csv")
    committed = json.loads((ROOT / "metrics/scores.json").read_text())
    from yoyak.data.dialogues import turns

    rows = [{"fname": row.fname, "summary": "\n".join(turns(row.dialogue)[:2])} for row in dev.itertuples()]
    result = as_json(write(tmp_path / "lead.csv", rows), SAMPLE / "dev.csv")
    assert result["scores"] == committed["models"]["baseline/lead_2"]
    assert result["diagnostics"] == committed["diagnostics"]["baseline/lead_2"]
    assert result["scoring"]["dictionary"] == "python-mecab-ko-dic 2.1.1.post2"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_csv_and_jsonl_alike(tmp_path: Path, suffix: str) -> None:
    references = pd.read_csv(TEST_REFERENCES)
    rows = [{"fname": row.fname, "summary": row.summary_1} for row in references.itertuples()]
    said = write(tmp_path / f"said{suffix}", rows[::-1])
    lists = [{"fname": row.fname, "summaries": list(row[2:5])} for row in references.itertuples()]
    expected = write(tmp_path / "expected.jsonl", lists) if suffix == ".jsonl" else TEST_REFERENCES
    mean, best = as_json(said, expected), as_json(said, expected, "--references", "max")
    assert best["scores"]["rouge_mean"] == 100
    assert 30 < mean["scores"]["rouge_mean"] < 90
    assert mean["scoring"]["references_a_row"] == [3]
    assert "copied" not in mean["diagnostics"]


def test_predictions_of_the_pipeline(tmp_path: Path) -> None:
    rows = [
        {"fname": row.fname, "text": row.summary, "candidates": []}
        for row in pd.read_csv(SAMPLE / "dev.csv").itertuples()
    ]
    result = as_json(write(tmp_path / "dev.jsonl", rows), SAMPLE / "dev.csv", "--library", "rouge_score")
    assert result["scores"]["rouge_mean"] == 100
    assert result["scoring"]["library"] == "rouge_score 0.1.2"
    assert result["diagnostics"]["length_ratio"] == 1


def test_a_table_for_people(tmp_path: Path) -> None:
    rows = [{"fname": row.fname, "summary": row.summary[:20]} for row in pd.read_csv(SAMPLE / "dev.csv").itertuples()]
    rows.append({"fname": "dev_999999", "summary": "남는 줄"})
    printed = run(write(tmp_path / "short.csv", rows), SAMPLE / "dev.csv", "--tokenizer", "char")
    assert "short.csv" in printed
    assert "1 further rows" in printed
    assert "rouge 1.0.1, char, mean over references" in printed


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    rows = [{"fname": row.fname, "summary": row.summary} for row in pd.read_csv(SAMPLE / "dev.csv").itertuples()]
    assert "[bold]x.csv" in run(write(tmp_path / "[bold]x.csv", rows), SAMPLE / "dev.csv")
    long = run(write(tmp_path / f"{'long' * 30}.csv", rows), SAMPLE / "dev.csv")
    assert "100.00" in long


def test_only_summary_columns_are_references(tmp_path: Path) -> None:
    rows = [{"fname": "a", "summary": "비가 온다.", "summary_id": "17", "summarizer": "kim"}]
    result = as_json(write(tmp_path / "said.csv", rows), write(tmp_path / "expected.csv", rows))
    assert result["scoring"]["references_a_row"] == [1]
    assert result["scores"]["rouge1"] == 100


@pytest.mark.parametrize(
    "columns",
    [
        ("summary", "summary2", "summary3"),
        ("summary1", "summary2", "summary3"),
        ("reference", "reference_2", "Reference 3"),
        ("summary_1", "summary_2", "references-1"),
    ],
)
def test_all_references_by_whatever_number(tmp_path: Path, columns: tuple[str, ...]) -> None:
    rows = [{"fname": "a", **dict(zip(columns, ("비가 온다.", "눈이 온다.", "해가 난다."), strict=True))}]
    said = write(tmp_path / "said.csv", [{"fname": "a", "summary": "해가 난다."}])
    result = as_json(said, write(tmp_path / "expected.csv", rows), "--references", "max")
    assert result["scoring"]["references_a_row"] == [3]
    assert result["scores"]["rouge1"] == 100


def test_columns_that_are_passed_over_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"fname": "a", "summary": "비가 온다.", "human_summary": "눈이 온다.", "요약2": "해가 난다.", "note": "x"}]
    path = write(tmp_path / "expected.csv", rows)
    done = CliRunner().invoke(commands.app, ["score", str(path), str(path)], catch_exceptions=False)
    assert f"note: {path}: passed over 'human_summary', '요약2'; read 'summary'" in done.output.splitlines()


def test_a_table_with_its_own_summaries_beside_the_predicted_is_told(tmp_path: Path) -> None:
    """Else the references would be scored against themselves: 100, without a word."""
    rows = [{"fname": "a", "summary": "비가 온다.", "pred": "눈이 온다.", "generated_text": "해가 난다."}]
    path = write(tmp_path / "dev.csv", rows)
    done = CliRunner().invoke(commands.app, ["score", str(path), str(path)], catch_exceptions=False)
    assert f"note: {path}: passed over 'pred', 'generated_text'; read 'summary'" in done.output.splitlines()


def in_json(form: str, summaries: dict[str, str]) -> str:
    """The same summaries as other people keep them."""
    flat = [{"fname": fname, "summary": text} for fname, text in summaries.items()]
    match form:
        case "array":
            return json.dumps(flat, ensure_ascii=False, indent=2)
        case "array in one line":
            return json.dumps(flat)
        case "named array":
            return json.dumps({"version": 1, "rows": flat})
        case "lines":
            return "\n".join(map(json.dumps, flat))
        case "national institute":
            talk = {"conversation": [{"speaker": "SD1", "utterance": "가."}, {"speaker": "SD2", "utterance": "나."}]}
            return json.dumps([{"id": fname, "input": talk, "output": text} for fname, text in summaries.items()])
        case _:
            rows = [
                {
                    "header": {"dialogueInfo": {"dialogueID": fname}},
                    "body": {"dialogue": [{"participantID": "P01", "utterance": "가."}], "summary": text},
                }
                for fname, text in summaries.items()
            ]
            return json.dumps({"numberOfItems": len(rows), "data": rows}, indent=4)


@pytest.mark.parametrize(
    "form", ["array", "array in one line", "named array", "lines", "national institute", "AIHub's"]
)
def test_json_of_all_forms(tmp_path: Path, form: str) -> None:
    summaries = {"a": "비가 온다.", "b": "눈이 온다."}
    (tmp_path / "said.json").write_text(in_json(form, summaries))
    (tmp_path / "expected.json").write_text(in_json(form, dict(reversed(summaries.items()))))
    assert as_json(tmp_path / "said.json", tmp_path / "expected.json")["scores"]["rouge_mean"] == 100


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", '{"a": "요약.", "b": "요약."}', "a.json: column 'fname' is missing; it has 'a', 'b'"),
        (
            "a.json",
            '{"fname": {"0": "a"}, "summary": {"0": "요약."}}',
            "column 'fname': text is expected, not {'0'",
        ),
        ("a.json", '[{"fname": "a", "summary": "요약."},\n {"fname"]', "a.json, line 2: not valid JSON: "),
        ("a.json", '["요약."]', "a.json, item 1: a JSON object is expected, such as"),
        ("a.json", '"요약."', "a.json, line 1: a JSON object is expected, such as"),
        ("a.json", "", "a.json: column 'fname' is missing; the file is empty"),
        ("a.json", "[]", "a.json: column 'fname' is missing; the file is empty"),
        ("a.tsv", "fname\tsummary\na\t요약.\n", "its fields are parted by tabs; save it with commas"),
        (
            "a.csv",
            "fname,summary\na,요약.\n".encode("cp949"),
            "line 2: not UTF-8 (byte 16); a CSV saved by Excel",
        ),
        ("a.csv", "fname,summary\na,요약.\n".encode("utf-16"), "UTF-16, not UTF-8; convert it"),
        ("a.xlsx", b"PK\x03\x04\x14\0\x06\0", "not a text file (byte 5 is NUL)"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: str | bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=re.escape(says)):
        run(tmp_path / name, SAMPLE / "dev.csv")


def test_another_teams_csv(tmp_path: Path) -> None:
    """As pandas writes it with its index, read again and written again, by Excel."""
    rows = pd.read_csv(SAMPLE / "dev.csv")[["fname", "summary"]].assign(length=3)
    rows.to_csv(tmp_path / "once.csv")
    pd.read_csv(tmp_path / "once.csv").to_csv(tmp_path / "twice.csv", encoding="utf-8-sig", lineterminator="\r\n")
    assert as_json(tmp_path / "twice.csv", SAMPLE / "dev.csv")["scores"]["rouge_mean"] == 100


def test_hangul_in_parts_is_hangul(tmp_path: Path) -> None:
    """As macOS writes it."""
    whole, parted = "비가 온다.", unicodedata.normalize("NFD", "비가 온다.")
    assert whole != parted
    expected = write(tmp_path / "expected.jsonl", [{"fname": "a", "summary": whole}])
    assert (
        as_json(write(tmp_path / "said.jsonl", [{"fname": "a", "summary": parted}]), expected)["scores"]["rouge1"]
        == 100
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"fname": "a", "summary": {"t": "x"}}', "line 1, column 'summary': text is expected"),
        ('{"fname": "a", "summary": ["x", 1]}', "line 1, column 'summary': text is expected"),
        ('{"fname": "a", "summary": NaN}', "line 1, column 'summary': text is expected"),
        ('{"fname": "a", "summary": "x", "summary": "y"}', "line 1: not valid JSON: the key 'summary' stands 2 times"),
        ('{"fname": "a", "summary": "x\\ud800"}', "line 1, column 'summary': an escape is half of a letter"),
        ('{"fname": "a", "n": ' + "9" * 5000 + "}", "line 1: not valid JSON"),
    ],
)
def test_bad_json_lines(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "said.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=re.escape(says)):
        run(tmp_path / "said.jsonl", SAMPLE / "dev.csv")


def test_faults_are_named(tmp_path: Path) -> None:
    said = write(tmp_path / "said.csv", [{"fname": "dev_0", "summary": "요약."}])
    with pytest.raises(UserError, match=r"said.csv: no summary for dev_1, which .*dev.csv has"):
        run(said, SAMPLE / "dev.csv")
    with pytest.raises(UserError, match=r"said.csv: column 'summary' is missing; it has 'fname', 'answer'"):
        run(write(tmp_path / "said.csv", [{"fname": "dev_0", "answer": "요약."}]), SAMPLE / "dev.csv")
    (tmp_path / "broken.jsonl").write_text('{"fname": "a", "summary": "b"}\n{"fname": \n')
    with pytest.raises(UserError, match=r"broken.jsonl, line 2: not valid JSON"):
        run(said, tmp_path / "broken.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(UserError, match=r"list.jsonl, item 1: a JSON object is expected"):
        run(said, tmp_path / "list.jsonl")
    with pytest.raises(UserError, match="no such file"):
        run(said, tmp_path / "absent.csv")
