"""Whether the ensemble is worth it, by its scores and its best member's: on dev or, of folds, on train."""

from pathlib import Path
from typing import Any

from yoyak.core.records import Prediction, Prompt, read_records
from yoyak.ensembling import postprocessing, weighting
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
) -> tuple[Plan, dict[str, Any], dict[str, list[Prediction]]]:
    """The plan for test; why: what it was learned on, and its `delta` to the best member on dev; and the summaries of
    dev that were judged. `predictions` are the members' for dev."""
    scores = weighting.dev_scores(Path("scores/rows.csv"), list(predictions), dev.fnames)
    alone = weighting.plan_of_best(scores)
    if params.strategy == "best":
        return alone, {"learned_on": "dev", "delta": None}, {}
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
    worth_it = delta["rouge_mean"] > 0 and not delta["noise"]
    return (plan if worth_it else alone), {"learned_on": learned_on, "delta": delta}, {"cross_validated": judged}


def study_of_train(models: list[str], judging: ScoringParams) -> ScoredPools | None:
    """Out-of-fold predictions of train, scored; none where not all models are folds."""
    paths = {name: Path(f"predictions/{name}/train.jsonl") for name in models}
    if not all(path.exists() for path in paths.values()):
        return None
    predictions = {name: read_records(path, Prediction) for name, path in paths.items()}
    prompts = read_records(Path("data/prompts/train.jsonl"), Prompt)
    if (rows := weighting.out_of_fold(predictions, [row.fname for row in prompts])) is None:
        return None
    references = [(row.summary or "",) for row in prompts]
    scores = {
        family: leaderboard.score([row.text for row in texts], references, judging.metric).mean(axis=1)
        for family, texts in rows.items()
    }
    return weighting.study(rows, scores, references, judging.metric)
