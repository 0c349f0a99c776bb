"""The command `yoyak sweep`."""

import importlib.util
import math
import os
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from yoyak.core.errors import UserError
from yoyak.core.repository import project_folder

TRIALS = 20


class Searcher(Enum):
    """What draws the parameters of a search."""

    OPTUNA = "optuna"


def run_sweep(
    experiments: Annotated[Path, typer.Argument(metavar="LIST", help="A YAML file such as sweeps/sweep.yaml.")],
    data: Annotated[Path, typer.Option(help="The folder that the list's data folders are in.")] = Path("folds"),
    out: Annotated[
        Path | None, typer.Option(help="Where a JSON and a log of each go; default: sweeps/results/ and LIST's name.")
    ] = None,
    work: Annotated[Path, typer.Option(help="Copies, and DVC's cache for them.")] = Path(".cache/experiments"),
    gpus: Annotated[
        int | None, typer.Option(help="0: on the CPU; default: 1 where there is one, and all of a cluster's.")
    ] = None,
    per_gpu: Annotated[int, typer.Option(help="Experiments at once on each.")] = 1,
    address: Annotated[str | None, typer.Option(help="Of a Ray cluster; auto: the one that runs here.")] = None,
    remote: Annotated[
        str | None, typer.Option(help="A remote of DVC, through which machines share what they have computed.")
    ] = None,
    search: Annotated[
        Searcher | None, typer.Option(help="Draw from the ranges of LIST, and stop trials that fall behind.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Of a search; default: 20.", show_default=False)] = None,
    minutes: Annotated[float, typer.Option(help="After so many no experiment starts.")] = math.inf,
    only: Annotated[list[str] | None, typer.Option(help="An experiment to run; repeat it for others.")] = None,
    commit: Annotated[
        str | None, typer.Option(help="Where the project is no git repository: the commit that it is of.")
    ] = None,
) -> None:
    """Run a list of experiments, and keep of each one small JSON.

    Several run on Ray where it is installed. What has its JSON in --out is not run again, and must have been made with
    the parameters of today. Where one fails, the end of its log is printed, and the rest go on. Ends with exit status 1
    where one failed, and 0 where the deadline left some for later. A search goes on with the trials that are in --out.
    """
    _check_search(search, trials)
    from yoyak.sweeps import run
    from yoyak.sweeps.options import Options

    begun = Path.cwd()
    os.chdir(project_folder(begun))
    options = Options(
        experiments=_from(begun, experiments),
        data=_from(begun, data),
        out=_from(begun, out) if out else Path("sweeps/results") / experiments.stem,
        work=work,
        gpus=gpus,
        per_gpu=per_gpu,
        minutes=minutes,
        only=tuple(only or ()),
        commit=commit,
        address=address,
        remote=remote,
    )
    if search is None:
        failed = bool(run.sweep(options))
    else:
        from yoyak.sweeps import study

        failed = study.search(options, TRIALS if trials is None else trials)
    if failed:
        raise typer.Exit(1)


def _check_search(search: Searcher | None, trials: int | None) -> None:
    if search is None and trials is not None:
        raise UserError("--trials: of a search alone; give it `--search optuna`")
    if search is not None and importlib.util.find_spec("optuna") is None:
        raise UserError("--search optuna: Optuna is not installed; `pip install -e '.[optuna]'`")


def _from(folder: Path, path: Path) -> Path:
    """The same path from here."""
    return path if path.is_absolute() else Path(os.path.relpath(folder / path))
