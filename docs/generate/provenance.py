"""Where results come from: which entry of `params.yaml`, which rows, which machine and software, which scorer."""

from functools import cache
from pathlib import Path

from yoyak.core.params import read_yaml
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.sweeps.results import Result

ROOT = Path(__file__).resolve().parents[2]


def entry_of(result: Result, name: str) -> str:
    """The entry of the project's `params.yaml` that has this model's weights; without one, the weights' own name."""
    weights = result.figures["models"][name]["generation"]["model"]["weights"]
    return next((entry for entry, there in _weights().items() if there == weights), Path(weights).name)


@cache
def _weights() -> dict[str, str]:
    entries = read_yaml(ROOT / "params.yaml")["models"]
    return {name: entry["weights"] for name, entry in entries.items() if "weights" in entry}


def rows_of(results: list[Result]) -> int:
    """How many rows the results are of, in all data folders together."""
    return sum({result.on: len(result.mbr) for result in results}.values())


def ran_on(results: list[Result]) -> str:
    """Device, software and commit of all results, each combination once."""
    found = set()
    for result in results:
        ran, commit = result.figures["train"][result.models[0]]["ran"], result.figures["commit"][:7]
        found.add(f"{ran['device']}, PyTorch {ran['torch']}, transformers {ran['transformers']}, commit {commit}")
    return "; ".join(sorted(found))


def counted(results: list[Result]) -> str:
    """What all results' scores were counted by, each way once."""
    return "; ".join(sorted({what_was_counted(result.figures["scores"]["scoring"]) for result in results}))
