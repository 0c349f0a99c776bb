"""Stage `score`: all predictions in; leaderboard, per-row scores, breakdowns and pictures out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import check, read_yaml
from yoyak.core.stale_outputs import PREFIX
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.evaluation.run import score_run


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    run = content["run"]
    untuned = [f"{PREFIX}untuned_{name}" for name in run["untuned"]]
    params = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    score_run(run["models"], run["averaged"], untuned, params)


if __name__ == "__main__":
    main()
