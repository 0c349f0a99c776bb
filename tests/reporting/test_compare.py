"""`yoyak compare`: two revisions of a real git and DVC repository."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from project import ROOT, Project

from yoyak.evaluation import leaderboard
from yoyak.metrics.rouge import COMPETITION

MODELS = ("alpha", "beta")
REFERENCES = [
    f"#Person1#은 {name}에게 오늘 저녁 회의를 알립니다." for name in ("민지", "수호", "영희", "철수", "지우", "[b]")
]
FAR = "전혀 다른 말을 했다."


def write_run(project: Project, said: Mapping[str, list[str]], references: list[str] = REFERENCES) -> None:
    """What the stages leave of a run in which the models say this of each dev row."""
    names = [f"dev_{place}" for place in range(len(references))]
    write_jsonl(
        project,
        "data/references/dev.jsonl",
        [{"fname": fname, "summaries": [text]} for fname, text in zip(names, references, strict=True)],
    )
    lines = ["split,model,fname,rouge_mean"]
    for model, texts in said.items():
        write_jsonl(
            project,
            f"predictions/{model}/dev.jsonl",
            [{"fname": fname, "text": text} for fname, text in zip(names, texts, strict=True)],
        )
        for fname, text, reference in zip(names, texts, references, strict=True):
            lines.append(f"dev,{model},{fname},{90.5 if text == reference else 12.25}")
    lines += [f"dev,baseline/lead_1,{names[0]},1.0", f"test,{next(iter(said))},test_0,50"]
    (project.root / "scores").mkdir(exist_ok=True)
    (project.root / "scores/rows.csv").write_text("\n".join(lines) + "\n")
    rule = {
        "tokenizer": "mecab",
        "tokenizer_version": "1",
        "dictionary": "1",
        "library": "rouge 1.0.1",
        "references": "mean",
    }
    (project.root / "metrics").mkdir(exist_ok=True)
    (project.root / "metrics/scores.json").write_text(json.dumps({"scoring": rule, "models": dict.fromkeys(said)}))


def write_jsonl(project: Project, path: str, rows: list[dict[str, Any]]) -> None:
    (project.root / path).parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    # DVC's cache may be linked into the folder: written anew, not into it.
    (project.root / path).unlink(missing_ok=True)
    (project.root / path).write_text(content)


def keep(project: Project) -> None:
    project.run(
        "dvc", "add", "--quiet", "scores/rows.csv", "data/references", *(f"predictions/{name}" for name in MODELS)
    )
    project.commit()


def with_the_library(root: Path) -> Project:
    """An empty folder, in which the command is this library's."""
    root.mkdir()
    (root / "src").symlink_to(ROOT / "src")
    return Project(root)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two revisions: `alpha` has learned all rows but the last, `beta` has lost the first; the rest is as before."""
    project = with_the_library(tmp_path / "project")
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("dvc", "init", "--quiet")
    write_run(project, {"alpha": [FAR] * 6, "beta": REFERENCES})
    keep(project)
    project.run("git", "tag", "first")
    write_run(project, {"alpha": [*REFERENCES[:5], FAR], "beta": [FAR, *REFERENCES[1:]]})
    keep(project)
    return project


def compare(project: Project, *revisions: str) -> str:
    return project.run("env", "COLUMNS=100", project.program("yoyak"), "compare", *revisions).stdout


def fails(project: Project, *revisions: str) -> str:
    done = project.run("yoyak", "compare", *revisions, check=False)
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    return line


def test_what_got_better_and_worse(project: Project) -> None:
    said = compare(project, "first", "HEAD")
    assert re.search(r"alpha +12\.25 +77\.46 +\+65\.21 \[39\.1, 78\.2\] +0\.\d+ .*5 +0 +1\b", said)
    assert re.search(r"beta +90\.50 +77\.46 +-13\.04 \[-39\.1, 0\.0\] +1\.000 +noise +0 +1 +5\b", said)
    assert "6 rows." in said
    assert "alpha: better" in said
    assert "alpha: worse" not in said
    worse = said[said.index("beta: worse") :]
    lines = [line.strip() for line in worse.splitlines()[1:5]]
    assert lines == [
        "dev_0     90.5 → 12.2 (-78.2)",
        f"reference {REFERENCES[0]}",
        f"before    {REFERENCES[0]}",
        f"after     {FAR}",
    ]
    assert max(map(len, said.splitlines())) <= 100


def test_the_other_way_round_and_with_itself(project: Project) -> None:
    assert "-65.21" in compare(project, "HEAD", "first")
    assert re.search(r"alpha .* \+0\.00 .* 1\.000 +noise +0 +0 +6\b", compare(project, "HEAD", "HEAD"))


def test_the_workspace(project: Project) -> None:
    write_run(project, {"alpha": REFERENCES, "beta": REFERENCES})
    said = compare(project, "HEAD")
    assert said == compare(project, "HEAD", "workspace")
    assert "\ndev_5     12.2 → 90.5 (+78.2)" in said
    assert REFERENCES[5] in said, "square brackets are no markup"


def test_rows_with_other_references_are_left_out(project: Project) -> None:
    others = [*REFERENCES[:5], "다른 요약입니다."]
    write_run(project, {"alpha": others, "beta": others}, others)
    said = compare(project, "HEAD")
    told = "5 rows; 1 of HEAD and 1 of workspace stand in one alone, or have other references."
    assert told in " ".join(said.split())


def write_ensemble(project: Project, texts: list[str]) -> None:
    rows = [{"fname": f"dev_{place}", "text": text} for place, text in enumerate(texts)]
    write_jsonl(project, "ensemble/dev.jsonl", rows)


def test_the_ensemble_is_compared_like_a_model(project: Project) -> None:
    write_ensemble(project, [FAR, *REFERENCES[1:]])
    project.run("dvc", "add", "--quiet", "ensemble")
    project.commit()
    write_ensemble(project, REFERENCES)
    said = compare(project, "HEAD")
    (far,) = leaderboard.score([FAR], [REFERENCES[:1]], COMPETITION).mean(axis=1)
    assert 0 < far < 50
    before, gain = (500 + far) / 6, (100 - far) / 6
    assert re.search(rf"ensemble +{before:.2f} +100\.00 +\+{gain:.2f} .* 1 +0 +5\b", said)
    assert said.index("ensemble") < said.index("alpha")
    assert f"dev_0     {far:.1f} → 100.0" in said
    assert REFERENCES[0] in said[said.index("ensemble: better") :]
    # It was not made there.
    assert "ensemble" not in compare(project, "first", "HEAD")


def test_an_experiment(project: Project) -> None:
    (project.root / "params.yaml").write_text("a: 1\n")
    (project.root / "dvc.yaml").write_text("stages:\n  nothing:\n    cmd: 'true'\n    params: [a]\n")
    project.commit()
    project.run("dvc", "exp", "run", "--quiet", "--name", "tried", "--set-param", "a=2")
    assert "+65.21" in compare(project, "first", "tried")


def no_models_in_common(project: Project) -> None:
    write_run(project, {"gamma": REFERENCES})


def no_rows_in_common(project: Project) -> None:
    others = ["다른 요약입니다."] * 6
    write_run(project, {"alpha": others, "beta": others}, others)


def another_rule(project: Project) -> None:
    path = project.root / "metrics/scores.json"
    path.write_text(path.read_text().replace("mecab", "kiwi"))


def nothing_run(project: Project) -> None:
    (project.root / "scores/rows.csv").unlink()
    (project.root / "scores/rows.csv.dvc").unlink()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (no_models_in_common, "no model in common: HEAD has alpha, beta; workspace has gamma"),
        (no_rows_in_common, "HEAD and workspace have no dev row in common, with the same references"),
        (another_rule, "scores are not comparable: tokenizer is mecab at HEAD, kiwi at workspace"),
        (nothing_run, "workspace: no scores/rows.csv there; was dvc.lock committed after `dvc repro`?"),
    ],
)
def test_what_cannot_be_compared(project: Project, change: Callable[[Project], None], told: str) -> None:
    change(project)
    assert fails(project, "HEAD", "workspace") == f"error: {told}"


@pytest.mark.parametrize("path", ["dvc.yaml", "dvc.lock"])
def test_what_dvc_cannot_read(project: Project, path: str) -> None:
    """It was as if the ensemble had not been made."""
    (project.root / "dvc.yaml").write_text("stages:\n  nothing:\n    cmd: 'true'\n")
    (project.root / path).write_text("a: [")
    assert fails(project, "HEAD").startswith(f"error: workspace: unable to read: '{path}'")


def cut(content: bytes) -> bytes:
    return content[: content.index(b"dev_4")]


SCORES, ROWS, TEXTS = "metrics/scores.json", "scores/rows.csv", "predictions/alpha/dev.jsonl"
SPOILT: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "half a line of JSON": (SCORES, lambda _: b"{", ", line 1: not valid JSON: "),
    "no keys": (SCORES, lambda _: b"{}", ": the key 'scoring' is missing"),
    "a list": (SCORES, lambda _: b"[]", ": an object is expected"),
    "no text": (SCORES, lambda _: b"\xff", ", line 1: not UTF-8 (byte 0)"),
    "no rows": (ROWS, lambda _: b"", ": cannot be read as CSV: "),
    "a row cut off": (ROWS, cut, ", row "),
    "rows cut off": (ROWS, lambda content: content[: content.index(b"dev,beta,dev_4")], ": scores of beta are not of "),
    "a model cut off": (ROWS, lambda content: content[: content.index(b"dev,beta")], ": scores of beta are not of "),
    "no score": (ROWS, lambda content: content.replace(b"90.5", b"", 1), ", row "),
    "a row twice": (ROWS, lambda content: content + b"dev,beta,dev_0,1\n", ": two dev scores of beta for dev_0; "),
    "fewer texts": (TEXTS, lambda content: content[: content.index(b'{"fname": "dev_4"')], ": not of the rows that "),
    "texts cut off": (TEXTS, cut, ", line 5: an object with fname and text is expected"),
    "no texts": (TEXTS, lambda _: b"", ", line 1: an object with fname and text is expected"),
}


@pytest.mark.parametrize(("path", "spoil", "told"), SPOILT.values(), ids=SPOILT)
def test_a_spoilt_file_is_named(project: Project, path: str, spoil: Callable[[bytes], bytes], told: str) -> None:
    content = (project.root / path).read_bytes()
    (project.root / path).unlink()
    (project.root / path).write_bytes(spoil(content))
    assert fails(project, "HEAD").startswith(f"error: workspace: {path}{told}")


def test_an_unknown_revision(project: Project) -> None:
    expected = "error: no revision 'nosuch'; a git revision, a DVC experiment or workspace is expected"
    assert fails(project, "nosuch", "HEAD") == expected


def test_what_is_not_in_the_cache(project: Project, tmp_path: Path) -> None:
    clone = project.clone(tmp_path / "clone")
    assert fails(clone, "first", "HEAD") == (
        "error: first: scores/rows.csv is not in DVC's cache; `dvc fetch --all-commits` brings what was pushed, "
        "`dvc exp pull` an experiment's; where nothing was pushed, commit a run of your own"
    )


def test_outside_a_repository(tmp_path: Path) -> None:
    bare = with_the_library(tmp_path / "bare")
    assert fails(bare, "HEAD").startswith("error: no DVC repository here or above")
