"""Stage `ensemble`: predictions of `run.models` and `run.averaged` and their dev scores in; one summary a row out."""

from pathlib import Path
from typing import Any

from yoyak import ensemble, postprocessing, scoring, significance
from yoyak.ensemble import PLAN, Dev, EnsembleParams, Plan
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.postprocessing import PostprocessingParams
from yoyak.records import Prediction, Prompt, read_records, write_json, write_records
from yoyak.scoring import ScoringParams, Split


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(EnsembleParams, content["ensemble"], "params.yaml: ensemble")
    judging = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    repairs = check(PostprocessingParams, content["postprocessing"], "params.yaml: postprocessing")
    run = content["run"]
    models = ensemble.candidates_for_membership(params, [*run["models"], *run["averaged"]])
    predictions = {
        split: {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in models}
        for split in ("dev", "test")
    }
    dev = scoring.read_split("dev")
    plan, why, judged = decide(params, predictions["dev"], dev, judging, repairs)
    combined = {split: ensemble.combine(said, plan) for split, said in predictions.items()}
    measured = postprocessing.report(combined["dev"], dev, repairs, judging)
    combined = {split: postprocessing.apply(repairs, rows) for split, rows in combined.items()}
    for split, rows in combined.items():
        write_records(Path(f"ensemble/{split}.jsonl"), rows)
    write_json(PLAN, plan.model_dump())
    decided = {"members": models, "used": plan.strategy, "weights": plan.weights, **why}
    report = scoring.ensemble_report({**combined, **judged}, judging)
    write_json(Path("metrics/ensemble.json"), report | decided)
    # For the submission's checklist: no stage depends on a metrics file.
    write_json(Path("ensemble/dev_score.json"), {key: report[key] for key in ("scoring", "ensemble")})
    write_json(Path("metrics/postprocessing.json"), measured)


def decide(
    params: EnsembleParams,
    said: dict[str, list[Prediction]],
    dev: Split,
    judging: ScoringParams,
    repairs: PostprocessingParams,
) -> tuple[Plan, dict[str, Any], dict[str, list[Prediction]]]:
    """What to do with test; and why: where it was learned, what it gains on dev, and by which summaries."""
    scores = ensemble.dev_scores(Path("scores/rows.csv"), list(said), dev.fnames)
    alone = ensemble.plan_of_best(scores)
    if params.strategy == "best":
        return alone, {"learned_on": "dev", "gain": None}, {}
    if (train := study_of_train(list(said), judging)) is not None:
        learned_on, plan = "train, out of fold", ensemble.plan_by_folds(params, train, list(said))
        judged, best = ensemble.combine(said, plan), ensemble.combine(said, alone)
    else:
        study = ensemble.study(said, scores, dev.references, judging.metric)
        learned_on, plan = "dev", ensemble.plan_of_mbr(params, study)
        fold = significance.parts(len(dev.fnames), judging.seed)
        judged, best = ensemble.cross_validated(params, study, said, fold)
    # Both repaired alike: the gain is the ensemble's own.
    judged, best = (postprocessing.apply(repairs, rows) for rows in (judged, best))
    gain = scoring.gain(judged, best, judging)
    worth_it = gain["rouge_mean"] > 0 and not gain["noise"]
    return (plan if worth_it else alone), {"learned_on": learned_on, "gain": gain}, {"cross_validated": judged}


def study_of_train(models: list[str], judging: ScoringParams) -> Dev | None:
    """Of out-of-fold predictions; none where not all models are folds."""
    paths = {name: Path(f"predictions/{name}/train.jsonl") for name in models}
    if not all(path.exists() for path in paths.values()):
        return None
    said = {name: read_records(path, Prediction) for name, path in paths.items()}
    prompts = read_records(Path("data/prompts/train.jsonl"), Prompt)
    if (rows := ensemble.out_of_fold(said, [row.fname for row in prompts])) is None:
        return None
    references = [(row.summary or "",) for row in prompts]
    scores = {
        family: scoring.score([row.text for row in texts], references, judging.metric).mean(axis=1)
        for family, texts in rows.items()
    }
    return ensemble.study(rows, scores, references, judging.metric)


if __name__ == "__main__":
    main()
