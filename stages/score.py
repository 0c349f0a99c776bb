"""Stage `score`: all predictions in; leaderboard, per-row scores, breakdowns and pictures out."""

from pathlib import Path

import pandas as pd

from yoyak import breakdowns, leftovers, plots, scoring
from yoyak.baselines import PREFIX
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, read_records, write_json
from yoyak.scoring import ScoringParams


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    run = content["run"]
    names = [*run["models"], *run["averaged"], *(f"{PREFIX}untuned_{name}" for name in run["untuned"])]
    leftovers.put_away(Path("predictions"), names)
    leftovers.put_away(Path("plots/training"), run["models"])

    boards = []
    for split in scoring.known_splits():
        predictions = {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in names}
        boards.append(scoring.leaderboard(scoring.read_split(split), predictions, params))
    dev, test = boards[0], boards[1] if len(boards) > 1 else None
    scores = scoring.report(dev, test, params)
    write_json(Path("metrics/scores.json"), scores)

    rows = pd.concat([breakdowns.by_row(board) for board in boards])
    groups = breakdowns.breakdowns(rows, params)
    Path("scores").mkdir(exist_ok=True)
    rows.round(4).to_csv("scores/rows.csv", index=False)
    groups.round(2).to_csv("scores/breakdowns.csv", index=False)

    plots.draw_leaderboard(scores, Path("plots/leaderboard.png"))
    plots.draw_by_length(groups, Path("plots/score_by_length.png"))
    curves = {name: pd.read_csv(f"plots/training/{name}/epochs.csv") for name in run["models"]}
    plots.draw_learning_curves(curves, Path("plots/learning_curves.png"))


if __name__ == "__main__":
    main()
