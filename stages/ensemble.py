"""Stage `ensemble`: the predictions of `run.models` and their dev scores in; one summary a row out."""

from pathlib import Path

from yoyak import ensemble, postprocessing, scoring, significance
from yoyak.ensemble import EnsembleParams
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.postprocessing import PostprocessingParams
from yoyak.records import Prediction, read_records, write_json, write_records
from yoyak.scoring import ScoringParams


@exits_with_one_line
def main() -> None:
    content = read_yaml(Path("params.yaml"))
    params = check(EnsembleParams, content["ensemble"], "params.yaml: ensemble")
    judging = check(ScoringParams, content["scoring"], "params.yaml: scoring")
    repairs = check(PostprocessingParams, content["postprocessing"], "params.yaml: postprocessing")
    models = content["run"]["models"]
    predictions = {
        split: {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in models}
        for split in ("dev", "test")
    }
    by_fname = ensemble.dev_scores(Path("scores/rows.csv"), models)
    scores = {
        name: by_fname[name].loc[[row.fname for row in said]].to_numpy() for name, said in predictions["dev"].items()
    }
    weights = ensemble.dev_weights(params, by_fname)
    combined = {split: ensemble.combine(said, weights) for split, said in predictions.items()}
    measured = postprocessing.report(combined["dev"], scoring.read_split("dev"), repairs, judging)
    combined = {split: postprocessing.apply(repairs, rows) for split, rows in combined.items()}
    for split, summaries in combined.items():
        write_records(Path(f"ensemble/{split}.jsonl"), summaries)

    fold = significance.folds(len(combined["dev"]), judging.seed)
    cross_validated = ensemble.cross_validated(params, predictions["dev"], scores, fold)
    judged = {
        "dev": combined["dev"],
        "cross_validated": postprocessing.apply(repairs, cross_validated),
        "test": combined["test"],
    }
    # Repaired as the ensemble is: the gain over it is the ensemble's own.
    best = postprocessing.apply(repairs, predictions["dev"][max(weights, key=weights.__getitem__)])
    write_json(Path("metrics/ensemble.json"), scoring.ensemble_report(judged, weights, best, judging))
    write_json(Path("metrics/postprocessing.json"), measured)


if __name__ == "__main__":
    main()
