"""A copy of this project in a temporary git and DVC repository, shrunk by its `params.yaml` and its data alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import warm_python
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PARTS = (
    "src",
    "stages",
    "data/sample",
    "dvc.yaml",
    "params.yaml",
    "weights.lock.yaml",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/plots_page.html",
    ".dvc/.gitignore",
)


class Project:
    """A repository to type commands in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run as a user would in the activated environment; the output is in `.stdout`, stderr with it."""
        name, *arguments = command
        done = subprocess.run(
            [self.program(name), *arguments],
            cwd=self.root,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
        return done

    def program(self, name: str) -> str:
        """What to call for `dvc`, say: it has imported already what it will."""
        return warm_python.program(name)

    def environment(self) -> dict[str, str]:
        """The virtual environment's programs first; nothing of DVC's state outside the temporary folder."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_"))}
        return inherited | {
            "PATH": f"{self._python_folder()}{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(self.root.parent / f".{self.root.name}-site-cache"),
            "HF_HUB_OFFLINE": "1",
            # Models this small lose more by waiting for a second thread than it computes for them.
            "OMP_NUM_THREADS": "1",
            **{
                f"GIT_{who}_{what}": value
                for who in ("AUTHOR", "COMMITTER")
                for what, value in (("NAME", "Tester"), ("EMAIL", "tester@localhost"))
            },
        }

    def _python_folder(self) -> str:
        """Of the `python` that is warm already, where one is offered."""
        address = os.environ.get(warm_python.SOCKET)
        return f"{Path(address).parent}/bin:" if address else ""

    def stage(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a stage's script without DVC."""
        return self.run("python", f"stages/{name}.py", *arguments, check=check)

    def edit(self, change: Callable[[Any], None], path: str = "params.yaml") -> None:
        """Change a YAML file in place."""
        yaml = YAML()
        content = yaml.load((self.root / path).read_text())
        change(content)
        with (self.root / path).open("w") as file:
            yaml.dump(content, file)

    def commit(self, message: str = "a step") -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def clone(self, root: Path) -> "Project":
        """What `git clone` brings: nothing of DVC's cache."""
        self.run("git", "clone", "--quiet", str(self.root), str(root))
        return Project(root)

    def copy(self, root: Path) -> "Project":
        """A copy of everything, DVC's cache included: cheaper than running the pipeline again."""
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root)


class ColdProject(Project):
    """As a user runs it: with a Python that starts anew for each stage and command."""

    def program(self, name: str) -> str:
        return name

    def _python_folder(self) -> str:
        return ""


def new_project(root: Path, rows: dict[str, int]) -> Project:
    """The project with the first so many sample rows of each split, committed, nothing run."""
    for part in PARTS:
        source, target = ROOT / part, root / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    _shrink_data(root / "data/sample", rows)
    project = Project(root)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.commit("the project")
    return project


def _shrink_data(folder: Path, rows: dict[str, int]) -> None:
    files = {
        "train.csv": "train",
        "dev.csv": "dev",
        "test.csv": "test",
        "test_references.csv": "test",
        "sample_submission.csv": "test",
    }
    for name, split in files.items():
        table = pd.read_csv(folder / name, dtype=str, keep_default_na=False)
        header = ["" if column.startswith("Unnamed:") else column for column in table.columns]
        table.head(rows[split]).to_csv(folder / name, index=False, header=header)
