"""Write docs/experiments.png: the first screen of a page that `yoyak report --all` wrote.

    python docs/generate/experiments_picture.py experiments.html

The committed one is of the sample data: the run of a commit, and experiments of it by

    dvc exp run --name four-epochs -S models.bart_mini.training.epochs=4
    dvc exp run --name eight-epochs -S models.bart_mini.training.epochs=8
    dvc exp run --name other-seed -S run.seed=43
    dvc exp run --name best-alone -S ensemble.strategy=best
    dvc exp run --name google -S scoring.library=rouge_score
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from provenance import ROOT

PICTURE = ROOT / "docs/experiments.png"


def main() -> None:
    """Draw it as headless Chromium does."""
    page = Path(sys.argv[1]).resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        window = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        window.goto(page.as_uri())
        window.screenshot(path=PICTURE)
        browser.close()
    print(f"{PICTURE}: written")


if __name__ == "__main__":
    main()
