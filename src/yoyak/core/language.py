"""In which language a user reads what is printed: English, or Korean, as gettext has it.

`--lang` decides, else the environment (`LANGUAGE`, `LC_ALL`, `LC_MESSAGES`, `LANG`). Where a message is shown,
`gettext`, imported as `_`, translates it. Lines on errors stay English: docs/troubleshooting.md quotes them, and so do
issues.
"""

import gettext
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

Language = Literal["en", "ko"]
DOMAIN = "yoyak"
CATALOGUES = Path(__file__).parent.parent / "locale"
_chosen: Language | None = None


def choose(arguments: Sequence[str]) -> None:
    """Let gettext know our messages, in the language that `--lang` before a command's name asks for, where it does.

    Before libraries are imported which translate their own messages as they are.
    """
    global _chosen
    _chosen = next((language for language in get_args(Language) if language == _asked(arguments)), None)
    if _chosen:
        os.environ["LANGUAGE"] = _chosen
    gettext.bindtextdomain(DOMAIN, str(CATALOGUES))
    gettext.textdomain(DOMAIN)


def _asked(arguments: Sequence[str]) -> str | None:
    for place, argument in enumerate(arguments):
        if not argument.startswith("-"):
            return None
        name, _, value = argument.partition("=")
        if name == "--lang":
            return value or next(iter(arguments[place + 1 :]), None)
    return None


def translated(message: str, language: Language) -> str:
    """The message in that language, whatever the user's is: for a page that has both."""
    return gettext.translation(DOMAIN, CATALOGUES, [language], fallback=True).gettext(message)


def chosen() -> Language | None:
    """The language that `--lang` named, where it did."""
    return _chosen


def is_translated() -> bool:
    """Whether the user reads another language than English."""
    return gettext.find(DOMAIN, str(CATALOGUES)) is not None


def N_(message: str) -> str:  # noqa: N802, gettext's name for it
    """A message that is translated where it is shown, not where it stands: by this, catalogues know of it."""
    return message
