"""What users type beside the plain run: `-S` spelt this way and that, questions about the run, odd places for it."""

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from documents import quoted_of_dvc
from dvc.utils.serialize import modify_yaml
from project import ROOT, Project
from ruamel.yaml import YAML

from yoyak.core.params import read_yaml

HELD = "from dvc.repo import Repo\nwith Repo() as repo, repo.lock:\n    print('held', flush=True)\n    input()\n"
"""Holds DVC's lock until it is told to end."""
SEEN: set[str] = set()
"""What DVC has said in these tests."""


def told(project: Project, *command: str) -> str:
    """The only line that a command ends with when something is wrong."""
    failed = project.run(*command, check=False)
    assert failed.returncode == 1, failed.stdout
    (line,) = failed.stdout.splitlines()
    return line


def dvc_says(project: Project, *command: str) -> str:
    failed = project.run("dvc", *command, check=False)
    assert failed.returncode != 0
    SEEN.add(failed.stdout)
    return failed.stdout


def parameter(project: Project, *keys: str) -> Any:
    value = YAML(typ="safe").load((project.root / "params.yaml").read_text(encoding="utf-8"))
    for key in keys:
        value = value[key]
    return value


def status(project: Project) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The rows of the table by their names, and the reasons by stage."""
    table, reasons, name = {}, {}, ""
    for line in project.run("yoyak", "status").stdout.splitlines():
        cells = re.split(r" {2,}", line.strip())
        if found := re.match(r"([\w@]+): (.+)", line):
            name = found[1]
            reasons[name] = found[2].strip()
        elif not reasons and cells[0] and len(cells) > 1:
            table[cells[0]] = cells[1:]
        elif name:
            reasons[name] += f" {line.strip()}"
    return table, reasons


@pytest.fixture
def copied(reproduced: Project, tmp_path: Path) -> Project:
    return reproduced.copy(tmp_path / "project")


# A remote whose plug-in is missing


def test_a_remote_without_its_plugin_is_told_in_one_line(copied: Project) -> None:
    copied.run("dvc", "remote", "add", "--force", "--default", "storage", "gs://bucket/path")
    line = told(copied, "yoyak", "compare", "HEAD")
    assert line.startswith("error: the DVC remote is gs://…")
    assert "pip install 'dvc[gs]'" in line
    assert "requires 'dvc-gs' to be installed" in dvc_says(copied, "push")


# What -S takes, and what it leaves


def test_a_name_where_a_list_belongs_is_told_with_its_key_and_the_mend(copied: Project) -> None:
    copied.edit(lambda params: params["run"].update(models="bart_mini"))
    faults = [told(copied, "yoyak", "status"), told(copied, "yoyak", "compare", "HEAD")]
    faults.append(copied.stage("score", check=False).stdout)
    for line in faults:
        assert line.startswith("error: params.yaml: run.models: a list is expected: [bart_mini]")
        assert "-S 'run.models=[bart_mini]'" in line
    assert "'Value' object is not iterable" in dvc_says(copied, "repro")
    copied.run("dvc", "exp", "run", "--queue", "-S", "run.models=[bart_mini]")


@pytest.mark.parametrize("key", ["run.models", "run.tuned", "run.untuned", "run.averaged", "ensemble.members"])
def test_a_list_can_be_set_and_emptied(key: str, tmp_path: Path) -> None:
    """By DVC's own writing of `-S`, whatever other lists are: findings/dvc_empties_a_list_with_a_comment.sh."""
    file = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", file)
    for path, value in [("run.untuned", []), ("run.averaged", []), (key, ["a"]), (key, []), (key, ["a", "b"])]:
        section, name = path.split(".")
        with modify_yaml(file) as content:
            content[section][name] = value
        assert read_yaml(file)[section][name] == value
    assert read_yaml(file)["models"] == read_yaml(ROOT / "params.yaml")["models"]


def test_a_key_that_the_entry_lacks_takes_two_plus_signs(copied: Project) -> None:
    key = "models.bart_mini.training.warmup_ratio"
    said = dvc_says(copied, "exp", "run", "-S", f"{key}=0.1")
    assert f"To append to your config use +{key}=0.1" in said
    # The other key is there, and a single plus sign would not do.
    copied.run("dvc", "exp", "run", "--queue", "-S", f"++{key}=0.1", "-S", "++lora.r=8")
    shown = "".join(copied.run("yoyak", "experiments").stdout.split())
    assert "queued" in shown
    assert "lora.r:16→8" in shown
    assert "warmup_ratio:none→0.1" in shown


def test_korean_needs_quotes_within_the_quotes(copied: Project) -> None:
    assert "LexerNoViableAltException" in dvc_says(copied, "exp", "run", "-S", "prompts.question=요약해 주세요.")
    copied.run("dvc", "exp", "run", "--queue", "-S", "prompts.question='요약: 세 문장으로.'")
    shown = "".join(copied.run("yoyak", "experiments").stdout.split())
    assert 'prompts.question:"위대화를요약해주세요."→"요약:세문장으로."' in shown


# What would run, and why


def test_status_names_what_a_parameter_makes_stale_and_why(copied: Project) -> None:
    copied.edit(lambda params: params["lora"].update(r=8))
    table, reasons = status(copied)
    assert table["llama32_3b"] == ["stale"] * 4
    assert table["bart_mini"] == ["stale", "up to date", "up to date", "stale"]
    assert reasons["prepare_prompts"] == "lora.r: 16 → 8"
    assert reasons["train@llama32_3b"] == "lora.r"
    assert reasons["infer@llama32_3b"] == "after train@llama32_3b"
    assert "train@bart_mini" not in reasons
    # Once the first stage has run, DVC says the same, of the first stage that would run at least.
    copied.run("dvc", "repro", "--single-item", "prepare_prompts")
    would = set(re.findall(r"^Running stage '(.+)':", copied.run("dvc", "repro", "--dry").stdout, re.MULTILINE))
    table, reasons = status(copied)
    assert would == {"train@llama32_3b"}
    assert set(reasons) == {*would, "infer@llama32_3b", "score", "ensemble", "submit", "stale"}
    assert reasons["train@llama32_3b"] == "lora.r: 16 → 8"


def test_status_in_a_fresh_clone_needs_no_cache_and_changes_nothing(reproduced: Project, tmp_path: Path) -> None:
    clone = reproduced.clone(tmp_path / "clone")
    clone.edit(lambda params: params["scoring"].update(seed=7))
    before = _files(clone)
    table, reasons = status(clone)
    assert _files(clone) == before
    assert table["bart_mini"] == ["stale", "not here", "not here", "stale"]
    assert reasons["score"] == "scoring.seed: 0 → 7"
    assert "train@bart_mini" not in reasons


def _files(project: Project) -> set[Path]:
    return {path for path in project.root.rglob("*") if not {".dvc", ".git", "__pycache__"} & set(path.parts)}


def test_status_tells_edited_code_and_outputs_that_are_gone_or_not_as_written(copied: Project) -> None:
    with (copied.root / "src/yoyak/evaluation/plots.py").open("a") as file:
        file.write("# edited\n")
    shutil.rmtree(copied.root / "predictions/bart_mini")
    (copied.root / "metrics/infer/llama32_3b.json").write_text("{}")
    table, reasons = status(copied)
    assert table["bart_mini"] == ["stale", "up to date", "in the cache", "stale"]
    assert reasons["score"].endswith("src/yoyak/evaluation")
    assert reasons["infer@llama32_3b"] == "metrics/infer/llama32_3b.json is not as the stage wrote it"


def test_help_waits_for_nothing_heavy(copied: Project) -> None:
    code = (
        "import sys; from yoyak import commands; print(*{'torch', 'pandas', 'numpy', 'dvc'}.intersection(sys.modules))"
    )
    assert copied.run(sys.executable, "-c", code).stdout == "\n"


# Two terminals


@contextmanager
def held(project: Project) -> Iterator[None]:
    """As while another command of DVC's works."""
    with subprocess.Popen(
        [sys.executable, "-c", HELD],
        cwd=project.root,
        env=project.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield
        other.communicate("\n")


def test_questions_are_answered_while_dvc_works_in_another_terminal(copied: Project) -> None:
    with held(copied):
        assert "Unable to acquire lock" in dvc_says(copied, "status")
        for command in (["status"], ["compare", "HEAD"]):
            copied.run("yoyak", *command)


# Whose run it was


def test_a_run_of_uncommitted_parameters_says_so(copied: Project) -> None:
    # A detached head is as good as a branch.
    copied.run("git", "checkout", "--quiet", "--detach")
    copied.run("dvc", "exp", "run", "-S", "scoring.seed=7", "-S", "run.models=[bart_mini]")
    head = copied.run("git", "rev-parse", "HEAD").stdout.strip()
    checklist = (copied.root / "submission/checklist.md").read_text(encoding="utf-8")
    assert f"- commit: {head} with uncommitted changes\n  - run.models: " in checklist
    assert "\n  - scoring.seed: 0 → 7\n" in checklist
    copied.run("yoyak", "report")
    report = (copied.root / "report.html").read_text(encoding="utf-8")
    assert f"commit {head[:12]} with uncommitted changes: run.models: " in report
    assert "scoring.seed: 0 → 7" in report
    shown = copied.run("yoyak", "experiments").stdout
    assert "scoring.seed: 0 → 7" in " ".join(shown.split())


def test_a_committed_run_names_its_commit_alone(reproduced: Project) -> None:
    checklist = (reproduced.root / "submission/checklist.md").read_text(encoding="utf-8")
    assert re.search(r"^- commit: [0-9a-f]{40}$", checklist, re.MULTILINE)


# Outputs lie on the disk once


def test_outputs_are_links_into_the_cache_which_no_stage_writes_through(copied: Project) -> None:
    copied.run("dvc", "checkout", "--relink")
    model = copied.root / "models/bart_mini/model.safetensors"
    assert model.stat().st_nlink > 1
    copied.edit(lambda params: params["run"].update(models=["bart_mini"], seed=7))
    copied.run("dvc", "repro")
    assert model.stat().st_nlink == 2
    assert (copied.root / "predictions/bart_mini/dev.jsonl").stat().st_nlink > 1
    objects = [path for path in (copied.root / ".dvc/cache/files/md5").rglob("*") if path.is_file()]
    assert len(objects) > 40
    for path in objects:
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        assert f"{path.parent.name}{path.name.removesuffix('.dir')}" == digest


def test_data_is_unlinked_before_it_is_edited(copied: Project) -> None:
    shutil.copytree(copied.root / "data/sample", copied.root / "data/raw")
    copied.run("dvc", "add", "data/raw")
    table = copied.root / "data/raw/train.csv"
    assert table.stat().st_mode & 0o222 == 0
    copied.run("dvc", "unprotect", "data/raw")
    assert table.stat().st_nlink == 1
    assert table.stat().st_mode & 0o200
    before = (copied.root / "data/raw.dvc").read_text(encoding="utf-8")
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    copied.run("dvc", "add", "data/raw")
    assert (copied.root / "data/raw.dvc").read_text(encoding="utf-8") != before


# A project in a folder of a larger repository, and other places


@pytest.fixture(scope="module")
def inner(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project as a folder of a larger git repository, with blanks in its path."""
    outer = tmp_path_factory.mktemp("outer")
    project = reproduced.copy(outer / "our work" / "yoyak here")
    shutil.rmtree(project.root / ".git")
    (outer / "notes.txt").write_text("others' work\n")
    above = Project(outer)
    above.run("git", "init", "--quiet", "--initial-branch=main")
    above.commit("everything")
    return project


def test_a_project_inside_a_larger_repository_runs_and_compares(inner: Project) -> None:
    (inner.root.parent.parent / "notes.txt").write_text("others' work goes on\n")
    ran = inner.run("dvc", "exp", "run", "--name", "seven", "-S", "scoring.seed=7").stdout
    assert set(re.findall(r"^Running stage '(.+)':", ran, re.MULTILINE)) <= {
        "prepare_prompts",
        "score",
        "ensemble",
        "submit",
    }
    assert "scoring.seed: 0 → 7" in inner.run("yoyak", "experiments").stdout
    assert "bart_mini" in inner.run("yoyak", "compare", "HEAD", "seven").stdout
    head = inner.run("git", "rev-parse", "HEAD").stdout.strip()
    inner.run("yoyak", "report")
    report = (inner.root / "report.html").read_text(encoding="utf-8")
    assert f"commit {head[:12]} with uncommitted changes: scoring.seed: 0 → 7</p>" in report


def test_commands_work_in_a_folder_of_the_project(inner: Project) -> None:
    folder = Project(inner.root / "data/sample")
    folder.environment = inner.environment  # type: ignore[method-assign]
    table, _ = status(folder)
    assert table["bart_mini"] == ["up to date"] * 4
    assert folder.run("yoyak", "report").stdout == "../../report.html\n"
    noted = folder.run("yoyak", "submissions", "add", "../../submission/submission.csv", "--public", "47.1").stdout
    assert "47.10" in noted
    assert (inner.root / "submissions.csv").exists()


def test_without_git_the_commands_tell_what_dvc_needs(copied: Project) -> None:
    shutil.rmtree(copied.root / ".git")
    assert "is not a git repository" in dvc_says(copied, "repro")
    assert "`git init`" in told(copied, "yoyak", "status")
    copied.run("dvc", "config", "--local", "core.no_scm", "true")
    copied.run("yoyak", "status")
    for command in ("experiments", "clean"):
        assert told(copied, "yoyak", command).startswith("error: this needs git, which core.no_scm switches off")


def test_line_ends_stay_as_committed_whatever_git_is_set_to(tmp_path: Path) -> None:
    """With CRLF no script runs, and no hash of `dvc.lock` is right."""
    project = Project(tmp_path / "project")
    project.root.mkdir()
    for name in (".gitattributes", "Makefile", "params.yaml"):
        shutil.copyfile(ROOT / name, project.root / name)
    project.run("git", "init", "--quiet")
    project.commit()
    project.run("git", "-c", "core.autocrlf=true", "clone", "--quiet", ".", str(tmp_path / "cloned"))
    for name in ("Makefile", "params.yaml"):
        assert (tmp_path / "cloned" / name).read_bytes() == (ROOT / name).read_bytes()


def test_a_lock_file_that_a_kill_has_emptied_is_removed(copied: Project) -> None:
    (copied.root / ".dvc/tmp/rwlock").write_text("")
    assert "Unable to read RWLock-file" in dvc_says(copied, "repro")
    assert "rwlock was cut off by a kill" in copied.run("yoyak", "doctor", check=False).stdout
    assert copied.run("yoyak", "status").stdout.startswith("removed .dvc/tmp/rwlock: DVC was killed over it")
    copied.run("dvc", "status")


def test_what_troubleshooting_quotes_of_dvc_it_has_said() -> None:
    """The last test of this file: by then the others have heard it."""
    quoted = quoted_of_dvc(ROOT / "docs/troubleshooting.md")
    assert len(quoted) >= 5
    for quote in quoted:
        assert any(quote.replace("…", "") in said for said in SEEN), quote
