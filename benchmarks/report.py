"""Opening the report of a run as large as the competition's, beside a plain table of the same texts.

    python benchmarks/report.py

500 dialogues, 8 models, in headless Chromium: from asking for the file until its first screen is drawn.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import recording
from playwright.sync_api import sync_playwright

from yoyak.core import gpu

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from written_run import large_run

ROWS, MODELS, TIMES = 500, 8, 5
DRAWN = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def main() -> None:
    recording.require_clean_tree()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        project = large_run(Path(folder) / "project", ROWS, MODELS)
        project.run("yoyak", "report")
        report, plain = project.root / "report.html", project.root / "plain.html"
        rows = pd.read_json(project.root / "predictions/model_0/dev.jsonl", lines=True)[["fname"]]
        for model in range(MODELS):
            said = pd.read_json(project.root / f"predictions/model_{model}/dev.jsonl", lines=True)
            rows[f"model_{model}"] = said["text"]
        rows.to_html(plain)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        seconds = {path: opened(browser, path, ready) for path, ready in ((report, ".row"), (plain, "td"))}
    recording.record(
        "report",
        [
            recording.row(
                f"{ROWS} dialogues, {MODELS} models",
                "seconds to open",
                seconds[report],
                seconds[plain],
                "a plain HTML table of the summaries alone",
                gpu.peak_memory_gib(),
                "python benchmarks/report.py",
            )
        ],
    )


def opened(browser: Any, path: Path, ready: str) -> float:
    """The median of several times, each in a new window."""
    times = []
    for _ in range(TIMES):
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        window.goto(path.as_uri())
        window.locator(ready).first.wait_for(state="attached")
        window.evaluate(DRAWN)
        times.append(time.perf_counter() - started)
        window.close()
    return median(times)


if __name__ == "__main__":
    main()
