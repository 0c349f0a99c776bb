"""What others make of a run: the page of `dvc plots show`, the DVC extension for VS Code, a pull request's report."""

import json
import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from dvc_render.vega import VegaRenderer
from project import ROOT, Project
from pydantic import BaseModel, ConfigDict, TypeAdapter
from typing_extensions import TypeAliasType

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CURVE = Path("plots/training/bart_mini/plots/metrics/loss.tsv")
MODELS = {"bart_mini", "llama32_3b"}


@pytest.fixture(scope="module")
def project(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With a curve of more than the one step that the shrunk training takes, and an experiment."""
    project = reproduced.copy(tmp_path_factory.mktemp("editors") / "project")
    header, first, *_ = (project.root / CURVE).read_text().splitlines()
    columns = header.split("\t")
    rows = [
        dict(zip(columns, first.split("\t"), strict=True)) | {"step": str(step), "loss": str(9 - step)}
        for step in range(5)
    ]
    (project.root / CURVE).unlink()  # A hard link into DVC's cache.
    (project.root / CURVE).write_text("\n".join([header, *("\t".join(row.values()) for row in rows)]) + "\n")
    project.edit(lambda params: params["scoring"].update(bootstrap_samples=500))
    project.run("dvc", "exp", "save", "--name", "kept")
    return project


# The page of `dvc plots show`


@pytest.fixture(scope="module")
def page(project: Project, browser: "Browser") -> "Page":
    """Opened without a network, as wide as a phone."""
    project.run("dvc", "plots", "show")
    page = browser.new_context(offline=True, viewport={"width": 390, "height": 844}).new_page()
    page.goto((project.root / "dvc_plots/index.html").as_uri())
    page.wait_for_function("document.querySelectorAll('body > div.vega-embed canvas').length >= 14")
    return page


def test_plots_are_drawn_without_a_network(page: "Page") -> None:
    coloured = page.evaluate(COLOURED, "#plots_training_bart_mini_plots_metrics_loss_tsv canvas")
    assert coloured > 100
    assert page.evaluate("[...document.images].map(image => image.naturalWidth > 100)") == [True] * 3
    assert page.evaluate("document.documentElement.scrollWidth") == 390


COLOURED = """selector => {
  const canvas = document.querySelector(selector)
  const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width / 2, canvas.height)
  let coloured = 0
  for (let place = 0; place < data.length; place += 4)
    if (data[place + 3] > 200 && Math.abs(data[place] - data[place + 1]) > 50) coloured++
  return coloured
}"""
"""How many pixels are neither grey nor white in a canvas's left half, where no legend is."""


def test_the_page_has_the_scripts_that_dvc_s_own_page_names() -> None:
    generator = runpy.run_path(str(ROOT / "docs/generate/plots_page.py"))
    assert list(generator["SCRIPTS"]) == re.findall(r"npm/([\w-]+@[\d.]+)", VegaRenderer.SCRIPTS)
    page = (ROOT / ".dvc/plots_page.html").read_text(encoding="utf-8")
    assert page.startswith(generator["HEAD"])
    assert page.endswith(generator["BODY"])
    assert re.findall(r"^<!-- (\S+)$", page, re.MULTILINE) == list(generator["SCRIPTS"])
    assert page.count("Redistributions in binary form must reproduce") == page.count("<script>") == 3


# The commands that the extension calls (vscode-dvc, extension/src/cli/dvc/reader.ts), and the forms that it declares
# as what it reads of them (contract.ts there, which names DVC 3.33.3 as the oldest)

Value = str | int | float | bool | None
ValueTree = TypeAliasType("ValueTree", "dict[str, Value | list[Value] | ValueTree]")


class Form(BaseModel):
    model_config = ConfigDict(strict=True)


class Values(Form):
    data: ValueTree


class Dependency(Form):
    hash: str | None
    size: int | None
    nfiles: int | None


class Output(Dependency):
    use_cache: bool
    is_data_source: bool


class Data(Form):
    rev: str
    timestamp: str | None
    params: dict[str, Values]
    metrics: dict[str, Values]
    deps: dict[str, Dependency]
    outs: dict[str, Output]
    meta: dict[str, Any]


class Revision(Form):
    rev: str
    data: Data
    name: str | None = None


class Experiment(Form):
    revs: list[Revision]
    executor: dict[str, Any] | None
    name: str | None = None


class Commit(Revision):
    experiments: list[Experiment] | None = None


class Curve(Form):
    type: Literal["vega"]
    revisions: list[str]
    content: dict[str, Any]
    anchor_definitions: dict[str, Any]


class Picture(Form):
    type: Literal["image"]
    revisions: list[str]
    url: str


class Plots(Form):
    model_config = ConfigDict(strict=True, extra="forbid")
    data: dict[str, list[Curve | Picture]]


class Status(Form):
    model_config = ConfigDict(strict=True, extra="forbid")
    committed: dict[str, Any] = {}
    uncommitted: dict[str, Any] = {}
    unchanged: list[str] = []
    git: dict[str, Any] = {}


def read(project: Project, form: Any, *command: str) -> Any:
    printed = project.run("dvc", *command, "--json").stdout
    begins = re.search(r"^[\[{]", printed, re.MULTILINE)
    assert begins, printed
    return TypeAdapter(form).validate_json(printed[begins.start() :])


def test_the_extension_reads_parameters_and_metrics_of_workspace_commit_and_experiment(project: Project) -> None:
    workspace, commit = read(project, list[Commit], "exp", "show", "--num", "1")
    assert [experiment.name for experiment in commit.experiments] == ["kept"]
    ((experiment,),) = (each.revs for each in commit.experiments)
    samples = [
        each.data.params["params.yaml"].data["scoring"]["bootstrap_samples"] for each in (workspace, commit, experiment)
    ]
    assert samples == [500, 2000, 500]
    for each in (workspace, commit, experiment):
        assert set(each.data.metrics["metrics/scores.json"].data["models"]) > MODELS
        assert {f"models/{model}" for model in MODELS} < set(each.data.outs)


def test_the_extension_reads_curves_and_pictures(project: Project) -> None:
    plots = read(project, Plots, "plots", "diff", "workspace", "HEAD", "--out", ".dvc/tmp/plots", "--split").data
    (curve,) = plots[str(CURVE)]
    assert curve.revisions == ["workspace", "HEAD"]
    assert {point["rev"] for point in curve.anchor_definitions["<DVC_METRIC_DATA>"]} == {"workspace", "HEAD"}
    assert curve.content["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
    assert [Path(picture.url).is_file() for picture in plots["plots/leaderboard.png"]] == [True, True]


def test_the_extension_reads_which_outputs_have_changed(project: Project) -> None:
    status = read(project, Status, "data", "status", "--granular", "--unchanged")
    assert str(CURVE) in status.committed["modified"]
    assert {f"models/{model}/" for model in MODELS} < set(status.unchanged)


def test_parameters_and_metrics_of_two_revisions_are_compared_as_json(project: Project) -> None:
    """What a script reads, and the comment on a pull request is made of."""
    assert read(project, Any, "params", "diff") == {
        "params.yaml": {"scoring.bootstrap_samples": {"old": 2000, "new": 500, "diff": -1500}}
    }
    metrics = read(project, Any, "metrics", "show")[""]["data"]
    assert set(metrics["metrics/scores.json"]["data"]["models"]) > MODELS


# What .github/workflows/metrics.yml reports of a pull request


def test_a_pull_request_s_report_has_what_it_changes(reproduced: Project, tmp_path: Path) -> None:
    project = reproduced.copy(tmp_path / "project")
    project.edit(lambda params: params["scoring"].update(bootstrap_samples=500))
    path = project.root / "metrics/scores.json"
    scores = json.loads(path.read_text())
    before = scores["models"]["bart_mini"]["rouge_mean"]
    scores["models"]["bart_mini"]["rouge_mean"] = 99.5
    scores["scoring"]["commit"] = "another"
    path.write_text(json.dumps(scores))
    project.commit("better")
    means, parameters, metrics = re.split("<summary>", report(project, "HEAD^1"))
    changed = ["metrics/scores.json", "models.bart_mini.rouge_mean", str(before), "99.5"]
    assert cells(means)[2:] == cells(metrics)[2:] == [[*changed, str(round(99.5 - before, 2))]]
    assert cells(parameters)[2:] == [["params.yaml", "scoring.bootstrap_samples", "2000", "500"]]
    assert report(project, "HEAD") == (
        "## Scores\n\nNo mean of ROUGE-1/2/L differs.\n\nParameters: none differs.\n\nMetrics: none differs.\n"
    )


def report(project: Project, base: str) -> str:
    return project.run("bash", str(ROOT / ".github/metrics.sh"), base).stdout


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_the_workspace_in_a_container_is_built_from_the_dockerfile() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    stages = re.findall(r"^FROM .* AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert container["build"]["target"] in stages
    assert "Iterative.dvc" in container["customizations"]["vscode"]["extensions"]
