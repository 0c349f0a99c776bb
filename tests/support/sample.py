"""Texts of the sample data."""

import csv

from project import ROOT


def sample_texts() -> list[str]:
    """Every dialogue and every summary of the sample data."""
    texts = []
    for path in sorted((ROOT / "data/sample").glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                texts += [text for column, text in row.items() if column.startswith(("dialogue", "summary"))]
    return texts
