"""Stage `ensemble`: predictions of `run.models` and `run.averaged` and their dev scores in; one summary a row out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line
from yoyak.core.params import check, read_yaml
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.run import ensemble
from yoyak.ensembling.weighting import EnsembleParams
from yoyak.evaluation.leaderboard import ScoringParams


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(EnsembleParams, content["ensemble"], "params.yaml: ensemble")
    judging = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    repairs = check(PostprocessingParams, content["postprocessing"], "params.yaml: postprocessing")
    ensemble([*content["run"]["models"], *content["run"]["averaged"]], params, judging, repairs)


if __name__ == "__main__":
    main()
