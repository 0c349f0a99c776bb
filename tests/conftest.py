import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import warm_python
from filelock import FileLock
from hypothesis import settings
from project import ColdProject, Project, new_project

# It sets what libraries read in the environment, before a warm Python imports them.
import yoyak  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples in every run, however slow the machine.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# Whatever language its user reads.
os.environ["LANGUAGE"] = "en"

# Threads wait for each other longer than so small models compute: two take three times as long. Of stages, too.
# PyTorch reads it as it is imported; not here, for the process that only hands out tests does without.
os.environ["OMP_NUM_THREADS"] = "1"

FEW_ROWS = {"train": 8, "dev": 4, "test": 4}


def shrink(params: Any) -> None:
    """A LoRA model and a full fine-tune, seconds each."""
    params["run"]["models"] = ["llama32_3b", "bart_mini"]
    params["run"]["untuned"] = []
    params["training"]["epochs"] = 1
    params["tuning"].update(dialogues_a_step=4, candidates=2)
    params["generation"]["max_new_tokens"] = 12
    params["limits"].update(free_gb=0.1, empty_percent=100)
    params["models"]["llama32_3b"].update(weights="./twins/llama32_3b", dtype="fp32")
    # In its single step it learns enough to write something.
    params["models"]["bart_mini"]["training"].update(epochs=1, learning_rate=0.01)
    params["models"]["bart_mini"]["generation"]["max_new_tokens"] = 12
    params["models"]["bart_mini"]["architecture"].update(vocab_size=600, d_model=32, encoder_ffn_dim=64)


def pytest_configure(config: pytest.Config) -> None:
    """One warm Python is for all of pytest's processes, which inherit its address."""
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        opened = ExitStack()
        opened.enter_context(warm_python.warm_python(Path(opened.enter_context(TemporaryDirectory()))))
        config.add_cleanup(opened.close)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order in which files go to pytest's processes: large ones without a run, beside which `reproduced` is made;
    then those that run stages, which take longest; last the small ones, so that all processes end at about one time."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)

    def place(file: list[pytest.Item]) -> tuple[int, int]:
        runs = sum(not RUNS.isdisjoint(item.fixturenames) for item in file)
        return (1, -runs) if runs else (0 if len(file) >= LARGE else 2, -len(file))

    items[:] = [item for file in sorted(files.values(), key=place) for item in file]


RUNS = {"project", "reproduced", "prepared", "fresh", "ran"}
"""Fixtures of projects."""
LARGE = 60
"""Tests in a file."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Each takes 5 to 12 s more than a warm one: some tests ask for it, more of them are a slip."""
    if warm_python.SOCKET in os.environ and (cold := warm_python.told_cold()):
        terminalreporter.section(f"{len(cold)} scripts ran with a cold Python, for what these differ in")
        for line, times in Counter(cold).most_common():
            terminalreporter.line(f"{times} x {line}")


@pytest.fixture(scope="session", autouse=True)
def _python_for_stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stages of test projects do not import PyTorch and transformers anew; their first run, `reproduced`, does."""
    if warm_python.SOCKET in os.environ:
        yield
        return
    with warm_python.warm_python(tmp_path_factory.mktemp("warm")):
        yield


@pytest.fixture(autouse=True, scope="module")
def _environment_stays() -> Iterator[None]:
    """What gradio writes there once it serves in this process made the stages of all later files cold."""
    before = dict(os.environ)
    yield
    # One by one: `reproduced` may be in the making beside, and reads it.
    for name in {*before, *os.environ} - {"PYTEST_CURRENT_TEST"}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The shrunk project, nothing run yet."""
    return _shrunk(tmp_path / "project")


@pytest.fixture(scope="session", autouse=True)
def _first_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[Future[Project] | None]:
    """`reproduced` in the making, where a test asks for it, beside those that come before."""
    if not any("reproduced" in item.fixturenames for item in request.session.items):
        yield None
        return
    own = tmp_path_factory.getbasetemp()
    with ThreadPoolExecutor(max_workers=1) as beside:
        yield beside.submit(_reproduced, own if worker_id == "master" else own.parent)


@pytest.fixture(scope="session")
def reproduced(_first_run: Future[Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The shrunk project after `dvc repro` and a commit. Shared: `copy` it before changing anything."""
    return _first_run.result().copy(tmp_path_factory.mktemp("reproduced") / "project")


@pytest.fixture(scope="session")
def first_run_told(_first_run: Future[Project]) -> tuple[str, dict[str, str]]:
    """What the run of `reproduced` has printed, and by their names what it must not have."""
    printed, secrets = json.loads((_first_run.result().root.parent / TOLD).read_text(encoding="utf-8"))
    return printed, secrets


TOLD = "told.json"


class SomebodysProject(ColdProject):
    """In a home, and with tokens."""

    def environment(self) -> dict[str, str]:
        return super().environment() | self.secrets()

    def secrets(self) -> dict[str, str]:
        home = self.root.parent / "somebody"
        home.mkdir(parents=True, exist_ok=True)
        return {"HF_TOKEN": "hf_secretOfSomebody", "WANDB_API_KEY": "0123secretOfSomebody", "HOME": str(home)}


def _reproduced(folder: Path) -> Project:
    """One for all of pytest's processes, which stand side by side."""
    project = SomebodysProject(folder / "reproduced/project")
    with FileLock(folder / "reproduced.lock"):
        if not project.root.exists():
            _shrunk(project.root)
            printed = project.run("dvc", "repro").stdout
            secrets = project.secrets() | {"the project's folder": str(project.root)}
            (project.root.parent / TOLD).write_text(json.dumps([printed, secrets]), encoding="utf-8")
            project.commit("the first run")
    return Project(project.root)


@pytest.fixture
def dtypes_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dtype is computed in itself, also where the machine is slow at it: 16 bits are what is tested."""
    from yoyak.modeling import precision

    monkeypatch.setattr(precision, "choose", lambda asked: precision.Precision(asked, precision.ASKED_FOR))


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright  # Not on every machine with a GPU, whose tests do without.

    chromium = shutil.which("chromium")
    if chromium is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


def _shrunk(root: Path) -> Project:
    from twins import llama32, save_twin

    project = new_project(root, FEW_ROWS)
    save_twin(llama32, root / "twins/llama32_3b")
    project.edit(shrink)
    project.commit("shrunk")
    return project
