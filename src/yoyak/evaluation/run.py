"""One scoring, from the run's predictions to the leaderboard, rows, breakdowns and pictures."""

from collections.abc import Sequence
from pathlib import Path

from yoyak.core import ended_work, stale_outputs
from yoyak.core.records import write_json
from yoyak.evaluation import breakdowns, leaderboard, plots
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.evaluation.summaries import read_rows
from yoyak.evaluation.tables import read_stage_table


def score_run(models: Sequence[str], averaged: Sequence[str], untuned: Sequence[str], params: ScoringParams) -> None:
    """Score the predictions of `models`, which have learning curves, of `averaged`, and on dev of `untuned`."""
    # The last inference has no other inference after it that would.
    ended_work.delete_saved()
    stale_outputs.put_away(Path("predictions"), [*models, *averaged, *untuned])
    stale_outputs.put_away(Path("plots/training"), models)

    # Before anything is written: what is damaged must not leave half of the outputs.
    curves = {
        name: read_stage_table(Path(f"plots/training/{name}/epochs.csv"), [], ["epoch", "loss"]) for name in models
    }
    boards = []
    for split in leaderboard.known_splits():
        names = [*models, *averaged, *(untuned if split == "dev" else ())]
        boards.append(leaderboard.leaderboard(split, read_rows(split, names), names, params))
    dev, test = boards[0], boards[1] if len(boards) > 1 else None
    scores = leaderboard.report(dev, test, params)
    write_json(Path("metrics/scores.json"), scores)

    breakdowns.write_rows(boards, Path("scores/rows.csv"))
    groups = breakdowns.breakdowns(boards, params)
    groups.round(2).to_csv("scores/breakdowns.csv", index=False)

    plots.draw_leaderboard(scores, Path("plots/leaderboard.png"))
    plots.draw_by_length(groups, Path("plots/score_by_length.png"))
    plots.draw_learning_curves(curves, Path("plots/learning_curves.png"))
