"""A page's messages in English and Korean, of which base.js shows one.

An element has its English content, and the Korean one in `data-ko`. What scripts say goes through `t` of base.js, which
reads a dictionary of their messages.
"""

import re
from collections.abc import Iterable

from markupsafe import Markup, escape

from yoyak.core.language import translated

SAID_BY_A_SCRIPT = re.compile(r'\bt\("((?:[^"\\]|\\.)*)"')
"""A message in JavaScript: `t("{count} of {all} dialogues", …)`."""


def said(message: str, **values: object) -> Markup:
    """The message, which may have elements in it, with `values`, which are text."""
    return both(filled(message, **values), filled(translated(message, "ko"), **values))


def filled(message: str, **values: object) -> Markup:
    """The message with its values as HTML."""
    return Markup(message).format(**values)


def both(english: str, korean: str) -> Markup:
    """Two texts, the same in both languages, as an element."""
    return Markup('<span data-ko="{}">{}</span>').format(str(escape(korean)), english)


def option(value: str, message: str) -> Markup:
    """Of a `<select>`, which can have no elements in it."""
    return Markup('<option value="{}" data-ko="{}">{}</option>').format(value, translated(message, "ko"), message)


def attribute(name: str, message: str) -> Markup:
    """`placeholder="from"`, say."""
    return Markup('{0}="{1}" data-ko-{0}="{2}"').format(name, message, translated(message, "ko"))


def dictionary(script: str, further: Iterable[str]) -> dict[str, str]:
    """What a script says in Korean, by what it says in English; `further` messages come to it as data."""
    messages = dict.fromkeys([*SAID_BY_A_SCRIPT.findall(script), *further])
    return {message: translated(message, "ko") for message in messages}
