"""The help of commands in the user's language."""

from collections.abc import Iterator
from gettext import gettext as _
from typing import Any

import typer
from typer.main import get_command

from yoyak.core import language


def translated(app: typer.Typer) -> Any:
    """The program that `app` describes, to be called; its help translated, where gettext has it."""
    if language.is_translated():
        # Rich takes letters off where it breaks a line of Korean (findings/rich_ellipsis_drops_wide_letters.sh).
        app.rich_markup_mode = None
    program = get_command(app)
    for described in _described(program):
        if described.help:
            described.help = _(described.help)
    return program


def texts(app: typer.Typer) -> list[str]:
    """All help that `translated` translates, in the order in which it is met."""
    return list(dict.fromkeys(described.help for described in _described(get_command(app)) if described.help))


def _described(command: Any) -> Iterator[Any]:
    """A command, its options and arguments, and the commands in it."""
    yield command
    yield from (parameter for parameter in command.params if hasattr(parameter, "help"))
    for inner in getattr(command, "commands", {}).values():
        yield from _described(inner)
