"""Ways to choose among the candidates of several models, by the scores of what each chooses.

    python benchmarks/choice.py MODEL ... [--rescorers MODEL ...] [--folder PROJECT] [--seeds 5]

In a project, or in a folder that has of one `data/prompts`, `data/references`, `predictions` and `rescored`, each MODEL
with predictions of rows of train that it has not seen. Each way is learned on four fifths of these rows and chooses in
the last fifth, once for each fifth and seed; it is then learned on all of them and chooses on dev. LightGBM takes part
where it is installed; nothing else needs it.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from yoyak.core.records import Floats, Prediction, Prompt, read_records
from yoyak.ensembling import decide_learned, families, learned, weighting
from yoyak.ensembling.features import OWN, SHARPNESS
from yoyak.ensembling.learned import FEATURES, Study
from yoyak.ensembling.weighting import EnsembleParams, LearnedChoice
from yoyak.evaluation import leaderboard, significance
from yoyak.evaluation.leaderboard import ScoringParams

PARAMS = EnsembleParams(strategy="learned")
JUDGING = ScoringParams(tokenizer="mecab", library="rouge", references="mean", bootstrap_samples=2000, seed=0)
GROUPS = {
    "utilities": ("utility", "weighted_utility", "likelihood_utility", "own_utility"),
    "rescorers": ("log_probability", "lowest_log_probability", "others_log_probability", "total_log_probability"),
    "likelihood_utility": ("likelihood_utility",),
    "own_utility": ("own_utility",),
    "own_log_probability": ("own_log_probability",),
    "length": ("length", "length_deviation"),
    "faults": ("faults",),
    "copies": ("copies",),
    "from_dialogue": ("from_dialogue",),
    "member_score": ("member_score",),
}
Rows = Sequence[Floats]
Fit = Callable[[Rows, Rows], Callable[[Floats], Floats]]
"""From features and scores of rows' candidates to a function that values a row's candidates by their features."""


def ridge(columns: Sequence[str] = FEATURES) -> Fit:
    at = [FEATURES.index(name) for name in columns]

    def fit(given: Rows, scores: Rows) -> Callable[[Floats], Floats]:
        centred = [values - values.mean() for values in scores]
        squares = np.array([x[:, at].T @ x[:, at] / len(x) for x in given])
        products = np.array([x[:, at].T @ y / len(y) for x, y in zip(given, centred, strict=True)])
        variances = np.array([y @ y / len(y) for y in centred])
        spread = np.sqrt(np.mean([np.diag(square) for square in squares], axis=0))
        scale = np.where(spread > learned.FLAT, spread, np.inf)
        squares, products = squares / np.outer(scale, scale), products / scale
        penalty = learned._penalty(squares, products, variances)
        found = learned._solved(squares, products, penalty) / scale
        return lambda x: x[:, at] @ found

    return fit


def soft_choice(strength: float) -> Fit:
    """A linear model whose softmax over a row's candidates has the highest expected score, begun at the ridge's."""

    def fit(given: Rows, scores: Rows) -> Callable[[Floats], Floats]:
        start = ridge()(given, scores)
        spread = np.sqrt(np.mean([np.mean(x**2, axis=0) for x in given], axis=0))
        scale = np.where(spread > learned.FLAT, spread, np.inf)
        rows = [x / scale for x in given]
        # Points above which a candidate is likely to be chosen.
        first = np.linalg.lstsq(np.concatenate(rows), np.concatenate([start(x) for x in given]), rcond=None)[0]
        weights, velocity = first.copy(), np.zeros_like(first)
        for _ in range(300):
            gradient = strength * (first - weights)
            for x, y in zip(rows, scores, strict=True):
                values = x @ weights
                shares = np.exp(values - values.max())
                shares /= shares.sum()
                gradient = gradient + (shares * (y - shares @ y)) @ x / len(rows)
            velocity = 0.9 * velocity + gradient
            weights = weights + 0.02 * velocity
        return lambda x: (x / scale) @ weights

    return fit


def lightgbm(leaves: int, rounds: int) -> Fit:
    import lightgbm

    def fit(given: Rows, scores: Rows) -> Callable[[Floats], Floats]:
        centred = np.concatenate([values - values.mean() for values in scores])
        model = lightgbm.LGBMRegressor(
            num_leaves=leaves, n_estimators=rounds, learning_rate=0.05, min_child_samples=200, subsample=0.5,
            subsample_freq=1, colsample_bytree=0.5, reg_lambda=10.0, n_jobs=2, verbose=-1, random_state=0,
        )  # fmt: skip
        model.fit(np.concatenate(given), centred)
        return lambda x: model.predict(x)

    return fit


def alone(column: str) -> Fit:
    at = FEATURES.index(column)
    return lambda given, scores: lambda x: x[:, at]


def ways() -> dict[str, Fit]:
    found: dict[str, Fit] = {
        "MBR, members alike": alone("utility"),
        "MBR, weighted members": alone("weighted_utility"),
        "MBR, weighted by likelihood": alone("likelihood_utility"),
        "ridge": ridge(),
        "ridge, three utilities": ridge(("utility", "weighted_utility", "likelihood_utility")),
        "ridge, utility and log-probabilities": ridge(("utility", *GROUPS["rescorers"], "own_log_probability")),
    }
    for name, group in GROUPS.items():
        found[f"ridge without {name}"] = ridge([each for each in FEATURES if each not in group])
    if not os.environ.get("QUICK"):
        found["soft choice 0.1"] = soft_choice(0.1)
        found["soft choice 1"] = soft_choice(1.0)
        try:
            found["LightGBM, 7 leaves"] = lightgbm(7, 150)
            found["LightGBM, 15 leaves"] = lightgbm(15, 300)
        except ImportError:
            pass
    return found


def settings(study: Study, mask: Floats, rescorers: Sequence[str]) -> LearnedChoice:
    return learned.learn(PARAMS, study, mask, rescorers)


def chosen(study: Study, choice: LearnedChoice, fit: Fit, inside: Floats, outside: Floats) -> Floats:
    """Scores of the choices in the rows `inside`, learned on those `outside`."""
    names = list(study.scored.scores)
    given = [learned.features(each, choice, names) for each in study.evidence]
    scores = study.scored.candidate_scores
    filled = [row for row in np.flatnonzero(outside).tolist() if len(scores[row])]
    value = fit([given[row] for row in filled], [scores[row] for row in filled])
    return np.array([scores[row][value(given[row]).argmax()] for row in np.flatnonzero(inside).tolist()])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rescorers", nargs="*", default=[])
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    os.chdir(asked.folder)
    study = decide_learned.study_of_unseen(asked.models, PARAMS, JUDGING, asked.rescorers)
    dev = on_dev(asked.models, list(study.scored.scores), asked.rescorers)
    both = Study(
        [*study.evidence, *dev.evidence],
        weighting.ScoredPools(
            {name: np.concatenate([rows, dev.scored.scores[name]]) for name, rows in study.scored.scores.items()},
            [*study.scored.pools, *dev.scored.pools],
            [*study.scored.candidate_scores, *dev.scored.candidate_scores],
        ),
    )
    rows, everything = len(study.evidence), len(both.evidence)
    of_train = np.arange(everything) < rows
    reached: dict[str, list[Floats]] = {name: [] for name in ways()}
    for seed in range(asked.seeds):
        parts = significance.parts(rows, seed)
        fold = np.concatenate([parts, np.full(everything - rows, -1)])
        scores = {name: np.zeros(rows) for name in reached}
        for part in range(parts.max() + 1):
            inside, outside = fold == part, of_train & (fold != part)
            choice = settings(both, outside, asked.rescorers)
            for name, fit in ways().items():
                scores[name][parts == part] = chosen(both, choice, fit, inside, outside)
        for name, values in scores.items():
            reached[name].append(values)
    choice = settings(both, of_train, asked.rescorers)
    on = {name: chosen(both, choice, fit, ~of_train, of_train) for name, fit in ways().items()}
    oracle = learned.oracle(both.scored)
    print(f"{rows} rows of train, {everything - rows} of dev, {sum(map(len, both.scored.candidate_scores))} candidates")
    for name, values in both.scored.scores.items():
        print(f"{name:40} {values[:rows].mean():6.2f}  dev {values[rows:].mean():6.2f}")
    print(f"{'oracle':40} {oracle[:rows].mean():6.2f}  dev {oracle[rows:].mean():6.2f}")
    base = np.mean(reached["MBR, weighted members"], axis=0), on["MBR, weighted members"]
    for name, of_seeds in reached.items():
        values = np.mean(of_seeds, axis=0)
        gained = values - base[0], on[name] - base[1]
        together = np.concatenate(gained)[:, None]
        low, high = significance.interval(significance.resampled_means(together, 2000, 0))[0]
        print(
            f"{name:40} {values.mean():6.2f}  dev {on[name].mean():6.2f}  over MBR: train {gained[0].mean():+.2f} "
            f"dev {gained[1].mean():+.2f} both {together.mean():+.2f} [{low:+.2f}, {high:+.2f}]",
            flush=True,
        )
    gap = (oracle[:rows] - base[0]).mean()
    print(f"ridge closes {(np.mean(reached['ridge'], axis=0) - base[0]).mean() / gap:.1%} of the gap, out of fold")
    print("sharpness", choice.sharpness, SHARPNESS, len(OWN))
    for name, points in learned.spread(both, choice).items():
        print(f"  {name:24} {points:+.2f} points a deviation")


def on_dev(models: Sequence[str], kept: Sequence[str], rescorers: Sequence[str]) -> Study:
    split = leaderboard.read_split("dev")
    predictions = {name: read_records(Path(f"predictions/{name}/dev.jsonl"), Prediction) for name in models}
    prompts = read_records(Path("data/prompts/dev.jsonl"), Prompt)
    found = decide_learned.evidence_of(predictions, kept, prompts, families.likelihoods(rescorers, "dev", split.fnames))
    scores = {
        name: leaderboard.score([row.text for row in rows], split.references, JUDGING.metric).mean(axis=1)
        for name, rows in families.joined(predictions).items()
        if name in kept
    }
    return Study(found, weighting.with_scores([each.pool for each in found], scores, split.references, JUDGING.metric))


if __name__ == "__main__":
    main()
