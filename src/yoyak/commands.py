"""The commands of `yoyak`."""

# Each command imports what it needs: `yoyak --help` waits for neither pandas nor PyTorch.

import contextlib
import gc
import json
import os
import sys
from collections.abc import Iterator
from gettext import gettext as _
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from yoyak.core.errors import UserError
from yoyak.core.language import Language
from yoyak.core.params import PARAMS
from yoyak.core.repository import project_folder
from yoyak.metrics.morphemes import Tokenizer
from yoyak.metrics.rouge import Library, ReferenceRule
from yoyak.sweeps.command import run_sweep

ExportKind = Literal["adapter", "hf", "gguf"]
Quantized = Literal["q8_0"]
SUBMISSIONS_PICTURE = Path("plots/submissions.png")

app = typer.Typer(no_args_is_help=True)
submissions_app = typer.Typer(help="What was sent to the competition, and how it scored there: submissions.csv.")
app.add_typer(submissions_app, name="submissions")
app.command("sweep")(run_sweep)
Score = Annotated[float | None, typer.Option(min=0, max=100, help="As the competition shows it, percent.")]


@app.callback()
def common(
    lang: Annotated[Language | None, typer.Option(help="Of what is printed; default: as LANG says.")] = None,
) -> None:
    """Summaries of Korean dialogues: writing, scoring, and a look at what the pipeline made."""
    # `language.choose` has read it, before what it decides on was imported.


@app.command()
def leaderboard() -> None:
    """Print the leaderboard of the last run, and where submission and plots lie."""
    from yoyak.reporting import console

    _enter_the_project()
    console.print_run(Path())


@app.command("report")
def write_report(
    all_runs: Annotated[
        bool, typer.Option("--all", help="experiments.html instead: all experiments, and the branch's runs.")
    ] = False,
) -> None:
    """Write report.html: the last run, and every dev dialogue with all summaries; it opens without a server."""
    begun = _enter_the_project()
    if all_runs:
        from yoyak.reporting import experiments_html

        path = Path("experiments.html")
        experiments_html.write(path)
    else:
        from yoyak.reporting import html

        path = Path("report.html")
        html.write(path)
    print(os.path.relpath(path, begun))


@app.command("compare")
def compare_revisions(
    before: Annotated[str, typer.Argument(metavar="REV1", help="Git revision, DVC experiment, or workspace.")],
    after: Annotated[str, typer.Argument(metavar="REV2", help="The same, to compare with it.")] = "workspace",
) -> None:
    """Print which dev rows each model summarises better or worse at REV2 than at REV1, with the texts."""
    from yoyak.reporting import compare

    _enter_the_project()
    Console().print(*compare.tables(before, after), sep="\n")


@app.command("status")
def tell_status() -> None:
    """Tell what `dvc repro` would run, and why; nothing is run or fetched."""
    from yoyak.core import cut_off
    from yoyak.preflight import status

    _enter_the_project()
    cut_off.mend(Path())
    Console(highlight=False).print(*status.tables(), sep="\n")


@app.command()
def doctor() -> None:
    """Look whether a run would work here, and tell what to do where it would not; nothing is fetched or changed."""
    from yoyak.preflight import doctor

    _enter_the_project()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    marks = []
    for mark, what, told in doctor.findings():
        console.print(f"{mark:8}{what}: {told}")
        marks.append(mark)
    if "problem" in marks:
        raise typer.Exit(1)


@app.command("clean")
def clean_disk(
    yes: Annotated[bool, typer.Option("--yes", help="Delete it.")] = False,
) -> None:
    """Tell what on the disk nothing needs any more, and how much it frees; with --yes delete it."""
    from yoyak.preflight import clean

    _enter_the_project()
    Console(highlight=False).print(*clean.clean(yes), sep="\n")


@app.command("experiments")
def list_experiments(
    all_commits: Annotated[bool, typer.Option("--all", help="Those of all commits, not the last alone.")] = False,
) -> None:
    """Print the experiments of `dvc exp run`: state, score on dev, best model, and what each has changed."""
    from yoyak.reporting import experiments

    _enter_the_project()
    Console(highlight=False).print(*experiments.tables(all_commits), sep="\n")


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="CSV or JSON with fname and summary (or text).")],
    references: Annotated[
        Path,
        typer.Argument(help="CSV or JSON with fname, and summary or summary_1, …; best with dialogue."),
    ],
    tokenizer: Annotated[Tokenizer, typer.Option(help="Morpheme analyser.")] = "mecab",
    library: Annotated[Library, typer.Option(help="Whose rule counts the n-grams.")] = "rouge",
    rule: Annotated[
        ReferenceRule, typer.Option("--references", help="A row's score over several references.")
    ] = "mean",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score any file of summaries, of this project or another, with the pipeline's own code."""
    from yoyak.evaluation import external
    from yoyak.evaluation.leaderboard import BOOTSTRAP_SAMPLES, SEED, ScoringParams
    from yoyak.reporting import console

    params = ScoringParams(
        tokenizer=tokenizer, library=library, references=rule, bootstrap_samples=BOOTSTRAP_SAMPLES, seed=SEED
    )
    result = external.score_files(predictions, references, params)
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        Console().print(*console.outsider_tables(predictions.name, result), sep="\n")


@app.command()
def summarize(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Text (a dialogue), JSON or CSV; - is standard input.")],
    model: Annotated[
        str | None, typer.Option(help="A trained model, or ensemble; else the ensemble, or the only model.")
    ] = None,
) -> None:
    """Summarise dialogues with the project's trained models: a text's summary, or JSONL, on standard output."""
    with _without_collection():
        from yoyak.serving import inputs

    given = inputs.read(file)
    _enter_the_project()
    # Whatever a library prints on the way is no summary: standard output is for these alone.
    with contextlib.redirect_stdout(sys.stderr):
        with _without_collection():
            from yoyak.serving import summarizer

        params = summarizer.open_project()
        name = model or summarizer.default(params)
        (summaries,) = summarizer.summarize(params, [name], given.dialogues, summarizer.load)
        for note in [*inputs.notes(given.dialogues), *summaries.notes]:
            print(f"note: {note}")
    for row in summaries.predictions:
        print(row.text if given.is_text else json.dumps({"fname": row.fname, "summary": row.text}, ensure_ascii=False))


@app.command("weights")
def print_weights(model: Annotated[str, typer.Argument(help="An entry of models in params.yaml.")]) -> None:
    """Print the folder of a model's base weights, having downloaded or converted them where they are not there yet."""
    # Standard output is for the folder alone.
    with contextlib.redirect_stdout(sys.stderr):
        from yoyak.preflight import base_weights  # It loads PyTorch, which the other commands do without.

        folder = base_weights.folder_of(model)
    print(folder)


@app.command("export")
def export_model(
    model: Annotated[str, typer.Argument(help="A trained model, or a mean of weights.")],
    to: Annotated[ExportKind, typer.Option(help="LoRA adapters, merged weights for transformers, or a GGUF.")],
    rows: Annotated[int, typer.Option(min=0, help="Of dev, on which it is held to the pipeline's; 0: all.")] = 100,
    licence: Annotated[str | None, typer.Option("--license", help="Of the base weights, as the hub writes it.")] = None,
    data_licence: Annotated[str | None, typer.Option("--data-license", help="Of the training data.")] = None,
    quantize: Annotated[Quantized | None, typer.Option(help="Of a GGUF: 8 bits a weight.")] = None,
    push: Annotated[str | None, typer.Option(metavar="NAME", help="Upload it to the hub, private.")] = None,
) -> None:
    """Write a trained model into export/MODEL-KIND, for others to load, once it is measured to be the same model."""
    from transformers.utils.logging import set_verbosity_error

    from yoyak.exporting import report
    from yoyak.exporting.run import Options, export

    _enter_the_project()
    # It warns of options of a search that is not the exported one.
    set_verbosity_error()
    exported = export(model, to, Options(rows, licence, data_licence, quantize, push))
    Console(highlight=False).print(*report.tables(exported), sep="\n")


@app.command("folds")
def add_folds(
    model: Annotated[str, typer.Argument(help="An entry of models in params.yaml.")],
    parts: Annotated[int, typer.Argument(help="How many.")] = 5,
) -> None:
    """Write an entry for each fold of a model into params.yaml: each is trained without a part of train."""
    from yoyak.preflight.add_folds import add_entries

    _enter_the_project()
    names = add_entries(PARAMS, model, parts)
    print(_("params.yaml has {names} now; put them into run.models").format(names=", ".join(names)))


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of this machine alone: 127.0.0.1.")] = 7860,
) -> None:
    """Open a page that shows the models' summaries of a pasted dialogue side by side."""
    # Before the page's module, which imports what gradio brings.
    if find_spec("gradio") is None:
        raise UserError("the package gradio is missing: `make extra-serve`, or `pip install gradio`, brings it")
    from yoyak.serving import web

    _enter_the_project()
    web.serve(port)


@submissions_app.callback(invoke_without_command=True)
def list_submissions(context: typer.Context) -> None:
    """Print what was sent; a picture of it goes to plots/submissions.png."""
    if context.invoked_subcommand is not None:
        return
    import pandas as pd

    from yoyak.reporting import console
    from yoyak.submission import history

    _enter_the_project()
    submissions = history.read(Path())
    if not submissions:
        print(_("nothing was sent yet; note it: yoyak submissions add submission/submission.csv --public 47.1"))
        return
    from yoyak.submission import plots

    try:
        plots.draw_submissions(pd.DataFrame([row.model_dump() for row in submissions]), SUBMISSIONS_PICTURE)
    except OSError as error:
        raise UserError(f"{SUBMISSIONS_PICTURE}: cannot be written: {error.strerror}") from None
    picture = _("picture: {path}").format(path=SUBMISSIONS_PICTURE)
    Console().print(*console.submissions_tables(submissions), picture, sep="\n")


@submissions_app.command("add")
def add_submission(
    file: Annotated[Path, typer.Argument(help="The submission that was sent.")],
    public: Score = None,
    private: Score = None,
    note: Annotated[str | None, typer.Option(help="Anything; a new one replaces the old.")] = None,
) -> None:
    """Note a submission in submissions.csv, or a further score of one that is there."""
    from yoyak.reporting import console
    from yoyak.submission import history

    begun = _enter_the_project()
    file = Path(os.path.relpath(begun / file))
    row = history.add(Path(), file, public, private, note)
    if row.dev is None:
        told = _("note: {file} is not what the last run made: its commit and dev score are not known")
        print(told.format(file=file), file=sys.stderr)
    Console().print(*console.submissions_tables([row])[:1])


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """While libraries are imported, of which nothing is garbage: the collector would go through all their objects again
    and again, for a fifth of the time. Later it passes over them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _enter_the_project() -> Path:
    """Go to the project's folder from any folder inside; the folder that the command was typed in."""
    begun = Path.cwd()
    os.chdir(project_folder(begun))
    return begun
