#!/usr/bin/env bash
# A table of Rich that breaks a cell into lines drops a letter where the blank at a line's end stands one cell beyond the
# column: `Text.rstrip_end` counts letters where the column counts cells, so the blank stays, the line is too long by it, and
# the default overflow of a column puts an ellipsis in place of the letter before. In Korean, whose letters have two cells,
# that is a word without its end, though the column has room for the line. `overflow="fold"` crops the blank alone.
# Seen: rich 15.0.0: at 10 of the 40 widths from 20 to 59 letters of a Korean text are lost; of an English one at none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rich==15.0.0
cat > "$folder/wrap.py" <<'PYTHON'
import io
import sys

from rich.console import Console
from rich.table import Table

KOREAN = "아무것도 실행하거나 내려받지 않는다. 까닭을 알려 주고 무엇이 남았는지 보여 준다."
ENGLISH = "Nothing is run and nothing is fetched. It tells the reasons and shows what is left to be done."


def lost(text: str, overflow: str, width: int) -> str:
    """Letters of the text that a table of one column does not show."""
    table = Table(box=None, show_header=False, padding=0)
    table.add_column(overflow=overflow)
    table.add_row(text)
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    shown = "".join(console.file.getvalue().split())
    return "" if shown == "".join(text.split()) else shown


widths = range(20, 60)
found = {
    (name, overflow): [width for width in widths if lost(text, overflow, width)]
    for name, text in (("Korean", KOREAN), ("English", ENGLISH))
    for overflow in ("ellipsis", "fold")
}
for (name, overflow), at in found.items():
    print(f"rich 15.0.0: {name}, overflow={overflow}: letters are lost at {len(at)} of {len(widths)} widths")
example = found["Korean", "ellipsis"][0]
print(f"at {example}: {lost(KOREAN, 'ellipsis', example)}")
as_before = found["Korean", "ellipsis"] and not any(found[key] for key in found if key != ("Korean", "ellipsis"))
sys.exit(0 if as_before else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/wrap.py"
