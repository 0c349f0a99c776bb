"""The command `yoyak`."""

from pathlib import Path

import typer

from yoyak import report
from yoyak.errors import exits_with_one_line

app = typer.Typer(help="Summaries of Korean dialogues: a look at what the pipeline made.", no_args_is_help=True)


@app.callback()
def _commands() -> None:
    """Makes `leaderboard` a command of its own while it is the only one."""


@app.command()
def leaderboard() -> None:
    """Print the leaderboard of the last run, and where submission and plots lie."""
    report.print_run(Path.cwd())


@exits_with_one_line
def main() -> None:
    app()
