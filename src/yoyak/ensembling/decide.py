"""Whether the ensemble is worth it: what dev and, of folds, train say of it beside its best member."""

from pathlib import Path
from typing import Any

from yoyak.core.records import Prediction, Prompt, read_records
from yoyak.ensembling import postprocessing, weighting
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import Dev, EnsembleParams, Plan
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import ScoringParams, Split


def decide(
    params: EnsembleParams,
    said: dict[str, list[Prediction]],
    dev: Split,
    judging: ScoringParams,
    repairs: PostprocessingParams,
) -> tuple[Plan, dict[str, Any], dict[str, list[Prediction]]]:
    """What to do with test; and why: where it was learned, what it gains on dev, and by which summaries."""
    scores = weighting.dev_scores(Path("scores/rows.csv"), list(said), dev.fnames)
    alone = weighting.plan_of_best(scores)
    if params.strategy == "best":
        return alone, {"learned_on": "dev", "gain": None}, {}
    if (train := study_of_train(list(said), judging)) is not None:
        learned_on, plan = "train, out of fold", weighting.plan_by_folds(params, train, list(said))
        judged, best = weighting.combine(said, plan), weighting.combine(said, alone)
    else:
        study = weighting.study(said, scores, dev.references, judging.metric)
        learned_on, plan = "dev", weighting.plan_of_mbr(params, study)
        fold = significance.parts(len(dev.fnames), judging.seed)
        judged, best = weighting.cross_validated(params, study, said, fold)
    # Both repaired alike: the gain is the ensemble's own.
    judged, best = (postprocessing.apply(repairs, rows) for rows in (judged, best))
    gain = leaderboard.gain(judged, best, judging)
    worth_it = gain["rouge_mean"] > 0 and not gain["noise"]
    return (plan if worth_it else alone), {"learned_on": learned_on, "gain": gain}, {"cross_validated": judged}


def study_of_train(models: list[str], judging: ScoringParams) -> Dev | None:
    """Of out-of-fold predictions; none where not all models are folds."""
    paths = {name: Path(f"predictions/{name}/train.jsonl") for name in models}
    if not all(path.exists() for path in paths.values()):
        return None
    said = {name: read_records(path, Prediction) for name, path in paths.items()}
    prompts = read_records(Path("data/prompts/train.jsonl"), Prompt)
    if (rows := weighting.out_of_fold(said, [row.fname for row in prompts])) is None:
        return None
    references = [(row.summary or "",) for row in prompts]
    scores = {
        family: leaderboard.score([row.text for row in texts], references, judging.metric).mean(axis=1)
        for family, texts in rows.items()
    }
    return weighting.study(rows, scores, references, judging.metric)
