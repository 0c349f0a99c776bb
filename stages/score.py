"""Stage `score`: the dev predictions of `run.models` in; leaderboard, per-row scores and picture out."""

from pathlib import Path

import pandas as pd

from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, Prompt, read_records, write_json
from yoyak.report import draw_leaderboard
from yoyak.scoring import ScoringParams, leaderboard, put_away_leftovers, sheet


@exits_with_one_line
def main() -> None:
    params = read_yaml(Path("params.yaml"))
    names = [*params["run"]["models"], *(f"baseline/untuned_{name}" for name in params["run"]["untuned"])]
    put_away_leftovers(Path("predictions"), names)
    predictions = {name: read_records(Path(f"predictions/{name}/dev.jsonl"), Prediction) for name in names}
    prompts = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    said = sheet(prompts, predictions)
    scores, rows = leaderboard(said, check(ScoringParams, params["scoring"], "params.yaml: scoring"))
    write_json(Path("metrics/scores.json"), scores)
    draw_leaderboard(scores, Path("plots/leaderboard.png"))
    by_row = pd.concat(
        {
            name: pd.DataFrame(figures, index=said.fnames, columns=["rouge1", "rouge2", "rougeL"])
            for name, figures in rows.items()
        },
        names=["model", "fname"],
    )
    Path("scores").mkdir(exist_ok=True)
    by_row.round(4).to_csv("scores/rows.csv")


if __name__ == "__main__":
    main()
