"""Stage `ensemble`: predictions of all models of `run` and their dev scores in; one summary a row out."""

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.params import read_section
    from yoyak.core.run import RunParams
    from yoyak.ensembling.postprocessing import PostprocessingParams
    from yoyak.ensembling.run import ensemble
    from yoyak.ensembling.weighting import EnsembleParams
    from yoyak.evaluation.leaderboard import ScoringParams

    run = read_section(RunParams, "run")
    judging, repairs = read_section(ScoringParams, "scoring"), read_section(PostprocessingParams, "postprocessing")
    ensemble(run.scored, run.rescorers, read_section(EnsembleParams, "ensemble"), judging, repairs)


if __name__ == "__main__":
    main()
