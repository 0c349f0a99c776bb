"""The leaderboard: scores with intervals, baselines, and which differences are more than noise."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field

from yoyak.core import repository
from yoyak.core.errors import UserError
from yoyak.core.params import Section
from yoyak.core.records import Floats, Prediction, Prompt, Reference, read_records
from yoyak.core.stale_outputs import is_baseline
from yoyak.evaluation import baselines, significance, similarity
from yoyak.evaluation.diagnosis import in_percent
from yoyak.evaluation.judging import JudgedSplit, judge
from yoyak.evaluation.summaries import Row, missing_summaries
from yoyak.metrics import rouge
from yoyak.metrics.encoder import Encoder
from yoyak.metrics.morphemes import Tokenizer
from yoyak.metrics.rouge import Library, Metric, ReferenceRule

NOISE = 0.05
"""Corrected p-value above which a difference may be chance."""


BOOTSTRAP_SAMPLES, SEED = 2000, 0
"""Resamples and seed of the commands that read no `params.yaml`."""


class ScoringParams(Section):
    """How summaries are judged. Training does not depend on it."""

    tokenizer: Tokenizer
    """Morpheme analyser; `mecab` is the competition's. `kiwi` needs the extra `kiwi`; `okt`, `komoran` and `kkma` the
    extra `konlpy` and Java."""
    library: Library
    """`rouge`: n-grams as sets, the competition's; `rouge_score`: Google's, which counts each occurrence."""
    references: ReferenceRule
    """Whether a row's score is the mean or the best over its references."""
    bootstrap_samples: int = Field(ge=100)
    """Resamples of the rows, for the 95 % intervals."""
    seed: int = Field(ge=0)
    """Seed of the resampling."""
    encoder: Encoder | None = None
    """Sentence encoder that judges beside ROUGE how near a summary is to its dialogue and references: `use`, which
    needs the extra `similarity`. Null: none does."""

    @property
    def metric(self) -> Metric:
        return Metric(self.tokenizer, self.library, self.references)


@dataclass(frozen=True)
class Split:
    """Rows with known references: what models were given, and what is expected of them."""

    name: str
    fnames: list[str]
    dialogues: list[tuple[str, ...]]
    """Turns of each row's dialogue."""
    references: list[tuple[str, ...]]
    topics: list[str | None]


@dataclass(frozen=True)
class Leaderboard:
    """Every model's and baseline's summaries of a split, scored."""

    split: JudgedSplit
    scores: dict[str, Floats]
    """ROUGE-1, -2 and -L F1 of each, in percent, shape (rows, 3), best first; `baseline/human` is among them."""

    @property
    def best(self) -> str:
        """The best of the models; baselines do not count."""
        return next(name for name in self.scores if not is_baseline(name))


def known_splits() -> list[str]:
    """The splits whose references are known: dev, and test where `data.test_references` names a file."""
    return [split for split in ("dev", "test") if Path(f"data/references/{split}.jsonl").exists()]


def read_split(name: str) -> Split:
    """A split as the stage `prepare_prompts` wrote it."""
    prompts = read_records(Path(f"data/prompts/{name}.jsonl"), Prompt)
    references = read_records(Path(f"data/references/{name}.jsonl"), Reference)
    if not prompts:
        raise UserError(f"data/prompts/{name}.jsonl: no rows; run `dvc repro`")
    if (fnames := [row.fname for row in prompts]) != [row.fname for row in references]:
        raise UserError(f"data/prompts and data/references of {name} are of different rows; run `dvc repro`")
    return Split(
        name,
        fnames,
        [row.turns for row in prompts],
        [row.summaries for row in references],
        [row.topic for row in references],
    )


def align(rows: Sequence[Prediction], fnames: Sequence[str], name: str) -> list[str]:
    """The texts of `rows` in the order of `fnames`, all of them."""
    by_name = {row.fname: row.text for row in rows}
    missing_summaries(name, [fname for fname in fnames if fname not in by_name])
    return [by_name[fname] for fname in fnames]


def leaderboard(split: str, rows: Iterable[Row], names: Sequence[str], params: ScoringParams) -> Leaderboard:
    """The models `names`, whose summaries `rows` have, and every baseline scored, best first."""
    judged = judge(split, rows, names, params.metric, params.encoder)
    scores = {name: summaries.scores for name, summaries in judged.summaries.items()}
    if judged.human is not None:
        scores[baselines.HUMAN] = judged.human
    return Leaderboard(judged, dict(sorted(scores.items(), key=lambda item: -item[1].mean())))


def score(texts: Sequence[str], references: Sequence[Sequence[str]], metric: Metric) -> Floats:
    """ROUGE-1, -2 and -L F1 of each text, in percent, shape (rows, 3)."""
    return 100 * np.array(rouge.score(texts, references, metric), dtype=np.float64).reshape(-1, 3)


def report(dev: Leaderboard, test: Leaderboard | None, params: ScoringParams) -> dict[str, Any]:
    """`metrics/scores.json`. The model that test is compared with is the one chosen on dev."""
    pairs = [*dev.split.pairs, *(test.split.pairs if test else ())]
    content = {
        "scoring": {
            **made_by(params),
            "pairs_that_the_library_scored_too": rouge.audit_pairs(pairs, params.metric),
            "commit": repository.commit(),
            "uncommitted": repository.uncommitted(),
        },
        # The best was chosen on these very rows, from all pairs of models.
        **_of_split(dev, dev.best, len(dev.scores) * (len(dev.scores) - 1) // 2, params),
    }
    content["best"] |= {"chosen_on": "dev", "cross_validated": cross_validated_choice(dev, params)}
    if test is not None:
        content["test"] = _of_split(test, dev.best, len(test.scores) - 1, params)
    return content


def made_by(params: ScoringParams) -> dict[str, Any]:
    """What every score must be published with: analyser, library, rule, bootstrap."""
    return {
        **params.metric.describe(),
        "bootstrap_samples": params.bootstrap_samples,
        "seed": params.seed,
    }


def metric_of(made_by: Mapping[str, str]) -> Metric:
    """The metric that `made_by` describes: of a run whose parameters are no longer known."""
    return Metric(
        cast(Tokenizer, made_by["tokenizer"]),
        cast(Library, made_by["library"].split()[0]),
        cast(ReferenceRule, made_by["references"]),
    )


def what_was_counted(scoring: Mapping[str, str]) -> str:
    """`rouge 1.0.1, mecab (python-mecab-ko 1.3.7), mean over references`."""
    analyser = scoring["tokenizer"] + (f" ({scoring['tokenizer_version']})" if scoring["tokenizer_version"] else "")
    return f"{scoring['library']}, {analyser}, {scoring['references']} over references"


def _of_split(board: Leaderboard, best: str, family: int, params: ScoringParams) -> dict[str, Any]:
    return {
        "models": dict(zip(board.scores, entries_of(list(board.scores.values()), params), strict=True)),
        "best": {"model": best, "delta": best_deltas(board.scores, best, family, params)},
        "diagnostics": {
            name: in_percent(summaries.faults, summaries.length_ratios, summaries.distinct)
            for name, summaries in board.split.summaries.items()
        },
        **({"similarity": _similarity(board.split, params)} if params.encoder else {}),
    }


def _similarity(split: JudgedSplit, params: ScoringParams) -> dict[str, Any]:
    assert params.encoder is not None
    assert split.references is not None
    near = {name: each.similarities for name, each in split.summaries.items() if each.similarities}
    lengths = {name: each.length_ratios for name, each in split.summaries.items()}
    return similarity.report(near, lengths, split.references, params.encoder, _draws(params))


def ensemble_delta(combined: Sequence[Prediction], best: Sequence[Prediction], params: ScoringParams) -> dict[str, Any]:
    """Mean score on dev of the ensemble's summaries less that of its best member's, and whether that may be chance."""
    split = read_split("dev")
    ensemble, member = (
        score(align(rows, split.fnames, name), split.references, params.metric)
        for name, rows in (("ensemble", combined), ("best", best))
    )
    return deltas({"ensemble": ensemble - member}, 1, params)["ensemble"]


def ensemble_report(summaries: Mapping[str, Sequence[Prediction]], params: ScoringParams) -> dict[str, Any]:
    """The scores in `metrics/ensemble.json`: those of `dev` under `ensemble`; `cross_validated`, also of dev; and
    `test`, where its references are known."""
    splits = {name: read_split(name) for name in known_splits()}
    entries = {}
    for name, rows in summaries.items():
        if split := splits.get("test" if name == "test" else "dev"):
            scores = score(align(rows, split.fnames, "ensemble"), split.references, params.metric)
            (entries[name],) = entries_of([scores], params)
    return {
        "scoring": {**made_by(params), "commit": repository.commit()},
        "ensemble": entries.pop("dev"),
        **entries,
        **({"similarity": _similarity_of_ensemble(splits["dev"], summaries["dev"], params)} if params.encoder else {}),
    }


def _similarity_of_ensemble(split: Split, rows: Sequence[Prediction], params: ScoringParams) -> dict[str, Any]:
    assert params.encoder is not None
    texts = align(rows, split.fnames, "ensemble")
    dialogues = ["\n".join(turns) for turns in split.dialogues]
    (near,), references = similarity.of_rows(dialogues, split.references, [texts], params.encoder)
    return similarity.report({"ensemble": near}, {}, references, params.encoder, _draws(params))


def entries_of(scores: Sequence[Floats], params: ScoringParams) -> list[dict[str, Any]]:
    """Each model's entry in `metrics/scores.json`, in percent; the interval belongs to `rouge_mean`."""
    means = significance.resampled_means(np.column_stack([rows.mean(axis=1) for rows in scores]), *_draws(params))
    return [
        {
            **dict(zip(rouge.FIGURES, map(_rounded, rows.mean(axis=0)), strict=True)),
            "rouge_mean": _rounded(rows.mean()),
            "rouge_sum": _rounded(rows.mean(axis=0).sum()),
            **_interval(bounds),
            "rows": len(rows),
        }
        for rows, bounds in zip(scores, significance.interval(means), strict=True)
    ]


def best_deltas(
    scores: Mapping[str, Floats], best: str, family: int, params: ScoringParams
) -> dict[str, dict[str, Any]]:
    """Mean score of `best` less that of each other model, and whether that may be chance."""
    return deltas({name: scores[best] - rows for name, rows in scores.items() if name != best}, family, params)


def deltas(differences: Mapping[str, Floats], family: int, params: ScoringParams) -> dict[str, dict[str, Any]]:
    """Mean of each of the `differences` of two scores, in percent, with its interval, and whether it may be chance.

    A difference is taken row by row, shape (rows, 3): hard rows, which are hard for both sides, do not widen the
    interval. P-values are corrected for the `family` of comparisons that these come from.
    """
    rows = np.column_stack([difference.mean(axis=1) for difference in differences.values()])
    intervals = significance.interval(significance.resampled_means(rows, *_draws(params)))
    p_values = significance.paired_p_values(rows, params.seed)
    return {
        name: {
            "rouge_mean": _rounded(rows[:, column].mean()),
            **_interval(intervals[column]),
            "p": round(float(p_values[column]), 4),
            "p_holm": round(float(corrected), 4),
            "noise": bool(corrected > NOISE),
        }
        for column, (name, corrected) in enumerate(zip(differences, significance.holm(p_values, family), strict=True))
    }


def cross_validated_choice(board: Leaderboard, params: ScoringParams) -> dict[str, Any] | None:
    """What choosing the best model on dev is worth on rows that did not choose; none where dev has one row.

    The best of several models on some rows is partly the luckiest on them. Here each fold of the rows is judged with
    the model that is best on the others.
    """
    means = np.column_stack([rows.mean(axis=1) for name, rows in board.scores.items() if not is_baseline(name)])
    if len(means) < 2:
        return None
    fold = significance.parts(len(means), params.seed)
    chosen = np.array([means[fold != part].mean(axis=0).argmax() for part in range(int(fold.max()) + 1)])
    judged = means[np.arange(len(means)), chosen[fold]]
    bounds = significance.interval(significance.resampled_means(judged[:, None], *_draws(params)))[0]
    return {"rouge_mean": _rounded(judged.mean()), **_interval(bounds), "folds": int(fold.max()) + 1}


def _draws(params: ScoringParams) -> tuple[int, int]:
    return params.bootstrap_samples, params.seed


def _interval(bounds: Floats) -> dict[str, Any]:
    """A 95 % interval as entries of a metrics file; twice, because DVC shows numbers, and no lists."""
    low, high = map(_rounded, bounds)
    return {"ci95": [low, high], "ci95_low": low, "ci95_high": high}


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 2)
