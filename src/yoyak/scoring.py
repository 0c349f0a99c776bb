"""The leaderboard: scores with intervals, baselines, and which differences are more than noise."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from yoyak import rouge
from yoyak.errors import UserError
from yoyak.parameters import Section
from yoyak.records import Prediction, Prompt
from yoyak.rouge import ReferenceRule, RowScore

Scores = NDArray[np.float64]
"""Shape (rows, 3): ROUGE-1, -2 and -L F1 of each row, in percent."""


class ScoringParams(Section):
    """How summaries are judged. Training does not depend on it."""

    tokenizer: Literal["mecab"]
    """Morpheme analyser."""
    library: Literal["rouge"]
    """`rouge`: pltrdy's 1.0.1, which the competition's baseline pins."""
    references: ReferenceRule
    """A row's score over several references."""
    bootstrap_samples: int = Field(ge=100)
    """Resamples of the rows, for the 95 % intervals."""
    seed: int = Field(ge=0)
    """Of the resampling."""


@dataclass(frozen=True)
class Sheet:
    """Who said what of the same rows, and what was expected."""

    fnames: list[str]
    references: Sequence[Sequence[str]]
    texts: dict[str, list[str]]
    """Summaries of each model, in the order of `fnames`."""


def sheet(prompts: Sequence[Prompt], predictions: Mapping[str, Sequence[Prediction]]) -> Sheet:
    """The dev summaries of each model beside the baselines that cost nothing."""
    references = [(prompt.summary,) for prompt in prompts if prompt.summary is not None]
    fnames = [prompt.fname for prompt in prompts]
    texts = {name: align(rows, fnames, name) for name, rows in predictions.items()}
    return Sheet(fnames, references, {**texts, **_lead_baselines(prompts)})


def put_away_leftovers(predictions: Path, names: Collection[str]) -> None:
    """Delete the predictions of models that have left the run: DVC's cache keeps them for when they come back.

    DVC cannot list the predictions of `run.models` as dependencies, so that the stages depend on the whole folder: with
    leftovers in it, `dvc.lock` would not fit a fresh clone.
    """
    for folder in [*predictions.glob("*/"), *predictions.glob("baseline/*/")]:
        name = folder.relative_to(predictions).as_posix()
        if name not in names and name != "baseline":
            shutil.rmtree(folder)


def align(rows: Sequence[Prediction], fnames: Sequence[str], name: str) -> list[str]:
    """The texts of `rows` in the order of `fnames`, all of them and no others."""
    by_name = {row.fname: row.text for row in rows}
    if missing := [fname for fname in fnames if fname not in by_name]:
        raise UserError(
            f"predictions of {name}: {missing[0]} is missing (and {len(missing) - 1} more); run `dvc repro`"
        )
    return [by_name[fname] for fname in fnames]


def _lead_baselines(prompts: Sequence[Prompt]) -> dict[str, list[str]]:
    return {
        "baseline/lead_2": ["\n".join(prompt.turns[:2]) for prompt in prompts],
        "baseline/longest_turn": [max(prompt.turns, key=len) for prompt in prompts],
    }


def score(texts: Sequence[str], references: Sequence[Sequence[str]], params: ScoringParams) -> Scores:
    return to_percent(rouge.score(texts, references, params.references))


def to_percent(scores: Sequence[RowScore]) -> Scores:
    return 100 * np.array(scores, dtype=np.float64).reshape(-1, 3)


def summarise(scores: Scores, params: ScoringParams) -> dict[str, Any]:
    """A model's entry in `metrics/scores.json`, in percent; the interval is of `rouge_mean`."""
    rouge1, rouge2, rouge_l = scores.mean(axis=0)
    return {
        "rouge1": round(rouge1, 2),
        "rouge2": round(rouge2, 2),
        "rougeL": round(rouge_l, 2),
        "rouge_mean": round(scores.mean(), 2),
        "rouge_sum": round(scores.mean(axis=0).sum(), 2),
        "ci95": interval(scores.mean(axis=1), params),
        "rows": len(scores),
    }


def interval(values: NDArray[np.float64], params: ScoringParams) -> list[float]:
    """95 % percentile bootstrap interval (Efron 1979) of the mean of per-row values, seeded."""
    draws = np.random.default_rng(params.seed).integers(len(values), size=(params.bootstrap_samples, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return [round(float(low), 2), round(float(high), 2)]


def leaderboard(sheet: Sheet, params: ScoringParams) -> tuple[dict[str, Any], dict[str, Scores]]:
    """`metrics/scores.json`, best model first, and the per-row scores of each model."""
    scores = {name: score(texts, sheet.references, params) for name, texts in sheet.texts.items()}
    ranked = dict(sorted(scores.items(), key=lambda item: -item[1].mean()))
    models = {name: summarise(rows, params) for name, rows in ranked.items()}
    best = next(name for name in ranked if not name.startswith("baseline/"))
    report = {
        "scoring": {
            **rouge.describe(params.references),
            "split": "dev",
            "bootstrap_samples": params.bootstrap_samples,
            "seed": params.seed,
        },
        "models": models,
        "best": {
            "model": best,
            # Paired: the same resampled rows on both sides, so that hard rows do not widen the interval.
            "minus": {
                name: {
                    "rouge_mean": round(float((ranked[best] - rows).mean()), 2),
                    "ci95": interval((ranked[best] - rows).mean(axis=1), params),
                }
                for name, rows in ranked.items()
                if name != best
            },
        },
    }
    return report, ranked
