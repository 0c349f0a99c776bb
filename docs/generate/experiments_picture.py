"""Write docs/experiments.png: the experiments of a page that `yoyak report --all` wrote.

    python docs/generate/experiments_picture.py experiments.html

The committed one is of the sample data, on a CPU: a commit with its run, and experiments that began there:

    dvc exp run --name best-alone -S ensemble.strategy=best
    dvc exp run --name google -S scoring.library=rouge_score
    dvc exp run --name two-beams -S models.bart_mini.generation.num_beams=2 -S models.bart_mini.generation.candidates=2
    dvc exp run --name four-epochs -S models.bart_mini.training.epochs=4
    dvc exp run --name eight-epochs -S models.bart_mini.training.epochs=8
    dvc exp run --name lower-rate -S models.bart_mini.training.learning_rate=0.001
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright
from provenance import ROOT

PICTURE = ROOT / "docs/experiments.png"
COLOURS = 128


def main() -> None:
    """Draw it as headless Chromium does."""
    page = Path(sys.argv[1]).resolve()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        window = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
        window.goto(page.as_uri())
        window.locator("[name=kind]").select_option("experiment")
        window.locator("[name=score]").select_option("bart_mini")
        shot = window.screenshot(full_page=True)
        browser.close()
    # A palette takes a third of the bytes.
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE}: written")


if __name__ == "__main__":
    main()
