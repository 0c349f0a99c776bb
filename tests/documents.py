"""The documents as a test sees them: their links, anchors and commands, and the error messages that the code has."""

import ast
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from project import ROOT

READMES = (ROOT / "README.md", ROOT / "README.ko.md")
PAGES = tuple(sorted((ROOT / "docs").glob("*.md")))
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
PROGRAMS = ("make", "dvc", "yoyak", "git", "python", "hf")
"""An inline code that begins with one of these, and goes on, is a command."""


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Targets of its relative links and pictures."""
    return LINK.findall(prose(page))


def anchors(page: Path) -> set[str]:
    """What GitHub, and the site, make of its headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def blocks(page: Path, language: str) -> list[str]:
    """Its fenced blocks in that language."""
    return [text for kind, text in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def typed(page: Path) -> list[tuple[str, ...]]:
    """The commands of its shell blocks, word by word, in their order."""
    return [command for block in blocks(page, "sh") for line in block.splitlines() for command in _commands(line)]


def named(page: Path) -> list[tuple[str, ...]]:
    """The commands in its prose."""
    codes = [text for text in INLINE_CODE.findall(prose(page)) if re.match(rf"({'|'.join(PROGRAMS)})\s", text)]
    return [command for text in codes for command in _commands(text)]


def _commands(line: str) -> Iterator[tuple[str, ...]]:
    """`a b > c && d  # e` → (a, b), (d,)."""
    words: list[str] = []
    rest = iter(shlex.split(line, comments=True))
    for word in rest:
        if word in ("&&", "|"):
            yield tuple(words)
            words = []
        elif word in (">", "<"):
            next(rest)
        else:
            words.append(word)
    if words:
        yield tuple(words)


QUOTED = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
OF_DVC = "\n## DVC's own lines\n"


def quoted_messages(page: Path) -> list[str]:
    """Of troubleshooting: the first cell of each row that quotes a line of ours."""
    return QUOTED.findall(page.read_text(encoding="utf-8").partition(OF_DVC)[0])


def quoted_of_dvc(page: Path) -> list[str]:
    """Of troubleshooting: the first cell of each row that quotes a line of DVC's."""
    return QUOTED.findall(page.read_text(encoding="utf-8").partition(OF_DVC)[2])


def messages(folder: Path) -> set[str]:
    """Every text in the code of a folder but docstrings, with `…` for what is filled in."""
    return {text for path in folder.rglob("*.py") for text in _texts(ast.parse(path.read_text(encoding="utf-8")))}


def _texts(tree: ast.Module) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
