"""One summary a row from several models: which take part, how much each counts, and whether it is worth it."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from yoyak.core.errors import UserError, quoted
from yoyak.core.files import read_text
from yoyak.core.params import Section, check
from yoyak.core.records import MEND, Floats, Prediction, read_json
from yoyak.core.run import Name
from yoyak.ensembling import mbr
from yoyak.ensembling.mbr import Pool
from yoyak.evaluation.tables import parsed
from yoyak.metrics import rouge

Strategy = Literal["mbr", "best"]
SHARPNESS = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Among these one is learned: 0 lets all members count alike; at 2 a member whose dev score is one point lower counts
for a seventh."""
ENSEMBLE = "ensemble"
"""The ensemble's name, in the place of a model's."""
PLAN = Path("ensemble/plan.json")
FOLD = re.compile(r"_f\d+$")


class EnsembleParams(Section):
    """How models join."""

    strategy: Strategy
    """`mbr`: the candidate most like all members' candidates, in the competition's own metric, unless what it gains on
    dev may be chance; `best`: the best member's summaries."""
    members: Annotated[int, Field(ge=1)] | list[str] | None = None
    """Who may take part: a number (so many of the run's, the best on dev) or a list of names; all
    where the key is empty."""


class Plan(Section):
    """What was decided on dev: the content of `ensemble/plan.json`."""

    strategy: Strategy
    weights: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    """Weight of each member; their sum is 1. Under `best` there is one member."""

    @model_validator(mode="after")
    def _best_is_one(self) -> "Plan":
        if self.strategy == "best" and len(self.weights) > 1:
            raise ValueError("strategy: best has one member")
        return self


class ScoredPools(NamedTuple):
    """Rows with known references, dev's or train's: the models' scores, and all candidates with theirs."""

    scores: dict[str, Floats]
    """Scores of each model's summaries, in percent, shape (rows,)."""
    pools: list[Pool]
    """A pool a row; its utilities have a column for each model, in the order of `scores`."""
    candidate_scores: list[Floats]
    """Scores of each pool's candidates, in percent: an array of shape (candidates,) a row."""


def check_members(params: EnsembleParams, models: Sequence[str]) -> None:
    """Stop where a named member is not in the run."""
    for name in params.members if isinstance(params.members, list) else []:
        if name not in models:
            raise UserError(f"params.yaml: ensemble.members: {quoted(name)} is not in the run ({', '.join(models)})")


def candidates_for_membership(params: EnsembleParams, models: Sequence[str]) -> list[str]:
    """Models that may take part."""
    check_members(params, models)
    return list(params.members) if isinstance(params.members, list) else list(models)


def check_rows(predictions: Mapping[str, Sequence[Prediction]], fnames: Sequence[str] | None) -> None:
    """Stop unless the predictions of all members are of the same rows, in one order: that of `fnames`, if known."""
    for name, rows in predictions.items():
        found = [row.fname for row in rows]
        fnames = found if fnames is None else fnames
        if found != list(fnames):
            raise UserError(f"predictions of {name}: not of the rows that the others are of; run `dvc repro`")


def dev_scores(path: Path, models: Sequence[str], fnames: Sequence[str]) -> dict[str, Floats]:
    """Each model's scores of the dev rows `fnames` from `scores/rows.csv`, in percent, shape (rows,)."""
    missing = "no such file; run `dvc repro`, or `dvc pull` if it was pushed"
    table = dev_table(read_text(path, missing, MEND), str(path))
    for name in models:
        if name not in table.columns:
            raise UserError(f"{path}: no dev scores of {name}; run `dvc repro`")
        if lost := set(fnames) - set(table[name].dropna().index):
            raise UserError(f"{path}: no dev score of {name} for {quoted(min(lost))}; run `dvc repro`")
    return {name: table[name].loc[list(fnames)].to_numpy() for name in models}


def dev_table(rows: str, where: str) -> pd.DataFrame:
    """Mean ROUGE on dev from `scores/rows.csv`, in percent: a line a row, by fname, and a column a model, best first;
    baselines are among them. `rows` is the file's text, and `where` names it in errors."""
    table = parsed(rows, where, ["split", "model", "fname"], ["rouge_mean"])
    of_dev = table[table["split"] == "dev"]
    twice = of_dev[of_dev.duplicated(["model", "fname"])]
    if len(twice):
        model, fname = twice.iloc[0][["model", "fname"]]
        raise UserError(f"{where}: two dev scores of {quoted(model)} for {quoted(fname)}; run `dvc repro`")
    dev = of_dev.pivot(index="fname", columns="model", values="rouge_mean")
    return dev[[name for name in table["model"].unique() if name in dev.columns]]


def study(
    predictions: Mapping[str, Sequence[Prediction]],
    scores: dict[str, Floats],
    references: Sequence[Sequence[str]],
    metric: rouge.Metric,
) -> ScoredPools:
    """Pool, compare and score all candidates of the rows whose `references` these are."""
    pools = mbr.pools(predictions)
    texts = [candidate.text for pool in pools for candidate in pool.candidates]
    repeated = [row for pool, row in zip(pools, references, strict=True) for _ in pool.candidates]
    values = np.array([100 * score.mean for score in rouge.score(texts, repeated, metric)])
    ends = np.cumsum([len(pool.candidates) for pool in pools])
    return ScoredPools(scores, pools, np.split(values, ends[:-1]))


def oracle(
    predictions: Mapping[str, Sequence[Prediction]], references: Sequence[Sequence[str]], metric: rouge.Metric
) -> Floats:
    """Score of each row's best candidate of all members, in percent, shape (rows,): as high as any choice can come; 0
    where there is none."""
    rows = zip(*predictions.values(), strict=True)
    texts = [sorted({each.text for member in row for each in member.candidates}) for row in rows]
    repeated = [row for of_row, row in zip(texts, references, strict=True) for _ in of_row]
    values = iter(rouge.score([text for of_row in texts for text in of_row], repeated, metric))
    return np.array([max((100 * next(values).mean for _ in of_row), default=0.0) for of_row in texts])


def oracle_of_studied(scored: ScoredPools) -> Floats:
    """As `oracle`, of rows whose candidates have been scored."""
    return np.array([max(scores, default=0.0) for scores in scored.candidate_scores])


def out_of_fold(
    predictions: Mapping[str, Sequence[Prediction]], fnames: Sequence[str]
) -> dict[str, list[Prediction]] | None:
    """Predictions of `kobart` for train, put together from those of `kobart_f0` … for the rows that each has not seen;
    in the order of `fnames`.

    None unless all models are such folds, and each row of train has a prediction by exactly one fold of each.
    """
    families: dict[str, list[Prediction]] = {}
    for name, rows in predictions.items():
        families.setdefault(family_of(name), []).extend(rows)
    complete = all(sorted(row.fname for row in rows) == sorted(fnames) for rows in families.values())
    if not complete:
        return None
    by_name = {family: {row.fname: row for row in rows} for family, rows in families.items()}
    return {family: [rows[fname] for fname in fnames] for family, rows in by_name.items()}


def family_of(name: str) -> str:
    """The model that a fold belongs to: `kobart_f3` → `kobart`."""
    return FOLD.sub("", name)


def plan_by_folds(params: EnsembleParams, train: ScoredPools, models: Sequence[str]) -> Plan:
    """MBR with weights learned on out-of-fold rows of train, a family's weight shared evenly among its folds."""
    families = learn(params, train, _everywhere(train.scores))
    sizes = Counter(map(family_of, models))
    weights = {
        name: families[family_of(name)] / sizes[family_of(name)] for name in models if family_of(name) in families
    }
    return Plan(strategy="mbr", weights=weights)


def learn(params: EnsembleParams, scored: ScoredPools, rows: NDArray[np.bool_]) -> dict[str, float]:
    """The members' weights that score best on the chosen `rows`, a mask of shape (rows,)."""
    means = {name: float(scores[rows].mean()) for name, scores in scored.scores.items()}
    ranked = sorted(means, key=means.__getitem__, reverse=True)
    members = ranked[: params.members] if isinstance(params.members, int) else ranked
    options = [_sharpened({name: means[name] for name in members}, sharpness) for sharpness in SHARPNESS]
    reached = [_mean_score(scored, _vector(scored, weights), np.flatnonzero(rows)) for weights in options]
    return options[int(np.argmax(reached))]


def _sharpened(means: dict[str, float], sharpness: float) -> dict[str, float]:
    """Weights that fall with the distance to the best mean, in percent points."""
    best = max(means.values())
    raw = {name: float(np.exp(sharpness * (mean - best))) for name, mean in means.items()}
    return {name: weight / sum(raw.values()) for name, weight in raw.items()}


def _vector(scored: ScoredPools, weights: Mapping[str, float]) -> Floats:
    """Weights in the order of the pools' members, shape (members,)."""
    return np.array([weights.get(name, 0.0) for name in scored.scores])


def _mean_score(scored: ScoredPools, weights: Floats, rows: NDArray[np.int64]) -> float:
    return float(np.mean([_score_of(scored, weights, int(row)) for row in rows]))


def _score_of(scored: ScoredPools, weights: Floats, row: int) -> float:
    """The score of the candidate that these weights choose, in percent; 0 where there is none."""
    best = mbr.choose(scored.pools[row], weights)
    return 0.0 if best is None else float(scored.candidate_scores[row][best])


def best_member(scores: Mapping[str, Floats], rows: NDArray[np.bool_]) -> str:
    """The model with the best mean on these rows."""
    return max(scores, key=lambda name: float(scores[name][rows].mean()))


def cross_validated(
    params: EnsembleParams,
    scored: ScoredPools,
    predictions: Mapping[str, Sequence[Prediction]],
    fold: NDArray[np.int64],
) -> tuple[list[Prediction], list[Prediction]]:
    """Predictions of the ensemble and of its best member for each row, both chosen on the other parts.

    `fold` is the part each row belongs to, shape (rows,).
    """
    combined, best = {}, {}
    for part in range(fold.max() + 1):
        # A single row has no others to learn from.
        outside = fold != part if len(fold) > 1 else fold == part
        weights, name = _vector(scored, learn(params, scored, outside)), best_member(scored.scores, outside)
        for row in np.flatnonzero(fold == part).tolist():
            combined[row] = mbr.prediction(scored.pools[row], weights)
            best[row] = predictions[name][row]
    return [combined[row] for row in range(len(fold))], [best[row] for row in range(len(fold))]


def plan_of_best(dev_scores: Mapping[str, Floats]) -> Plan:
    return Plan(strategy="best", weights={best_member(dev_scores, _everywhere(dev_scores)): 1.0})


def plan_of_mbr(params: EnsembleParams, scored: ScoredPools) -> Plan:
    return Plan(strategy="mbr", weights=learn(params, scored, _everywhere(scored.scores)))


def _everywhere(scores: Mapping[str, Floats]) -> NDArray[np.bool_]:
    return np.ones(len(next(iter(scores.values()))), dtype=bool)


def combine(predictions: Mapping[str, Sequence[Prediction]], plan: Plan) -> list[Prediction]:
    """A prediction for each row of the members, which hold the same rows in the same order."""
    members = {name: predictions[name] for name in plan.weights}
    if plan.strategy == "best":
        (only,) = members.values()
        return list(only)
    return _chosen(mbr.pools(members), plan)


def combine_studied(scored: ScoredPools, plan: Plan) -> list[Prediction]:
    """As `combine` under `mbr`, of rows that have been pooled: nothing is compared again."""
    names = list(scored.scores)
    places = [names.index(name) for name in plan.weights]
    return _chosen([mbr.of_members(pool, places) for pool in scored.pools], plan)


def _chosen(pools: Sequence[Pool], plan: Plan) -> list[Prediction]:
    """Of pools whose members are those of the plan, in its order."""
    weights = np.array(list(plan.weights.values()))
    return [mbr.prediction(pool, weights) for pool in pools]


def read_plan(path: Path = PLAN) -> Plan:
    return check(Plan, read_json(path), f"{path}:")
