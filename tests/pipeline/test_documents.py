"""What the documents say is there: commands, links, messages, parameters, figures."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
from documents import (
    PAGES,
    READMES,
    anchors,
    blocks,
    facts,
    links,
    makefile_messages,
    messages,
    named,
    prose,
    quoted_messages,
    typed,
)
from dvc.cli import parse_args
from dvc.utils.collections import merge_dicts
from dvc.utils.hydra import apply_overrides
from project import ROOT
from ruamel.yaml import YAML
from typer import Typer
from typer.main import get_command

from yoyak.commands import app
from yoyak.core.language import Language
from yoyak.core.params import Section
from yoyak.preflight import add_folds
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params
from yoyak.sweeps import cli as sweeps

DOCUMENTS = (*READMES, *PAGES, *(ROOT / path for path in ("data/README.md", "sweeps/README.md", "CONTRIBUTING.md")))
PAIRS = [(path, path.with_name(f"{path.stem.removesuffix('.md')}.ko.md")) for path in DOCUMENTS]
KOREAN = [(english, korean) for english, korean in PAIRS if korean.exists()]
SRC = ROOT / "src/yoyak"
MOST_LINES = 130
SHORTEST_QUOTE = 10
SUBCOMMANDS: Any = get_command(app).commands  # type: ignore[attr-defined]
ELSEWHERE = ("apt", "docker", "export", "iconv", "pip", "pre-commit", "rm")
"""Programs of the system."""


def name(path: object) -> str:
    return path.relative_to(ROOT).as_posix() if isinstance(path, Path) else str(path)


# Commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_command_can_be_typed(document: Path, tmp_path: Path) -> None:
    for program, *arguments in dict.fromkeys(typed(document)):
        if program not in ELSEWHERE:
            CHECKS[program](arguments, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_command_that_is_named_is_there(document: Path, tmp_path: Path) -> None:
    """Prose may name a command without what it needs: `yoyak score`."""
    for program, *arguments in dict.fromkeys(named(document)):
        if program == "dvc":
            with pytest.raises(SystemExit, match=r"^0$"):
                parse_args([*takewhile(lambda word: word.islower() and word.isalpha(), arguments), "--help"])
        elif program != "yoyak" or len(arguments) > 1:
            CHECKS[program](arguments, tmp_path)
        else:
            assert arguments[0] in SUBCOMMANDS


def check_make(arguments: list[str], folder: Path) -> None:
    """Targets are the Makefile's, a pattern's file is there, and variables are read by it."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    for argument in arguments:
        variable, is_variable, _ = argument.partition("=")
        if is_variable:
            assert f"$({variable})" in makefile
        elif argument.startswith("extra-"):
            assert argument.removeprefix("extra-") in extras(makefile)
        elif argument.startswith("weights-"):
            assert (ROOT / f"requirements/{argument.removeprefix('weights-')}.txt").exists() or "…" in argument
        else:
            assert argument in targets


def extras(makefile: str) -> set[str]:
    """What `make extra-…` has, each of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (listed,) = re.findall(r"^EXTRAS := .*,(.*)\)$", makefile, re.MULTILINE)
    assert set(listed.split()) < set(project["optional-dependencies"])
    return set(listed.split())


def check_dvc(arguments: list[str], folder: Path) -> None:
    """DVC knows the options; stages are of dvc.yaml; what `-S` changes leaves `params.yaml` valid."""
    asked = parse_args(arguments)
    if arguments[0] == "repro":
        stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
        assert set(asked.targets) <= set(stages)
    if overrides := getattr(asked, "set_param", None):
        path = folder / "params.yaml"
        shutil.copyfile(ROOT / "params.yaml", path)
        apply_overrides(path, overrides)
        read_params(path)


def check_yoyak(arguments: list[str], folder: Path) -> None:
    if arguments[0] == "--lang":
        assert arguments[1] in get_args(Language)
        arguments = arguments[2:]
    if arguments:
        check_subcommand(app, arguments)


def check_subcommand(program: Typer, arguments: list[str]) -> None:
    """The subcommand is there, and takes these arguments."""
    command: Any = get_command(program)
    rest = list(arguments)
    while hasattr(command, "commands") and rest:
        command = command.commands[rest.pop(0)]
    command.make_context("program", rest)


def check_git(arguments: list[str], folder: Path) -> None:
    known = subprocess.run(["git", "--list-cmds=builtins"], text=True, capture_output=True, check=True).stdout.split()
    assert arguments[0] in known


def check_python(arguments: list[str], folder: Path) -> None:
    """The script is there, and its text has each option; the module is there, and takes these arguments."""
    script, *rest = arguments
    if arguments[:2] == ["-m", "yoyak.sweeps"]:
        check_subcommand(sweeps.app, rest[1:])
        return
    if script == "-m":
        assert find_spec(rest[0])
        return
    text = (ROOT / script).read_text(encoding="utf-8")
    for option in (argument for argument in rest if argument.startswith("--")):
        assert f'"{option}"' in text


def check_hf(arguments: list[str], folder: Path) -> None:
    assert "hf" in entry_points(group="console_scripts").names
    assert arguments[0] == "auth"


def check_ray(arguments: list[str], folder: Path) -> None:
    """Ray, which this environment has not, knows the command and its options."""
    parse = "import sys, ray.scripts.scripts as ray; ray.cli.commands[sys.argv[1]].make_context('ray', sys.argv[2:])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache/ray")}
    subprocess.run([sys.executable, "-c", parse, *arguments], env=environment, check=True)


def check_source(arguments: list[str], folder: Path) -> None:
    assert arguments == [".venv/bin/activate"]


CHECKS: dict[str, Callable[[list[str], Path], None]] = {
    "make": check_make,
    "dvc": check_dvc,
    "yoyak": check_yoyak,
    "git": check_git,
    "python": check_python,
    "hf": check_hf,
    "ray": check_ray,
    "source": check_source,
}


@pytest.mark.parametrize(("english", "korean"), KOREAN, ids=name)
def test_both_languages_have_the_same_commands(english: Path, korean: Path) -> None:
    assert typed(english) == typed(korean)
    assert blocks(english, "yaml") == blocks(korean, "yaml")


@pytest.mark.parametrize(("english", "korean"), KOREAN, ids=name)
def test_both_languages_have_the_same_facts(english: Path, korean: Path) -> None:
    """Headings, pictures, rows of tables, codes and figures."""
    assert facts(english) == facts(korean)


@pytest.mark.parametrize("korean", [korean for _, korean in KOREAN], ids=name)
def test_a_korean_page_leads_to_korean_pages(korean: Path) -> None:
    own = korean.name.replace(".ko.md", ".md")
    for link in links(korean):
        target = korean.parent / unquote(link).partition("#")[0]
        has_korean = target.suffix == ".md" and target.with_suffix(".ko.md").exists()
        assert target.name == own or not has_korean, link


def test_where_a_user_starts_there_are_both_languages() -> None:
    korean = {name(english) for english, _ in KOREAN}
    pages = ("index", "summarize", "competition", "models", "experiments", "scoring")
    assert korean == {"README.md", *(f"docs/{page}.md" for page in pages)}


def test_make_help_lists_the_targets() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    for target in ("setup", "repro", "test", "weights", "docs"):
        assert re.search(rf"^ +make {target} +\S", listed, re.MULTILINE)


def test_the_example_of_averages_can_run(tmp_path: Path) -> None:
    path, yaml = tmp_path / "params.yaml", YAML()
    shutil.copyfile(ROOT / "params.yaml", path)
    entries = [*add_folds.add_entries(path, "kobart", 5), *add_folds.add_entries(path, "qwen25_3b", 2)]
    content = yaml.load(path.read_text(encoding="utf-8"))
    (example,) = blocks(ROOT / "docs/competition.md", "yaml")
    merge_dicts(content, yaml.load(example))
    content["run"].update(models=entries, tuned=["qwen25_3b_f0", "qwen25_3b_f1"], untuned=[])
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    assert read_params(path).run.averaged == ["kobart_avg", "qwen_mean"]


# Links, languages, sizes


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_each_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        target, _, anchor = unquote(link).partition("#")
        path = document.parent / target if target else document
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


@pytest.mark.parametrize("readme", READMES, ids=name)
def test_a_readme_is_read_at_one_sitting(readme: Path) -> None:
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_belongs_to_a_numbered_step_is_indented_by_four(page: Path) -> None:
    """GitHub takes three blanks, too; the site begins to count anew behind them."""
    assert re.findall(r"^ {3}\S.*", page.read_text(encoding="utf-8"), re.MULTILINE) == []


def test_each_page_is_reached_from_the_readme() -> None:
    linked = {link.partition("#")[0] for readme in READMES for link in links(readme)}
    assert {f"docs/{page.name}" for page in PAGES} <= linked


# Figures


@pytest.mark.parametrize("readme", READMES, ids=name)
def test_the_measured_results_stand_in_the_document_that_they_name(readme: Path) -> None:
    rows = re.findall(r"^\| \[.*?\]\((docs/\w+\.md)#.*?\).*? \| (.*?) \| (.*?) \| .*NVIDIA .*\|$", prose(readme), re.M)
    assert len(rows) == 4
    for page, *cells in rows:
        figures = set(re.findall(r"(?<![-\w.])\d+(?:,\d{3})?(?:\.\d+)?(?= |,|\]|\*|$)", " ".join(cells)))
        told = (ROOT / page).read_text(encoding="utf-8")
        assert {figure for figure in figures if len(figure) > 2 and figure not in told} == set()


# Generated pages, and what pages say of the code


def test_the_parameters_are_those_of_the_code() -> None:
    page = runpy.run_path(str(ROOT / "docs/generate/parameters.py"))
    assert page["document"]() == page["PAGE"].read_text(encoding="utf-8")


def test_each_parameter_is_explained() -> None:
    page = runpy.run_path(str(ROOT / "docs/generate/parameters.py"))
    kinds: list[type[Section]] = [field.annotation for key, field in Params.model_fields.items() if key != "models"]  # type: ignore[misc]
    for kind in (*kinds, page["ModelSpec"], page["Fold"], page["Average"]):
        assert [key for key, field in kind.model_fields.items() if not field.description] == []


def test_each_message_of_troubleshooting_is_in_the_code() -> None:
    known = [*messages(SRC), *makefile_messages(ROOT / "Makefile")]
    quoted = quoted_messages(ROOT / "docs/troubleshooting.md")
    assert len(quoted) > 50
    for quote in quoted:
        assert len(quote) >= SHORTEST_QUOTE, quote
        assert any(quote in text for text in known), quote


def test_no_two_rows_of_troubleshooting_are_of_one_message() -> None:
    quoted = quoted_messages(ROOT / "docs/troubleshooting.md")
    assert len(set(quoted)) == len(quoted)


def test_the_picture_of_the_pipeline_has_its_stages() -> None:
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    drawn = re.findall(r">([a-z_]+)(?:@model)?</text>", (ROOT / "docs/pipeline.svg").read_text())
    assert set(stages) == set(drawn)
    described = re.findall(r"^\| `([a-z_]+)(?:@<model>)?` \|", prose(ROOT / "docs/architecture.md"), re.MULTILINE)
    assert set(stages) == set(described)


def test_the_tree_of_the_library_is_as_it_is_told() -> None:
    (tree,) = blocks(ROOT / "docs/architecture.md", "text")
    packages = re.findall(r"^├── (\w+)/", tree, re.MULTILINE)
    assert set(packages) == {path.parent.name for path in SRC.glob("*/__init__.py")}
    drawn = re.findall(r">([a-z]+)</text>", (ROOT / "docs/imports.svg").read_text())
    assert {*packages, "cli"} == set(drawn)
    told = dict(re.findall(r"^├── (\w+)/.*\n((?:│.*\n)*)", tree, re.MULTILINE))
    for package, body in told.items():
        files = {path.name for path in (SRC / package).glob("*.py")} - {"__init__.py"}
        assert not body or set(re.findall(r"(\w+\.py)", body)) == files, package


# The site


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no mkdocs in this environment")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        loaded = re.findall(r"<(?!a )\w+[^>]*? (?:src|href)=\"?(https?:[^\s\">]+)", page.read_text(encoding="utf-8"))
        assert loaded == [], page.name
        assert 'class="mermaid"' not in page.read_text(encoding="utf-8")
