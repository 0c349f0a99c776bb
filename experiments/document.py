"""Write docs/results.md from experiments/results: each score in it is a run's own, but for the anchors.

    python experiments/document.py

`experiments/results` has a folder of what `run.py` wrote for each list: `final`, `sweep`, `ablations`, `true_size`; of
`make final` it has `final_again`. A section is there where its folder is; a test writes the document anew and compares.
"""

import argparse
from pathlib import Path

import words
from again import again
from copies import ROOT
from held_out import ablations, sweep
from leaderboard import draw, final
from result import read_results
from sizes import true_size

from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.files import write_whole

RESULTS = ROOT / "experiments/results"
DOCUMENT = ROOT / "docs/results.md"
PICTURE = ROOT / "docs/results.png"
HEAD = """# Real models on real data

What `python experiments/document.py` makes of `experiments/results`; no score is typed, but for the anchors, which are
in `experiments/anchors.yaml`. Scores are percent. Which lists of experiments made them, and how to run them:
[experiments/](../experiments/README.md)."""


@exits_with_one_line
def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    write_whole(DOCUMENT, document(RESULTS))
    if results := read_results(RESULTS / "final"):
        draw(results, PICTURE)
    print(f"{DOCUMENT}: written")


def document(folder: Path) -> str:
    """Markdown; a section for each kind of list that `folder` has results of."""
    sections = {
        "final": lambda results: final(results, PICTURE.name),
        "final_again": lambda results: again(results, found["final"]),
        "sweep": sweep,
        "ablations": ablations,
        "true_size": true_size,
    }
    found = {name: read_results(folder / name) for name in sections}
    if not any(found.values()):
        raise UserError(f"{folder}: no result is there; `python experiments/run.py` writes some")
    written = [sections[name](results) for name, results in found.items() if results]
    return "\n\n".join([HEAD, f"What a run's parameters do not name was: {words.usual()}.", *written]) + "\n"


if __name__ == "__main__":
    main()
