"""Whether the ensemble is worth it, by its scores and its best member's: on dev or, of folds, on train."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yoyak.core.records import Prediction, Prompt, read_records
from yoyak.ensembling import decide_learned, families, postprocessing, weighting
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import EnsembleParams, Plan, ScoredPools
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import ScoringParams, Split


def decide(
    params: EnsembleParams,
    predictions: dict[str, list[Prediction]],
    dev: Split,
    judging: ScoringParams,
    repairs: PostprocessingParams,
    rescorers: Sequence[str],
) -> tuple[Plan, dict[str, Any], dict[str, list[Prediction]]]:
    """The plan for test; why: what it was learned on, and its `delta` to the best member on dev; and the summaries of
    dev that were judged. `predictions` are the members' for dev."""
    scores = weighting.dev_scores(Path("scores/rows.csv"), list(predictions), dev.fnames)
    alone = weighting.plan_of_best(scores)
    if params.strategy == "best":
        return alone, {"learned_on": "dev", "delta": None}, {}
    if params.strategy == "learned":
        return decide_learned.decide(params, predictions, dev, judging, repairs, rescorers, alone)
    if (train := study_of_train(list(predictions), judging)) is not None:
        learned_on, plan = "train, out of fold", weighting.plan_by_folds(params, train, list(predictions))
        judged, best = weighting.combine(predictions, plan), weighting.combine(predictions, alone)
    else:
        scored = weighting.study(predictions, scores, dev.references, judging.metric)
        learned_on, plan = "dev", weighting.plan_of_mbr(params, scored)
        fold = significance.parts(len(dev.fnames), judging.seed)
        judged, best = weighting.cross_validated(params, scored, predictions, fold)
    # Both repaired alike: the difference is the ensemble's own.
    judged, best = (postprocessing.apply(repairs, rows) for rows in (judged, best))
    delta = leaderboard.ensemble_delta(judged, best, judging)
    worth_it = decide_learned.is_gain(delta)
    return (plan if worth_it else alone), {"learned_on": learned_on, "delta": delta}, {"cross_validated": judged}


def study_of_train(models: Sequence[str], judging: ScoringParams) -> ScoredPools | None:
    """Rows of train that no member has seen, scored; none where there are none."""
    if not families.leave_out(models):
        return None
    prompts, rows = families.unseen(models, read_records(Path("data/prompts/train.jsonl"), Prompt))
    if not prompts:
        return None
    references = [(row.summary or "",) for row in prompts]
    return weighting.study(rows, decide_learned.scores_of(rows, references, judging), references, judging.metric)
