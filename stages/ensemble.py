"""Stage `ensemble`: the predictions of `run.models` and their dev scores in; one summary a row out."""

from pathlib import Path

from yoyak.ensemble import EnsembleParams, Member, combine, members
from yoyak.errors import exits_with_one_line
from yoyak.parameters import check, read_yaml
from yoyak.records import Prediction, Prompt, read_json, read_records, write_json, write_records
from yoyak.scoring import ScoringParams, align, score, summarise


@exits_with_one_line
def main() -> None:
    params = read_yaml(Path("params.yaml"))
    ensemble = check(EnsembleParams, params["ensemble"], "params.yaml: ensemble")
    scoring = check(ScoringParams, params["scoring"], "params.yaml: scoring")
    scores = read_json(Path("metrics/scores.json"))
    dev_scores = {name: scores["models"][name]["rouge_mean"] for name in params["run"]["models"]}
    weights = members(ensemble, params["run"]["models"], dev_scores)
    for split in ("dev", "test"):
        write_records(
            Path(f"ensemble/{split}.jsonl"),
            combine(
                [
                    Member(weight, read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction))
                    for name, weight in weights.items()
                ]
            ),
        )
    prompts = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    texts = align(read_records(Path("ensemble/dev.jsonl"), Prediction), [row.fname for row in prompts], "ensemble")
    rows = score(texts, [(row.summary or "",) for row in prompts], scoring)
    write_json(
        Path("metrics/ensemble.json"),
        {"scoring": scores["scoring"], "ensemble": summarise(rows, scoring), "weights": weights},
    )


if __name__ == "__main__":
    main()
