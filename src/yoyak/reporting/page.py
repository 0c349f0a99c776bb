"""An HTML file that needs neither server nor network: template, styles, script and data of this folder in one."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from yoyak.core.files import whole
from yoyak.core.language import N_, chosen
from yoyak.reporting.both_languages import attribute, both, dictionary, option, said

IN_A_SCRIPT = str.maketrans({letter: f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"})
"""Escapes of characters that could end the element with the JSON; they occur in its texts alone."""


def write(path: Path, name: str, data: object, messages: Iterable[str] = (), **values: object) -> None:
    """Fill in the template `name`, which has `name`.css and .js, with the script's `data` and further `values`.

    `messages` are those in the data which the script shows in the reader's language. The page is written a part at
    a time: all of its texts may be too many to be held together.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.globals |= {each.__name__: each for each in (said, both, option, attribute, N_)}
    script = _source("base.js") + _source(f"{name}.js")
    page = templates.get_template(f"{name}.html").generate(
        name=name,
        style=Markup("".join(map(_source, ("tags.css", "base.css", f"{name}.css")))),
        script=Markup(script),
        script_hash=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(embedded(data)),
        korean=Markup(embedded(dictionary(script, messages))),
        language=chosen() or "",
        **values,
    )
    with whole(path) as half, half.open("w", encoding="utf-8") as file:
        file.writelines(page)


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def embedded(content: object) -> str:
    """JSON that is safe inside `<script type="application/json">`, whatever its texts are."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(IN_A_SCRIPT)
