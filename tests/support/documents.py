"""The documents as a test sees them: their links, anchors and commands, and the error messages that the code has."""

import ast
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from project import ROOT

READMES = (ROOT / "README.md", ROOT / "README.ko.md")
PAGES = tuple(sorted((ROOT / "docs").glob("*.md")))
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
FIGURE = re.compile(r"\d+(?:[.,]\d+)+")
"""With a point or a comma: small numbers are words in one language and digits in the other."""
PROGRAMS = ("make", "dvc", "yoyak", "git", "python", "hf", "ray")
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


@dataclass(frozen=True)
class Facts:
    """What a page has in whatever language it is written."""

    headings: list[int]
    """The level of each."""
    pictures: list[str]
    tables: list[tuple[int, list[str], list[str]]]
    """Of each row: how many cells, its codes, its numbers."""
    codes: set[str]
    figures: dict[str, int]
    """How often each stands in the text."""


def facts(page: Path) -> Facts:
    text = prose(page)
    headings = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
    tables = [_facts_of_row(row) for row in re.findall(r"^ *\|.*\|$", text, re.MULTILINE)]
    codes = set(INLINE_CODE.findall(text))
    figures = Counter(FIGURE.findall(_without_codes_and_targets(text)))
    return Facts(headings, re.findall(r"!\[.*?\]\((.*?)\)", text), tables, codes, dict(figures))


def _facts_of_row(row: str) -> tuple[int, list[str], list[str]]:
    # Words stand in another order in another language, and codes and numbers with them.
    numbers = re.findall(r"\d+(?:[.,]\d+)*", _without_codes_and_targets(row))
    return row.count("|"), sorted(INLINE_CODE.findall(row)), sorted(numbers)


def _without_codes_and_targets(text: str) -> str:
    return INLINE_CODE.sub("", re.sub(r"\]\([^)]*\)", "]", text))


def blocks(page: Path, language: str) -> list[str]:
    """Its fenced blocks in that language."""
    return [text for kind, text in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def typed(page: Path) -> list[tuple[str, ...]]:
    """The commands of its shell blocks, word by word, in their order."""
    return [command for block in blocks(page, "sh") for line in block.splitlines() for command in commands(line)]


def named(page: Path) -> list[tuple[str, ...]]:
    """The commands in its prose."""
    codes = [text for text in INLINE_CODE.findall(prose(page)) if re.match(rf"({'|'.join(PROGRAMS)})\s", text)]
    return [command for text in codes for command in commands(text)]


def commands(line: str) -> Iterator[tuple[str, ...]]:
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
    """What the code of a folder may raise, with `…` for what is filled in."""
    return {text for path in folder.rglob("*.py") for text in _raised(ast.parse(path.read_text(encoding="utf-8")))}


def _raised(tree: ast.Module) -> Iterator[str]:
    """Texts of `raise` statements, of the functions of the file that word them, and of calls of `read_text`."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    parts: list[ast.AST] = [node for node in ast.walk(tree) if isinstance(node, ast.Raise) or _reads_text(node)]
    for part in parts:
        yield from _texts(part)
        for name in {node.id for node in ast.walk(part) if isinstance(node, ast.Name)} & functions.keys():
            parts.append(functions.pop(name))


def _reads_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "read_text"


def makefile_messages(makefile: Path) -> list[str]:
    return re.findall(r"error: (.*)", makefile.read_text(encoding="utf-8"))


def _texts(tree: ast.AST) -> Iterator[str]:
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
