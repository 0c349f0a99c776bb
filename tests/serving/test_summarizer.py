"""`yoyak summarize`: the pipeline's own summaries, of whatever dialogue."""

import csv
import json
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from project import ColdProject, Project
from typed_summaries import DIALOGUE, summarize
from typer.testing import CliRunner

from yoyak import commands
from yoyak.core.errors import UserError
from yoyak.core.records import Prediction, read_records, write_json
from yoyak.ensembling.weighting import PLAN, combine, read_plan
from yoyak.modeling.loading import Loaded
from yoyak.serving import inputs, summarizer


def rows_of(printed: str) -> list[tuple[str, str]]:
    return [(row["fname"], row["summary"]) for row in map(json.loads, printed.splitlines())]


def made_by_the_pipeline(path: Path) -> list[tuple[str, str]]:
    return [(row.fname, row.text) for row in read_records(path, Prediction)]


@pytest.fixture(scope="module")
def joined(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """As if the ensemble of both models had been found worth it; on so few rows none is."""
    project = reproduced.copy(tmp_path_factory.mktemp("joined") / "project")
    plan = project.root / PLAN
    plan.unlink()
    write_json(plan, {"strategy": "mbr", "weights": {"llama32_3b": 0.4, "bart_mini": 0.6}})
    return project


def test_the_ensemble_of_a_csv_is_the_pipelines(joined: Project) -> None:
    done = summarize(joined, "data/sample/test.csv")
    assert done.returncode == 0, done.stderr
    plan = read_plan(joined.root / PLAN)
    members = {name: read_records(joined.root / f"predictions/{name}/test.jsonl", Prediction) for name in plan.weights}
    assert rows_of(done.stdout) == [(row.fname, row.text) for row in combine(members, plan)]
    # What is no summary is told elsewhere: the progress of both members above all.
    assert "llama32_3b" in done.stderr
    assert "bart_mini" in done.stderr


@pytest.mark.parametrize("model", ["llama32_3b", "bart_mini"])
def test_a_models_summaries_of_jsonl_from_standard_input_are_the_pipelines(reproduced: Project, model: str) -> None:
    with (reproduced.root / "data/sample/test.csv").open(newline="") as file:
        rows = [{"fname": row["fname"], "dialogue": row["dialogue"], "note": 1} for row in csv.DictReader(file)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    done = summarize(reproduced, "-", "--model", model, stdin=f"\n{lines}")
    assert done.returncode == 0, done.stderr
    predictions = read_records(reproduced.root / f"predictions/{model}/test.jsonl", Prediction)
    assert rows_of(done.stdout) == [(row.fname, row.text) for row in predictions]
    told = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert told == [
        f"note: {row.fname}: the summary is faulty after a second search, too: {', '.join(row.faults)}"
        for row in predictions
        if row.faults
    ]
    # Of BART's configuration a summary ends at the limit by itself.
    assert told or model == "bart_mini"


def test_a_text_gives_a_summary_and_nothing_else(reproduced: Project, tmp_path: Path) -> None:
    (tmp_path / "dialogue.txt").write_text(DIALOGUE)
    of_file = summarize(reproduced, str(tmp_path / "dialogue.txt"), "--model", "bart_mini")
    assert of_file.returncode == 0, of_file.stderr
    piped = summarize(reproduced, "-", "--model", "bart_mini", stdin=DIALOGUE)
    row = {"dialogue": DIALOGUE}
    (tmp_path / "rows.json").write_text(f"\n{json.dumps(row)}\n")
    ((fname, expected),) = rows_of(summarize(reproduced, str(tmp_path / "rows.json"), "--model", "bart_mini").stdout)
    assert fname == "line_2"
    assert expected
    assert of_file.stdout == piped.stdout == f"{expected}\n"


def test_an_error_is_a_line_and_exit_code_1(reproduced: Project) -> None:
    done = summarize(reproduced, "absent.txt")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: absent.txt: no such file; is the path right? `-` is standard input\n"


def complaint(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: object, stdin: str = DIALOGUE) -> str:
    """What `yoyak summarize` stops with, in this very process."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError) as told:
        CliRunner().invoke(commands.app, ["summarize", *map(str, arguments)], input=stdin, catch_exceptions=False)
    return str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "", "a.txt: there is no turn in it"),
        ("a.txt", " \n\n", "a.txt: there is no turn in it"),
        ("a.txt", "가".encode("cp949"), "a.txt, line 1: not UTF-8"),
        ("a.txt", "가\n나\0", "a.txt: not a text file"),
        ("a.jsonl", "\n", "a.jsonl: empty"),
        (
            "a.jsonl",
            '{"dialogue": "가"}\n{"dialogue": \n',
            "a.jsonl, line 2: not valid JSON: Expecting value",
        ),
        ("a.jsonl", '{"n": ' * 5000, "a.jsonl, line 1: not valid JSON: "),
        ("a.jsonl", '["가"]', "a.jsonl, item 1: a JSON object is expected"),
        ("a.jsonl", '{"fname": "a"}', "a.jsonl, line 1: key 'dialogue': missing; a JSON object is expected"),
        ("a.jsonl", '{"dialogue": ["가"]}', "a.jsonl, line 1: key 'dialogue': text is expected, not ['가']"),
        ("a.jsonl", '{"dialogue": "\\ud800"}', "a.jsonl, line 1: key 'dialogue': an escape is half of a letter"),
        ("a.jsonl", '{"dialogue": "가", "fname": 7}', "a.jsonl, line 1: key 'fname': text is expected, not 7"),
        ("a.jsonl", '{"dialogue": "가"}\n{"dialogue": " "}', "a.jsonl, line 2 (line_2): there is no turn"),
        ("a.txt", "#Person1#:\n#Person2#: \u200b", "a.txt: there is no turn in it"),
        ("a.jsonl", '{"dialogue": "#Person1#:"}', "a.jsonl, line 1 (line_1): there is no turn"),
        ("a.jsonl", '{"dialogue": "가", "fname": "a"}\n' * 2, "a.jsonl, line 2: a row above is named a, too"),
        (
            "a.json",
            '[{"dialogue": "가"},\n{"text": "나"}]',
            "a.json, item 2: key 'dialogue': missing; a JSON",
        ),
        ("a.json", '{"messages": [{"role": "user"}]}', "a.json, item 1: key 'dialogue': missing; a JSON object is"),
        ("a.json", '[{"dialogue": "가"},\n{"dialogue" "나"}]', "a.json, line 2: not valid JSON: Expecting ':'"),
        ("a.csv", "fname,dialogue\na,\n", "a.csv, row 1 (a), column 'dialogue': empty"),
        ("a.csv", "fname,text\na,b\n", "a.csv: column 'dialogue' is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(
    reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: Any, says: str
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert says in complaint(reproduced, monkeypatch, tmp_path / name)


NIKL = [
    {
        "id": "x-1",
        "input": {
            "conversation": [{"speaker": "SD1", "utterance": "뭐 해?"}, {"speaker": "SD2", "utterance": "책 읽어."}],
            "subject_keyword": ["여가"],
        },
        "output": "책을 읽는다.",
    }
]
CORPUS = {
    "id": "SDRW",
    "metadata": {"title": "일상 대화"},
    "document": [
        {
            "id": "x-1",
            "metadata": {"topic": "여가", "speaker": [{"id": "SD1"}]},
            "utterance": [
                {"id": "1", "form": "뭐 해?", "speaker_id": "SD1"},
                {"id": "2", "form": "책 읽어.", "speaker_id": "SD2"},
            ],
        }
    ],
}
TURNS = "SD1: 뭐 해?\nSD2: 책 읽어."


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("content", [NIKL, CORPUS, NIKL[0], [{"fname": "x-1", "dialogue": TURNS}]])
def test_json_of_all_forms(tmp_path: Path, content: Any, indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False, indent=indent))
    (row,) = inputs.read(str(tmp_path / "a.json")).dialogues
    assert (row.fname, row.dialogue) == ("x-1", TURNS)
    assert inputs.notes([row]) == []


def test_a_folder_and_an_empty_standard_input(
    reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a folder, not a file" in complaint(reproduced, monkeypatch, tmp_path)
    assert "standard input: there is no turn in it" in complaint(reproduced, monkeypatch, "-", stdin="\n")


def test_an_unknown_model(reproduced: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    says = "no model 'gpt' in params.yaml; trained and here: llama32_3b, bart_mini, ensemble"
    assert complaint(reproduced, monkeypatch, "-", "--model", "gpt") == says


def test_models_that_are_not_here(
    reproduced: Project, joined: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = "`dvc pull` brings what was pushed, `dvc repro` trains"
    says = f"kobart is not here (models/kobart is missing); put it into `run` of params.yaml, then {how}"
    assert complaint(reproduced, monkeypatch, "-", "--model", "kobart") == says
    # What a clone has before `dvc pull`.
    clone = reproduced.clone(tmp_path / "clone")
    assert complaint(clone, monkeypatch, "-") == f"no trained model is here; {how}"
    says = f"the ensemble's member llama32_3b is not here (models/llama32_3b is missing); {how}"
    (clone.root / "models").mkdir()
    (clone.root / "models/bart_mini").symlink_to(joined.root / "models/bart_mini")
    (clone.root / "data/resolved").symlink_to(joined.root / "data/resolved")
    (clone.root / "ensemble").symlink_to(joined.root / "ensemble")
    assert complaint(clone, monkeypatch, "-", "--model", "ensemble") == says


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("bart_mini/model.safetensors", None, "*.safetensors is missing"),
        ("bart_mini/model.safetensors", b"cut", "model.safetensors is damaged (Error while"),
        ("bart_mini/config.json", b"", "config.json is damaged (Expecting value"),
        ("llama32_3b/adapter_model.safetensors", None, "*.safetensors is missing"),
        ("llama32_3b/tokenizer.json", None, "the tokenizer is missing (tokenizer.json, *.model, vocab.*)"),
        ("llama32_3b/tokenizer.json", b"{", "tokenizer.json is damaged (Expecting property name"),
        ("bart_mini/tokenizer.json", b"[]", "tokenizer.json is damaged (a JSON object is expected)"),
        ("llama32_3b/adapter_config.json", None, "adapter_config.json is missing"),
        ("llama32_3b/adapter_config.json", b"{}", "adapter_config.json is damaged (it has no peft_type)"),
    ],
)
def test_half_a_model(
    reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes | None, says: str
) -> None:
    project = reproduced.copy(tmp_path / "project")
    path = project.root / "models" / file
    path.unlink()  # It may be a link into DVC's cache.
    if content is not None:
        path.write_bytes(content)
    folder = f"models/{path.parent.name}"
    told = complaint(project, monkeypatch, "-", "--model", path.parent.name)
    assert told.startswith(f"{folder}: {says}")
    assert told.endswith(f"; `dvc checkout --force {folder}` brings it back")
    project.run("dvc", "checkout", "--force", folder)
    summarizer.check_name(summarizer.open_project(), path.parent.name)


def test_an_ensemble_that_was_not_made(reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = reproduced.copy(tmp_path / "project")
    (project.root / PLAN).unlink()
    says = "several models are here, and no ensemble of them; choose with --model: llama32_3b, bart_mini"
    assert complaint(project, monkeypatch, "-") == says
    says = "ensemble/plan.json: no such file; run `dvc repro`"
    assert complaint(project, monkeypatch, "-", "--model", "ensemble") == says


def test_nothing_is_imported_that_a_summary_does_not_need(reproduced: Project) -> None:
    """PEFT and bitsandbytes load PyTorch's compiler: a second before each first summary."""
    loaded = "print(sorted({'peft', 'bitsandbytes', 'torch._inductor.compile_fx', 'matplotlib'} & set(sys.modules)))"
    code = f"import atexit, sys; from yoyak.cli import main; atexit.register(lambda: {loaded}); main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "summarize", "-", "--model", "llama32_3b"],
        cwd=reproduced.root,
        env=reproduced.environment(),
        input=DIALOGUE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_base_weights_that_changed(reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = reproduced.copy(tmp_path / "project")
    (project.root / "twins/llama32_3b/generation_config.json").write_text("{}")
    assert "has changed since the preflight" in complaint(project, monkeypatch, "-", "--model", "llama32_3b")


def test_memory_holds_one_model_at_a_time(joined: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(joined.root)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    loaded: list[weakref.ref[Any]] = []

    def load(name: str) -> Loaded:
        assert [model for model in loaded if model() is not None] == []
        result = summarizer.load(name)
        loaded.append(weakref.ref(result.model))
        return result

    params = summarizer.open_project()
    (summaries,) = summarizer.summarize(params, ["ensemble"], [inputs.of_text(DIALOGUE, "dialogue")], load)
    assert len(loaded) == 2
    assert summaries.predictions[0].text


def test_the_only_model_needs_no_name(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["run"].update(models=["bart_mini"]))
    done = summarize(ColdProject(project.root), "-", stdin="내일 같이 등산 갈래?")
    assert done.returncode == 0, done.stderr
    assert "llama32_3b" not in done.stderr
    assert "note: standard input: nobody speaks under a label such as `#Person1#:` or `A:`" in done.stderr
