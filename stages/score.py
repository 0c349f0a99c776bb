"""Stage `score`: all predictions in; leaderboard, per-row scores, breakdowns and pictures out."""

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.params import read_section
    from yoyak.core.run import RunParams
    from yoyak.core.stale_outputs import PREFIX
    from yoyak.evaluation.leaderboard import ScoringParams
    from yoyak.evaluation.run import score_run

    run = read_section(RunParams, "run")
    untuned = [f"{PREFIX}untuned_{name}" for name in run.untuned]
    score_run(run.trained, run.averaged, untuned, read_section(ScoringParams, "scoring"))


if __name__ == "__main__":
    main()
