"""A file that is damaged, a user's or one of our own, is refused in one line of some length: there is no traceback."""

import contextlib
import io
import json
import os
import random
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import damaged
from project import ROOT
from ruamel.yaml import YAML
from written_run import write_run

from yoyak.core import ended_work
from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS, read_section
from yoyak.core.records import Candidate, Prompt, Reference, write_records
from yoyak.core.run import RunParams
from yoyak.data.dialogues import DataParams, read_dialogues, read_references
from yoyak.ensembling import weighting
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.run import ensemble
from yoyak.ensembling.weighting import EnsembleParams
from yoyak.evaluation import external, leaderboard
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.evaluation.run import score_run
from yoyak.inference import partial
from yoyak.inference.params import read_config
from yoyak.modeling import weights
from yoyak.preflight.check import read_params
from yoyak.preflight.prepare import read_data
from yoyak.preflight.resolve import OUTPUTS, resolve
from yoyak.reporting import console, html
from yoyak.serving import inputs
from yoyak.submission import history
from yoyak.submission.file import SubmissionParams
from yoyak.submission.run import submit
from yoyak.training.params import read_config as read_training_config

LONGEST_LINE = 2000
TIMES = int(os.environ.get("DAMAGES", "100"))
"""Damages to each file: `DAMAGES=2000 pytest tests/pipeline/test_damage.py` takes longer than a test should."""
TIMES_OF_WHOLE_STAGES = max(8, TIMES // 20)
SCORING = ScoringParams(tokenizer="whitespace", library="rouge", references="mean", bootstrap_samples=100, seed=0)
DIALOGUES = [["#Person1#: 저녁에 만날까요?", "#Person2#: 네, 좋아요."], ["#Person1#: 환불해 주세요.", "#Person2#: 네."]]
REFERENCES = [
    Reference(fname="dev_0", summaries=("#Person1#은 저녁에 만나자고 한다.",), topic="약속"),
    Reference(fname="dev_1", summaries=("#Person1#은 환불을 요청한다.",)),
]
SAID = {
    "model_0": ["#Person1#은 저녁 약속을 제안한다.", "#Person1#은 환불을 원한다."],
    "model_1": ["만난다.", "환불한다."],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged") / "project"
    project = write_run(root, DIALOGUES, REFERENCES, SAID)
    train = [Prompt(fname="train_0", system="", turns=("가",), question="", summary="나는 간다.")]
    write_records(root / "data/prompts/train.jsonl", train)
    (root / "data/sample/sample_submission.csv").write_text(",fname,summary\n0,dev_0,가\n")
    project.stage("submit")
    shutil.copy(root / "submission/submission.csv", root / "sent.csv")
    (root / "submissions.csv").write_text(
        "time,sha256,commit,experiment,dev,public,private,note\n"
        f"2026-01-02T03:04:05Z,{'0' * 64},abc,,47.5,46,,first\n2026-01-03T03:04:05Z,{'1' * 64},abd,e,48,47,46.5,\n"
    )
    partial.append(root / "partial.jsonl", 0, [Candidate(text="가", log_probability=-1.0, finished=True)])
    partial.append(root / "partial.jsonl", 1, [Candidate(text="나", log_probability=-2.0, finished=False)])
    work = root / ".cache/checkpoints/a-0"
    work.mkdir(parents=True)
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    ended_work.mark(work, root / "metrics/scores.json")
    (root / "rows.jsonl").write_text('{"fname": "a", "dialogue": "#Person1#: 가"}\n{"fname": "b", "dialogue": "나"}\n')
    (root / "rows.json").write_text(json.dumps(CORPUS))
    (root / "summaries.csv").write_text("fname,summary\n" + "".join(f'{r.fname},"간다, 온다."\n' for r in REFERENCES))
    (root / "expected.csv").write_text("fname,summary,dialogue\ndev_0,간다.,#Person1#: 가\ndev_1,온다.,#Person1#: 나\n")
    shutil.copy(ROOT / "params.yaml", root)
    (root / "params.json").write_text(json.dumps(YAML(typ="safe").load((root / "params.yaml").read_text())))
    for kind in ("training", "generation"):
        (root / f"{kind}.json").write_text(json.dumps(_resolved(root, kind)))
        resolved = root / f"data/resolved/llama32_3b/{kind}.yaml"
        resolved.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / f"{kind}.json", resolved)
    shutil.copytree(ROOT / "metrics", root / "committed/metrics")
    return root


CORPUS = [
    {"header": {"dialogueInfo": {"dialogueID": "a"}}, "body": {"dialogue": [{"speaker": "A", "utterance": "가"}]}}
]


def _resolved(root: Path, kind: str) -> Any:
    return getattr(resolve(read_params(root / "params.yaml"), "llama32_3b", None), kind).model_dump(mode="json")


def _prepared() -> object:
    """What the first stage reads before it looks for weights."""
    data = read_params(PARAMS).data
    return read_data(data)


def _submissions() -> object:
    console.submissions_tables(history.read(Path()))
    kept = Path("submissions.csv").read_bytes()
    try:
        return history.add(Path(), Path("sent.csv"), 47.0, None, "다")
    finally:
        # Once it is noted, no checklist is read for it.
        Path("submissions.csv").write_bytes(kept)


def _ensemble() -> object:
    repairs = read_section(PostprocessingParams, "postprocessing")
    ensemble(list(SAID), read_section(EnsembleParams, "ensemble"), SCORING, repairs)


def _submit() -> object:
    submit(read_section(DataParams, "data"), read_section(SubmissionParams, "submission"))


def _summarised(name: str) -> Callable[[], object]:
    return lambda: inputs.read(name)


READERS: dict[str, list[Callable[[], object]]] = {
    "committed/metrics/scores.json": [lambda: console.print_run(Path("committed"))],
    "committed/metrics/ensemble.json": [lambda: console.print_run(Path("committed"))],
    "committed/metrics/postprocessing.json": [lambda: console.print_run(Path("committed"))],
    "metrics/scores.json": [lambda: html.write(Path("report.html"))],
    "metrics/ensemble.json": [lambda: html.write(Path("report.html"))],
    "metrics/postprocessing.json": [lambda: html.write(Path("report.html"))],
    "scores/rows.csv": [
        lambda: weighting.dev_scores(Path("scores/rows.csv"), list(SAID), [row.fname for row in REFERENCES]),
        lambda: html.write(Path("report.html")),
        _ensemble,
    ],
    "scores/breakdowns.csv": [lambda: html.write(Path("report.html"))],
    "plots/training/model_0/epochs.csv": [
        lambda: html.write(Path("report.html")),
        lambda: score_run(list(SAID), [], [], SCORING),
    ],
    "predictions/model_0/dev.jsonl": [lambda: score_run(list(SAID), [], [], SCORING), _ensemble],
    "predictions/model_1/test.jsonl": [_ensemble],
    "data/prompts/dev.jsonl": [lambda: leaderboard.read_split("dev"), lambda: score_run(list(SAID), [], [], SCORING)],
    "data/references/dev.jsonl": [lambda: score_run(list(SAID), [], [], SCORING), _ensemble],
    "data/prompts/train.jsonl": [_submit],
    "data/prompts/test.jsonl": [_submit],
    "ensemble/test.jsonl": [_submit],
    "ensemble/dev_score.json": [_submit],
    "ensemble/plan.json": [weighting.read_plan],
    "submission/checklist.json": [_submissions],
    "submissions.csv": [_submissions],
    "sent.csv": [_submissions],
    "partial.jsonl": [lambda: partial.read_partial(Path("partial.jsonl"))],
    ".cache/checkpoints/a-0/ended": [ended_work.delete_saved],
    "rows.jsonl": [_summarised("rows.jsonl"), lambda: read_dialogues(Path("rows.jsonl"), with_summary=False)],
    "rows.json": [_summarised("rows.json"), lambda: read_references(Path("rows.json"))],
    "summaries.csv": [lambda: external.score_files(Path("summaries.csv"), Path("expected.csv"), SCORING)],
    "expected.csv": [lambda: external.score_files(Path("summaries.csv"), Path("expected.csv"), SCORING)],
    "params.yaml": [lambda: read_params(PARAMS), lambda: read_section(RunParams, "run")],
    "params.json": [lambda: read_params(Path("params.json"))],
    "data/sample/train.csv": [_prepared],
    "data/sample/dev.csv": [_prepared],
    "data/sample/test.csv": [_prepared],
    "data/sample/sample_submission.csv": [_submit],
    "training.json": [lambda: read_training_config(Path("training.json"))],
    "generation.json": [lambda: read_config(Path("generation.json"))],
    "weights.lock.yaml": [lambda: weights.pin("scratch", "models.a.weights") or weights._recorded("x/y")],
}
WHOLE_STAGES = {
    *("committed/metrics/scores.json", "committed/metrics/ensemble.json", "committed/metrics/postprocessing.json"),
    *("metrics/scores.json", "metrics/ensemble.json", "metrics/postprocessing.json"),
    *("scores/rows.csv", "scores/breakdowns.csv", "plots/training/model_0/epochs.csv", "predictions/model_0/dev.jsonl"),
    *("predictions/model_1/test.jsonl", "data/prompts/dev.jsonl", "data/references/dev.jsonl", "ensemble/test.jsonl"),
    *("data/prompts/train.jsonl", "data/prompts/test.jsonl", "ensemble/dev_score.json", "params.yaml", "params.json"),
    *("data/sample/train.csv", "data/sample/dev.csv", "data/sample/test.csv", "data/sample/sample_submission.csv"),
}
"""Whose reader takes long: a report, a stage, all of the parameters."""


def attack(path: str, reader: Callable[[], object], seed: int) -> str:
    """The error line of a reader that meets the damaged file; empty where it can do with it."""
    file = Path(path)
    kept = file.read_bytes()
    file.write_bytes(damaged(kept, file.suffix.removeprefix("."), random.Random(f"{path} {seed}")))
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            reader()
    except UserError as error:
        return str(error)
    finally:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kept)
    return ""


@pytest.mark.parametrize("path", READERS)
def test_a_damaged_file_is_refused_in_one_line_or_read(run: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(run)
    times = TIMES_OF_WHOLE_STAGES if path in WHOLE_STAGES else TIMES
    lines = [attack(path, reader, seed) for seed in range(times) for reader in READERS[path]]
    assert any(lines)
    assert max(map(len, lines)) <= LONGEST_LINE


def test_a_damaged_curve_leaves_all_outputs_of_the_stage_as_they_were(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns(".git"))
    monkeypatch.chdir(tmp_path / "run")
    Path("plots/training/model_1/epochs.csv").write_text("epoch,loss\n1,much\n")
    outputs = [Path(name) for name in ("metrics/scores.json", "scores/rows.csv", "scores/breakdowns.csv")]
    before = [path.read_bytes() for path in outputs]
    with pytest.raises(UserError, match=r"epochs.csv, row 1, column 'loss': a number is expected; run `dvc repro`$"):
        score_run(list(SAID), [], [], SCORING)
    assert [path.read_bytes() for path in outputs] == before


SECTIONS = {
    "prepare_prompts": (
        *("run", "data", "prompts", "lora", "quantization", "training", "tuning", "generation", "scoring", "ensemble"),
        *("postprocessing", "submission", "tracking", "limits", "models"),
    ),
    "train llama32_3b": ("limits", "tracking"),
    "infer llama32_3b": ("limits",),
    "score": ("run", "scoring"),
    "ensemble": ("run", "scoring", "postprocessing", "ensemble"),
    "submit": ("data", "submission"),
}


@pytest.mark.parametrize(("command", "section"), [(stage, key) for stage, keys in SECTIONS.items() for key in keys])
def test_a_stage_alone_names_the_section_that_is_missing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, section: str
) -> None:
    monkeypatch.chdir(run)
    kept = PARAMS.read_text()
    content = YAML(typ="safe").load(kept)
    assert set(SECTIONS["prepare_prompts"]) == set(content)
    del content[section]
    PARAMS.write_text(json.dumps(content))
    try:
        told = told_by(command, monkeypatch, capsys)
    finally:
        PARAMS.write_text(kept)
    assert told == f"error: params.yaml: {section}: this key is missing; add it\n"


@pytest.mark.parametrize("stage", ["train", "infer", "members"])
def test_a_stage_alone_asks_for_its_model(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    monkeypatch.chdir(run)
    assert "which model? `dvc repro` calls it with a name" in told_by(stage, monkeypatch, capsys)
    assert "nobody/generation.yaml: no such file" in told_by("members nobody", monkeypatch, capsys)
    assert "models/llama32_3b: no such folder; run `dvc repro`" in told_by("members llama32_3b", monkeypatch, capsys)


def told_by(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a stage's script prints on stderr when it stops."""
    stage, *arguments = command.split()
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", *arguments])
    with pytest.raises(SystemExit):
        runpy.run_path(f"stages/{stage}.py", run_name="__main__")
    return capsys.readouterr().err


def test_no_folder_of_a_user_is_one_that_stages_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"].values()
    written = [name for stage in stages for key in ("outs", "metrics", "plots") for name in stage.get(key, [])]
    names = [next(iter(name)) if isinstance(name, dict) else name for name in written]
    assert all(any(Path(name).is_relative_to(output) for output in OUTPUTS) for name in names)

    monkeypatch.chdir(tmp_path)
    kept = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    models = kept["models"]
    for output in OUTPUTS:
        for change, told in (
            ({"data": {**kept["data"], "dir": output}}, f"params.yaml: data.dir: {output} is in {output}/"),
            ({"data": {**kept["data"], "dir": f"./{output}/x"}}, f"params.yaml: data.dir: {output}/x is in {output}/"),
            (
                {"models": {**models, "a": models["kot5"] | {"weights": f"./{output}/x"}}},
                f": ./{output}/x is in {output}/",
            ),
        ):
            PARAMS.write_text(json.dumps(kept | change))
            with pytest.raises(UserError) as error:
                read_params(PARAMS)
            assert told in str(error.value)
            assert str(error.value).endswith("which the pipeline writes; move it elsewhere")
    PARAMS.write_text(json.dumps(kept | {"data": {**kept["data"], "dir": "data"}}))
    with pytest.raises(UserError, match=r"data.dir: data holds data/\w+/, which the pipeline writes; move it into a"):
        read_params(PARAMS)


@pytest.mark.parametrize("name", ["../../etc/hostname", "/etc/hostname", "a/../../b.csv", "..", "", "."])
def test_a_file_outside_the_data_folder_is_refused_unread(tmp_path: Path, name: str) -> None:
    kept = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    for key in ("train", "dev", "test", "sample_submission", "test_references"):
        path = tmp_path / "params.yaml"
        path.write_text(json.dumps(kept | {"data": {**kept["data"], key: name}}))
        with pytest.raises(UserError) as error:
            read_params(path)
        assert (
            str(error.value) == f"{path}: data.{key}: a file inside data.dir is expected; put it there (got {name!r})"
        )
