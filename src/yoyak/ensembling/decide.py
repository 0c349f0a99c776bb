"""Whether the ensemble is worth it, by its scores and its best member's: on dev or, of folds, on train."""

from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core.records import Prediction, Prompt, read_records
from yoyak.ensembling import postprocessing, weighting
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import EnsembleParams, Plan, ScoredPools
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import ScoringParams, Split


class Decision(NamedTuple):
    """What dev has decided."""

    plan: Plan
    """For test."""
    why: dict[str, Any]
    """What it was learned on, and its `delta` to the best member on dev."""
    judged: dict[str, list[Prediction]]
    """The summaries of dev by which it was decided, by their name in the report; repaired."""
    dev: list[Prediction]
    """Dev's summaries by the plan, not repaired."""
    studied: ScoredPools | None
    """Dev's candidates, where they had to be scored."""


def decide(
    params: EnsembleParams,
    predictions: dict[str, list[Prediction]],
    dev: Split,
    judging: ScoringParams,
    repairs: PostprocessingParams,
) -> Decision:
    """Whether the members, whose `predictions` for dev these are, are better together than the best of them."""
    scores = weighting.dev_scores(Path("scores/rows.csv"), list(predictions), dev.fnames)
    alone = weighting.plan_of_best(scores)
    by_best = weighting.combine(predictions, alone)
    if params.strategy == "best":
        return Decision(alone, {"learned_on": "dev", "delta": None}, {}, by_best, None)
    studied = None
    if (train := study_of_train(list(predictions), judging)) is not None:
        learned_on, plan = "train, out of fold", weighting.plan_by_folds(params, train, list(predictions))
        judged, best = weighting.combine(predictions, plan), by_best
        together = judged
    else:
        studied = weighting.study(predictions, scores, dev.references, judging.metric)
        learned_on, plan = "dev", weighting.plan_of_mbr(params, studied)
        fold = significance.parts(len(dev.fnames), judging.seed)
        judged, best = weighting.cross_validated(params, studied, predictions, fold)
        together = weighting.combine_studied(studied, plan)
    # Both repaired alike: the difference is the ensemble's own.
    judged, best = (postprocessing.apply(repairs, rows) for rows in (judged, best))
    delta = leaderboard.ensemble_delta(judged, best, judging)
    worth_it = delta["rouge_mean"] > 0 and not delta["noise"]
    chosen, rows = (plan, together) if worth_it else (alone, by_best)
    why = {"learned_on": learned_on, "delta": delta}
    return Decision(chosen, why, {"cross_validated": judged}, rows, studied)


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
