"""The catalogue of Korean messages: `python docs/generate/messages.py` brings it up to date with the code.

What is new stands untranslated in src/yoyak/locale/ko/LC_MESSAGES/yoyak.po then, and what nothing says any more is
gone; translate, and run it again: it compiles the catalogue. It exits with 1 while a translation is missing or wrong.
"""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from yoyak.reporting import both_languages

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / "src/yoyak"
CATALOGUE = SOURCE / "locale/ko/LC_MESSAGES/yoyak.po"
KEYWORDS = {"_": None, "N_": None, "_both": None}
PATTERNS = {
    ".js": both_languages.SAID_BY_A_SCRIPT,
    ".html": re.compile(r'\b(?:said|N_|(?:option|attribute)\("[^"]*", ?)\(?"((?:[^"\\]|\\.)*)"'),
}
OF_TYPER = ("Arguments", "Options", "Commands", "default: {default}", "required")
"""Messages of a library's that a user of ours reads; it asks the same gettext."""
BOILERPLATE = "(POT-Creation|PO-Revision)-Date|Generated-By|Report-|Project-Id|Last-Translator|Language-Team"
PLACEHOLDER = re.compile(r"\{\w*\}")


def main() -> None:
    catalogue = up_to_date()
    CATALOGUE.write_bytes(written(catalogue))
    CATALOGUE.with_suffix(".mo").write_bytes(compiled(catalogue))
    found = faults(catalogue)
    print(*found, f"{CATALOGUE.relative_to(ROOT)}: {len(catalogue)} messages", sep="\n")
    sys.exit(1 if found else 0)


def up_to_date() -> Catalog:
    """The catalogue with all that the code says, and no more."""
    with CATALOGUE.open("rb") as file:
        before = read_po(file, locale="ko")
    catalogue = Catalog(locale="ko", project="yoyak", charset="utf-8", fuzzy=False, header_comment="# Korean.")
    for place, text in said():
        known = before.get(text)
        catalogue.add(text, known.string if known else "", locations=[(place, 0)])
    return catalogue


def said() -> Iterator[tuple[str, str]]:
    """Each file with each of its messages, in the order of both."""
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        for _line, message, *_rest in extract_from_file("python", path, keywords=KEYWORDS):
            yield name, str(message)
    for path in sorted(SOURCE.rglob("*.html")) + sorted(SOURCE.rglob("*.js")):
        name, pattern = str(path.relative_to(SOURCE)), PATTERNS[path.suffix]
        yield from ((name, found) for found in pattern.findall(path.read_text(encoding="utf-8")))
    from yoyak.commands import app
    from yoyak.translated_help import texts

    yield from (("commands.py", text) for text in [*texts(app), *OF_TYPER])


def written(catalogue: Catalog) -> bytes:
    content = io.BytesIO()
    # Neither line numbers nor dates and persons in the header: nothing differs but messages.
    write_po(content, catalogue, width=0, include_lineno=False)
    return re.sub(rf'"({BOILERPLATE})[^\n]*\n'.encode(), b"", content.getvalue())


def compiled(catalogue: Catalog) -> bytes:
    content = io.BytesIO()
    write_mo(content, read_po(io.BytesIO(written(catalogue))))
    # The header is made anew, with the date of today.
    return re.sub(rb"\d{4}-\d\d-\d\d \d\d:\d\d[+-]\d{4}", b"2026-01-01 00:00+0000", content.getvalue())


def faults(catalogue: Catalog) -> list[str]:
    """A line for each message that has no translation, or one with other placeholders."""
    return [fault for message in catalogue if message.id for fault in _faults_of(message)]


def _faults_of(message: Message) -> Iterator[str]:
    text, translation = str(message.id), str(message.string)
    if not translation:
        yield f"not translated: {text}"
    elif {*PLACEHOLDER.findall(text)} != {*PLACEHOLDER.findall(translation)}:
        yield f"other placeholders: {text}"


if __name__ == "__main__":
    main()
