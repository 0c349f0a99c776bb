"""Write docs/results.md and its picture from sweeps/results: each score is a run's own, but for the anchors.

    python docs/generate/results.py

`sweeps/results` has a folder of what `yoyak sweep` wrote for each list: `final`, `sweep`, `ablations`,
`true_size`; of `make competition` it has `final_again`. A section is there where its folder is; a test writes the
document anew and compares.
"""

from collections.abc import Callable
from pathlib import Path

import wording
from provenance import ROOT
from results_dev import dev_section, draw
from results_held_out import ablations_section, sweep_section
from results_retrained import retrained_section
from results_true_size import true_size_section

from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.files import write_whole
from yoyak.sweeps.results import Result, read_results

RESULTS = ROOT / "sweeps/results"
DOCUMENT = ROOT / "docs/results.md"
PICTURE = ROOT / "docs/results.png"
HEAD = """# Real models on real data

What `python docs/generate/results.py` makes of `sweeps/results`; no score is typed, but for the anchors, which are in
`sweeps/anchors.yaml`. Scores are percent. Which lists of experiments made them, and how to run them:
[sweeps/](../sweeps/README.md). Tuned models, and what was tried and lost: [Tuning](tuning.md)."""


@exits_with_one_line
def main() -> None:
    """Write both files."""
    write_whole(DOCUMENT, document(RESULTS))
    if results := read_results(RESULTS / "final"):
        draw(results, PICTURE)
    print(f"{DOCUMENT}: written")


def document(folder: Path) -> str:
    """Markdown with a section for each kind of list that `folder` has results of; a `UserError` where it has none."""
    sections: dict[str, Callable[[list[Result]], str]] = {
        "final": lambda results: dev_section(results, PICTURE.name),
        "final_again": lambda results: retrained_section(results, found["final"]),
        "sweep": sweep_section,
        "ablations": ablations_section,
        "true_size": true_size_section,
    }
    found = {name: read_results(folder / name) for name in sections}
    if not any(found.values()):
        raise UserError(f"{folder}: no result is there; `yoyak sweep` writes some")
    written = [sections[name](results) for name, results in found.items() if results]
    return "\n\n".join([HEAD, f"What a run's parameters do not name was: {wording.usual()}.", *written]) + "\n"


if __name__ == "__main__":
    main()
