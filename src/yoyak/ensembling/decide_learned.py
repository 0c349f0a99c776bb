"""Whether what was learned of candidates is worth more than MBR, and either more than the best member."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from yoyak.core.records import Floats, Prediction, Prompt, read_records
from yoyak.ensembling import families, learned, postprocessing, weighting
from yoyak.ensembling.features import Evidence, Likelihoods, evidence
from yoyak.ensembling.learned import Study
from yoyak.ensembling.postprocessing import PostprocessingParams
from yoyak.ensembling.weighting import EnsembleParams, Plan, family_of
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import ScoringParams, Split


class Unseen(NamedTuple):
    """Scores of choices on rows of train that no member has seen, each chosen by what the other rows tell: in percent,
    shape (rows,)."""

    learned: Floats
    mbr: Floats
    best: Floats
    oracle: Floats


class OnDev(NamedTuple):
    """Summaries of dev by what was learned on train; `best` was chosen on dev itself."""

    learned: list[Prediction]
    mbr: list[Prediction]
    best: list[Prediction]


def study_of_unseen(
    models: Sequence[str], params: EnsembleParams, judging: ScoringParams, rescorers: Sequence[str]
) -> Study:
    """Rows of train that neither a member nor a rescorer has seen; under a number of members so many families, the best
    on these rows."""
    prompts, rows = families.unseen(models, read_records(Path("data/prompts/train.jsonl"), Prompt), rescorers)
    if not prompts:
        raise families.nothing_to_learn(families.why_none([*models, *rescorers]))
    references = [(row.summary or "",) for row in prompts]
    scores = scores_of(rows, references, judging)
    ranked = sorted(scores, key=lambda family: -float(scores[family].mean()))
    kept = ranked[: params.members] if isinstance(params.members, int) else ranked
    dialogues = ["\n".join(row.turns) for row in prompts]
    said = families.likelihoods(rescorers, "train", [row.fname for row in prompts])
    found = evidence({family: rows[family] for family in kept}, dialogues, said)
    of_kept = {family: scores[family] for family in kept}
    return Study(found, weighting.with_scores([each.pool for each in found], of_kept, references, judging.metric))


def scores_of(
    rows: Mapping[str, Sequence[Prediction]], references: Sequence[Sequence[str]], judging: ScoringParams
) -> dict[str, Floats]:
    """Of each family's summaries, in percent, shape (rows,)."""
    return {
        family: leaderboard.score([row.text for row in texts], references, judging.metric).mean(axis=1)
        for family, texts in rows.items()
    }


def evidence_of(
    predictions: Mapping[str, Sequence[Prediction]], kept: Sequence[str], prompts: Sequence[Prompt], said: Likelihoods
) -> list[Evidence]:
    """Of rows of dev, of test, or of anybody's dialogues: `kept` are the families of the members."""
    by_family = families.joined({name: rows for name, rows in predictions.items() if family_of(name) in kept})
    dialogues = ["\n".join(row.turns) for row in prompts]
    return evidence({family: by_family[family] for family in kept}, dialogues, said)


def combine(
    predictions: Mapping[str, Sequence[Prediction]], plan: Plan, prompts: Sequence[Prompt], said: Likelihoods
) -> list[Prediction]:
    """A prediction for each row by whatever plan; `said` is what the rescorers say of the candidates."""
    if plan.learned is None:
        return weighting.combine(predictions, plan)
    kept = list(plan.learned.weights)
    return learned.combine(evidence_of(predictions, kept, prompts, said), plan.learned, kept)


def out_of_fold(params: EnsembleParams, study: Study, rescorers: Sequence[str], seed: int) -> Unseen:
    """Cross-validated over the rows of the study."""
    scored, rows = study.scored, len(study.evidence)
    fold = significance.parts(rows, seed)
    of_mbr, best = np.zeros(rows), np.zeros(rows)
    for part in range(fold.max() + 1):
        outside = fold != part if rows > 1 else fold == part
        weights = weighting.learn_weights(params, scored, outside)
        name = weighting.best_member(scored.scores, outside)
        for row in np.flatnonzero(fold == part).tolist():
            of_mbr[row] = weighting.score_of(scored, weights, row)
            best[row] = scored.scores[name][row]
    by_learned = learned.cross_validated(params, study, rescorers, fold)
    return Unseen(by_learned, of_mbr, best, learned.oracle(scored))


def decide(
    params: EnsembleParams,
    predictions: Mapping[str, Sequence[Prediction]],
    dev: Split,
    judging: ScoringParams,
    repairs: PostprocessingParams,
    rescorers: Sequence[str],
    alone: Plan,
) -> tuple[Plan, dict[str, Any], dict[str, list[Prediction]]]:
    """As `decide.decide`: the choice that was learned where it is worth more than MBR, and else MBR, unless the best
    member alone, `alone`, does as well.

    They are compared row by row on dev and on the rows of train that no member has seen, together. What chooses in a
    row has not seen it: on dev the coefficients and MBR's weights are learned on train, and on a row of train, by
    `out_of_fold`, on the others. Two choices are made on all rows at once, and neither favours what was learned over
    MBR: which families take part is the same for both, and the best member on dev is chosen on dev itself.
    """
    study = study_of_unseen(list(predictions), params, judging, rescorers)
    kept = list(study.scored.scores)
    everywhere = np.ones(len(study.evidence), dtype=bool)
    choice = learned.learn(params, study, everywhere, rescorers)
    members = [name for name in predictions if family_of(name) in kept]
    by_mbr = weighting.plan_by_folds(params, study.scored, members)
    by_learned = Plan(strategy="learned", weights=by_mbr.weights, learned=choice)
    prompts = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    of_dev = evidence_of(predictions, kept, prompts, families.likelihoods(rescorers, "dev", dev.fnames))
    unseen = out_of_fold(params, study, rescorers, judging.seed)
    on_dev = OnDev(
        learned.combine(of_dev, choice, kept),
        weighting.combine(predictions, by_mbr),
        weighting.combine(predictions, alone),
    )
    # All repaired alike: the differences are the choices' own.
    on_dev = OnDev(*(postprocessing.apply(repairs, rows) for rows in on_dev))
    scores = {
        name: leaderboard.score(leaderboard.align(rows, dev.fnames, name), dev.references, judging.metric).mean(axis=1)
        for name, rows in on_dev._asdict().items()
    }

    def delta(one: str, other: str) -> dict[str, Any]:
        rows = np.concatenate([scores[one] - scores[other], getattr(unseen, one) - getattr(unseen, other)])
        return leaderboard.deltas({one: rows[:, None]}, 1, judging)[one]

    over_mbr = delta("learned", "mbr")
    used, plan = ("learned", by_learned) if is_gain(over_mbr) else ("mbr", by_mbr)
    over_best = delta(used, "best")
    why = {
        "learned_on": "train, out of fold",
        "delta": over_best,
        "learned": {
            "worth_it": used == "learned",
            "rows": len(study.evidence),
            "rescorers": list(rescorers),
            "delta_over_mbr": over_mbr,
            "out_of_fold": {name: _mean(values) for name, values in unseen._asdict().items()},
            "dev": {name: _mean(values) for name, values in scores.items()},
            "gap_closed": gap_closed(unseen),
            "sharpness": choice.sharpness,
            "points_a_deviation": {name: round(points, 3) for name, points in learned.spread(study, choice).items()},
        },
    }
    judged = {"cross_validated": getattr(on_dev, used)}
    return (plan if is_gain(over_best) else alone), why, judged


def gap_closed(unseen: Unseen) -> float | None:
    """The share of what lies between MBR and the best candidates that the learned choice gains; none where nothing
    does."""
    gap = float((unseen.oracle - unseen.mbr).mean())
    return round(float((unseen.learned - unseen.mbr).mean()) / gap, 3) if gap > 0 else None


def is_gain(delta: Mapping[str, Any]) -> bool:
    """Whether what is gained is more than what may be chance."""
    return bool(delta["rouge_mean"] > 0 and not delta["noise"])


def _mean(values: Floats) -> float:
    return round(float(values.mean()), 2)
