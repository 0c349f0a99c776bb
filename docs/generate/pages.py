"""What MkDocs is told beside mkdocs.yml: pages that stand outside docs/, and links between them and the others."""

import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = ("data/README.md", "sweeps/README.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""Pages of the site that people also read in their own folder."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository, turned into links as they are on the site."""
    path = page.file.src_uri
    return relinked(markdown, PurePosixPath(path if path in OUTSIDE else f"docs/{path}"))


def relinked(markdown: str, page: PurePosixPath) -> str:
    """`page` is its place in the repository; on the site docs/ is the root, and what stands outside it is beside it."""
    return LINK.sub(lambda link: _on_site(link[1], page), markdown)


def _on_site(link: str, page: PurePosixPath) -> str:
    target = Path(page.parent, link)
    whole = _without_dots(target).removeprefix("docs/")
    up = "../" * (len(page.parts) - 1 - (page.parts[0] == "docs"))
    return up + whole


def _without_dots(path: Path) -> str:
    """`docs/../data/README.md` → `data/README.md`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
