"""Stage `ensemble`: the predictions of `run.models` and their dev scores in; one summary a row out."""

from pathlib import Path

from yoyak import ensemble, scoring, significance
from yoyak.ensemble import PLAN, EnsembleParams
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, read_records, write_json, write_records
from yoyak.scoring import ScoringParams


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(EnsembleParams, content["ensemble"], "params.yaml: ensemble")
    judging = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    models = ensemble.candidates_for_membership(params, content["run"]["models"])
    predictions = {
        split: {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in models}
        for split in ("dev", "test")
    }
    split = scoring.read_split("dev")
    scores = ensemble.dev_scores(Path("scores/rows.csv"), models, split.fnames)
    plan, judged, gain = ensemble.plan_of_best(scores), {}, None
    if params.strategy == "mbr":
        dev = ensemble.study(predictions["dev"], scores, split.references, judging.metric)
        fold = significance.folds(len(dev.pools), judging.seed)
        judged["cross_validated"], best = ensemble.cross_validated(params, dev, predictions["dev"], fold)
        gain = scoring.gain(judged["cross_validated"], best, judging)
        if gain["rouge_mean"] > 0 and not gain["noise"]:
            plan = ensemble.plan_of_mbr(params, dev)
    summaries = {name: ensemble.combine(said, plan) for name, said in predictions.items()}
    for name, rows in summaries.items():
        write_records(Path(f"ensemble/{name}.jsonl"), rows)
    decided = {"members": models, "used": plan.strategy, "weights": plan.weights, "gain": gain}
    write_json(PLAN, plan.model_dump())
    write_json(Path("metrics/ensemble.json"), scoring.ensemble_report({**summaries, **judged}, judging) | decided)


if __name__ == "__main__":
    main()
