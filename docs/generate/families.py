"""Write the table of families in docs/models.md and docs/models.ko.md, from what the tests hold their twins to.

    python docs/generate/families.py

A test writes both pages anew and compares.
"""

import runpy
import sys
from pathlib import Path
from typing import Any

from yoyak.core.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"en": ROOT / "docs/models.md", "ko": ROOT / "docs/models.ko.md"}
HEADINGS = {"en": "## Families", "ko": "## 모델 계열"}
HEADERS = {
    "en": ("family", "examples", "method", "prompt", "training rows", "decoding", "remarks"),
    "ko": ("계열", "예", "방법", "프롬프트", "학습 행", "디코딩", "비고"),
}
KOREAN = {
    "chat template": "채팅 템플릿",
    "no template": "템플릿 없음",
    "dialogue": "대화",
    "packed": "이어 붙임",
    "one by one": "하나씩",
    "padded": "채움",
    "ours": "자체",
    "transformers'": "transformers",
    "refused": "거절",
}
"""Of cells; names and remarks have their own."""


def main() -> None:
    for language, page in PAGES.items():
        write_whole(page, document(language))
        print(f"{page.relative_to(ROOT)}: written")


def document(language: str) -> str:
    """The whole page, with its table behind the heading made anew."""
    before, heading, behind = PAGES[language].read_text(encoding="utf-8").partition(f"{HEADINGS[language]}\n")
    lines = behind.splitlines(keepends=True)
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    last = next(number for number, line in enumerate(lines) if number > first and not line.startswith("|"))
    return "".join([before, heading, *lines[:first], *_table(language), *lines[last:]])


def _table(language: str) -> list[str]:
    sys.path.insert(0, str(ROOT / "tests/support"))
    cases = runpy.run_path(str(ROOT / "tests/support/families.py"))["CASES"]
    header = HEADERS[language]
    rows = [header, ("---",) * len(header), *(_cells(case, language) for case in cases)]
    return [f"| {' | '.join(cells)} |\n" for cells in rows]


def _cells(case: Any, language: str) -> tuple[str, ...]:
    def word(text: str) -> str:
        return KOREAN[text] if language == "ko" else text

    examples = "<br>".join(f"`{name}`" for name in case.examples.split(", "))
    if case.refused:
        return case.family, examples, "", "", "", "", f"{word('refused')}: `{case.refused}`"
    prompt = "dialogue" if case.method == "full" else "chat template" if case.template else "no template"
    rows = case.rows or "padded"
    remark = case.remark[language == "ko"].replace("|", r"\|")
    return case.family, examples, case.method, word(prompt), word(rows), word(case.decoding), remark


if __name__ == "__main__":
    main()
