"""Stage `ensemble`: the predictions of `run.models` and their dev scores in; one summary a row out."""

from pathlib import Path
from typing import Any

from yoyak import ensemble, postprocessing, scoring, significance
from yoyak.ensemble import PLAN, EnsembleParams, Plan
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.postprocessing import PostprocessingParams
from yoyak.records import Prediction, read_records, write_json, write_records
from yoyak.scoring import ScoringParams, Split


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(EnsembleParams, content["ensemble"], "params.yaml: ensemble")
    judging = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    repairs = check(PostprocessingParams, content["postprocessing"], "params.yaml: postprocessing")
    models = ensemble.candidates_for_membership(params, content["run"]["models"])
    predictions = {
        split: {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in models}
        for split in ("dev", "test")
    }
    dev = scoring.read_split("dev")
    plan, gain, judged = decide(params, predictions["dev"], dev, judging, repairs)
    combined = {split: ensemble.combine(said, plan) for split, said in predictions.items()}
    measured = postprocessing.report(combined["dev"], dev, repairs, judging)
    combined = {split: postprocessing.apply(repairs, rows) for split, rows in combined.items()}
    for split, rows in combined.items():
        write_records(Path(f"ensemble/{split}.jsonl"), rows)
    write_json(PLAN, plan.model_dump())
    decided = {"members": models, "used": plan.strategy, "weights": plan.weights, "gain": gain}
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
) -> tuple[Plan, dict[str, Any] | None, dict[str, list[Prediction]]]:
    """What to do with test; and why: what it gains on dev, by which summaries."""
    scores = ensemble.dev_scores(Path("scores/rows.csv"), list(said), dev.fnames)
    if params.strategy == "best":
        return ensemble.plan_of_best(scores), None, {}
    study = ensemble.study(said, scores, dev.references, judging.metric)
    fold = significance.folds(len(dev.fnames), judging.seed)
    # Both repaired alike: the gain is the ensemble's own.
    judged, best = (postprocessing.apply(repairs, rows) for rows in ensemble.cross_validated(params, study, said, fold))
    gain = scoring.gain(judged, best, judging)
    worth_it = gain["rouge_mean"] > 0 and not gain["noise"]
    plan = ensemble.plan_of_mbr(params, study) if worth_it else ensemble.plan_of_best(scores)
    return plan, gain, {"cross_validated": judged}


if __name__ == "__main__":
    main()
