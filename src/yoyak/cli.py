"""The command `yoyak`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from yoyak import outsiders, report
from yoyak.errors import exits_with_one_line
from yoyak.morphemes import Tokenizer
from yoyak.rouge import Library, ReferenceRule
from yoyak.scoring import ScoringParams

app = typer.Typer(
    help="Summaries of Korean dialogues: scoring, and a look at what the pipeline made.", no_args_is_help=True
)


@app.command()
def leaderboard() -> None:
    """Print the leaderboard of the last run, and where submission and plots lie."""
    report.print_run(Path.cwd())


@app.command()
def score(
    predictions: Annotated[Path, typer.Argument(help="CSV or JSONL with fname and summary (or text).")],
    references: Annotated[
        Path, typer.Argument(help="CSV or JSONL with fname, summary or summary_1, summary_2, …; best with dialogue.")
    ],
    tokenizer: Annotated[Tokenizer, typer.Option(help="Morpheme analyser.")] = "mecab",
    library: Annotated[Library, typer.Option(help="Whose rule counts the n-grams.")] = "rouge",
    rule: Annotated[
        ReferenceRule, typer.Option("--references", help="A row's score over several references.")
    ] = "mean",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Score any file of summaries, of this project or another, with the pipeline's own code."""
    params = ScoringParams(tokenizer=tokenizer, library=library, references=rule, bootstrap_samples=2000, seed=0)
    result = outsiders.score_files(predictions, references, params)
    if as_json:
        print(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        Console().print(*report.outsider_tables(predictions.name, result), sep="\n")


@exits_with_one_line
def main() -> None:
    app()
