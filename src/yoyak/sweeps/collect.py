"""What a run came to, in one small JSON: the pipeline's own metrics files, and scores of rows, no texts.

    python -m yoyak.sweeps.collect PROJECT RESULT ABOUT

PROJECT is a copy in which `dvc repro` has ended; ABOUT is a JSON object whose keys come before the figures.
"""

import json
import sys
from pathlib import Path
from typing import Any

from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import check, read_yaml
from yoyak.core.records import Prediction, Reference, read_json, read_records, write_json
from yoyak.core.run import RunParams, tuned
from yoyak.ensembling import weighting
from yoyak.ensembling.weighting import ENSEMBLE, Plan
from yoyak.evaluation import leaderboard
from yoyak.evaluation.leaderboard import ScoringParams

MBR = "mbr"
"""The column of `rows` with MBR over all models' candidates, all models weighted alike."""


@exits_with_one_line
def main() -> None:
    """Write RESULT."""
    project, result, about = sys.argv[1:]
    write_json(Path(result), json.loads(about) | collect(Path(project)))


def collect(folder: Path) -> dict[str, Any]:
    """The figures of the finished project in `folder`, by the name of their file in `metrics/`, and `rows`."""
    params = read_yaml(folder / "params.yaml")
    run = check(RunParams, params["run"], f"{folder}/params.yaml: run")
    return {
        "models": {name: _resolved(folder, name, "training") for name in dict.fromkeys([*run.models, *run.untuned])},
        "tuned": {name: _resolved(folder, name, "tuning") for name in map(tuned, run.tuned)},
        "averaged": {name: read_yaml(folder / f"data/resolved/{name}/generation.yaml") for name in run.averaged},
        "prompts": params["prompts"],
        "run": params["run"],
        "data": read_json(folder / "metrics/data.json"),
        "train": {name: read_json(folder / f"metrics/train/{name}.json") for name in run.trained},
        "infer": {
            name: read_json(folder / f"metrics/infer/{name}.json")
            for name in [*run.scored, *(f"untuned_{name}" for name in run.untuned)]
        },
        "rescore": {name: read_json(folder / f"metrics/rescore/{name}.json") for name in run.rescorers},
        "scores": read_json(folder / "metrics/scores.json"),
        "ensemble": read_json(folder / "metrics/ensemble.json"),
        "rows": _rows(folder, params, run.scored),
    }


def _resolved(folder: Path, name: str, learning: str) -> dict[str, Any]:
    return {kind: read_yaml(folder / f"data/resolved/{name}/{kind}.yaml") for kind in (learning, "generation")}


def _rows(folder: Path, params: dict[str, Any], models: list[str]) -> dict[str, list[float]]:
    """Mean ROUGE of each dev row in percent, in the order of dev: of each model, of MBR, and of the ensemble."""
    judging = check(ScoringParams, params["scoring"], f"{folder}/params.yaml: scoring")
    references = read_records(folder / "data/references/dev.jsonl", Reference)
    fnames = [row.fname for row in references]
    predictions = {name: read_records(folder / f"predictions/{name}/dev.jsonl", Prediction) for name in models}
    alike = Plan(strategy="mbr", weights={name: 1 / len(models) for name in models})
    combined = {
        MBR: weighting.combine(predictions, alike),
        ENSEMBLE: read_records(folder / "ensemble/dev.jsonl", Prediction),
    }
    scores = {
        name: leaderboard.score(
            leaderboard.align(rows, fnames, name), [row.summaries for row in references], judging.metric
        ).mean(axis=1)
        for name, rows in combined.items()
    } | weighting.dev_scores(folder / "scores/rows.csv", models, fnames)
    return {name: [round(float(value), 3) for value in values] for name, values in scores.items()}


if __name__ == "__main__":
    main()
