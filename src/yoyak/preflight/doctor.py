"""`yoyak doctor`: whether a run would work here, a line for each thing that it needs. Nothing is changed or fetched."""

import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS
from yoyak.preflight import doctor_project
from yoyak.preflight.finding import Finding

LOCK = Path("requirements/lock.txt")
HOW_TO_INSTALL = "`make setup` brings what is missing"


def findings() -> Iterator[Finding]:
    """All lines, whatever one of them comes to."""
    yield from _looked("Python", _python)
    yield from _looked("packages", _packages)
    for what, of_repository in doctor_project.CHECKS.items():
        yield from _looked(what, of_repository)
    try:
        # With PyTorch, which may be what is missing.
        from yoyak.preflight import check, doctor_models
    except ImportError as error:
        yield Finding("problem", "libraries", f"{error}; {HOW_TO_INSTALL}")
        return
    for what, of_machine in doctor_models.OF_MACHINE.items():
        yield from _looked(what, of_machine)
    try:
        params = check.read_params(PARAMS)
    except UserError as error:
        yield Finding("problem", "parameters", str(error))
        left = ", ".join(doctor_models.OF_RUN)
        yield Finding("warning", "not looked at", f"{left}: what the run needs stands in {PARAMS}; mend it first")
        return
    yield Finding("ok", "parameters", f"{PARAMS} is valid; the run has {', '.join(params.run.scored)}")
    for what, of_run in doctor_models.OF_RUN.items():
        yield from _looked(what, partial(of_run, params))


def _looked(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; what it cannot do is one, too."""
    try:
        yield from check()
    except (UserError, OSError, RuntimeError, ImportError, subprocess.SubprocessError) as error:
        yield Finding("problem", what, " ".join(str(error).split()) or type(error).__name__)


def _python() -> Iterator[Finding]:
    needed = metadata("yoyak")["Requires-Python"]
    here = platform.python_version()
    if SpecifierSet(needed).contains(here, prereleases=True):
        yield Finding("ok", "Python", here)
    else:
        yield Finding("problem", "Python", f"{here}, and {needed} is needed: make setup PYTHON=/path/to/python3.11")


def _packages() -> Iterator[Finding]:
    """Those that pyproject.toml needs are problems, those that the lock has in another version warnings."""
    required = [Requirement(line) for line in metadata("yoyak").get_all("Requires-Dist") or []]
    required = [each for each in required if each.marker is None or each.marker.evaluate({"extra": "pipeline"})]
    faults = [fault for each in required if (fault := _fault(each))]
    if faults:
        yield Finding("problem", "packages", f"{'; '.join(faults)}: {HOW_TO_INSTALL}")
    elif others := [*_others_than_locked()]:
        shown = ", ".join(others[:3]) + f" and {len(others) - 3} more" * (len(others) > 3)
        yield Finding("warning", "packages", f"{shown}: not as {LOCK} has them; `make setup` brings those")
    else:
        yield Finding("ok", "packages", f"all {len(required)} that pyproject.toml asks for")


def _fault(required: Requirement) -> str | None:
    here = _version(required.name)
    if here is None:
        return f"{required.name} is missing"
    if not required.specifier.contains(here, prereleases=True):
        return f"{required.name} is {here}, and {required.specifier} is needed"
    return None


def _others_than_locked() -> Iterator[str]:
    """Packages that are here in another version than the lock's."""
    lines = LOCK.read_text(encoding="utf-8").splitlines() if LOCK.exists() else []
    locked = [Requirement(line.removesuffix("\\")) for line in lines if line[:1].isalnum()]
    for each in locked:
        here = _version(each.name)
        applies = each.marker is None or each.marker.evaluate()
        if applies and here is not None and not each.specifier.contains(here, prereleases=True):
            yield f"{each.name} {here} in place of {str(each.specifier).removeprefix('==')}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
