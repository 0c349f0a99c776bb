"""One ensemble, from the models' predictions to its own summaries and their scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from yoyak.core.records import Prediction, read_records, write_json, write_records
from yoyak.ensembling import postprocessing, weighting
from yoyak.ensembling.decide import decide
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import PLAN, EnsembleParams, ScoredPools
from yoyak.evaluation import leaderboard
from yoyak.evaluation.leaderboard import ScoringParams


def ensemble(
    scored: Sequence[str], params: EnsembleParams, judging: ScoringParams, repairs: PostprocessingParams
) -> None:
    """Decide on dev how the models named by `scored` are combined; write the repaired summaries of dev and test."""
    models = weighting.candidates_for_membership(params, scored)
    predictions = {
        split: {name: read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction) for name in models}
        for split in ("dev", "test")
    }
    dev = leaderboard.read_split("dev")
    for split, by_model in predictions.items():
        weighting.check_rows(by_model, dev.fnames if split == "dev" else None)
    decision = decide(params, predictions["dev"], dev, judging, repairs)
    plan = decision.plan
    combined = {"dev": decision.dev, "test": weighting.combine(predictions["test"], plan)}
    measured = postprocessing.report(combined["dev"], dev, repairs, judging)
    combined = {split: postprocessing.apply(repairs, rows) for split, rows in combined.items()}
    for split, rows in combined.items():
        write_records(Path(f"ensemble/{split}.jsonl"), rows)
    write_json(PLAN, plan.model_dump())
    studied = {"dev": decision.studied}
    oracles = {
        split: _oracle(predictions[split], split, studied.get(split), judging) for split in leaderboard.known_splits()
    }
    decided = {
        "members": models,
        "used": plan.strategy,
        "weights": plan.weights,
        "oracle": oracles,
        **decision.why,
    }
    report = leaderboard.ensemble_report({**combined, **decision.judged}, judging)
    write_json(Path("metrics/ensemble.json"), report | decided)
    # For the submission's checklist: no stage depends on a metrics file. Without the commit, by which the submission
    # would be made anew from the same summaries.
    scoring = {key: value for key, value in report["scoring"].items() if key != "commit"}
    write_json(Path("ensemble/dev_score.json"), {"scoring": scoring, "ensemble": report["ensemble"]})
    write_json(Path("metrics/postprocessing.json"), measured)


def _oracle(
    predictions: Mapping[str, Sequence[Prediction]], split: str, studied: ScoredPools | None, judging: ScoringParams
) -> float:
    """Mean score of each row's best candidate, in percent; `studied` are the split's, where they have been scored."""
    if studied is not None:
        scores = weighting.oracle_of_studied(studied)
    else:
        scores = weighting.oracle(predictions, leaderboard.read_split(split).references, judging.metric)
    return round(float(scores.mean()), 2)
