"""Members who err, and models that hear how often: files as the stages before `ensemble` write them, by no model."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from project import ROOT

from yoyak.core.files import write_whole
from yoyak.core.params import read_yaml, write_yaml
from yoyak.core.records import Candidate, Likelihood, Prediction, Prompt, Reference, Rescored, write_records
from yoyak.metrics import rouge

WORDS = (
    *("비", "우산", "학교", "친구", "내일", "점심", "병원", "회의", "기차", "책"),
    *("영화", "주말", "버스", "빵", "커피", "약속", "전화", "시험", "여행", "선물"),
)
ROWS = 60
MEMBERS = ("a", "b", "c")


class World:
    """Members who err on a share of the words, and rescorers who hear how many errors there are, or not."""

    def __init__(self, seed: int, hear: bool) -> None:
        self.draw, self.hear = random.Random(seed), hear
        self.likelihood: dict[str, float] = {}

    def reference(self) -> str:
        return " ".join(self.draw.choices(WORDS, k=14)) + "."

    def candidate(self, reference: str) -> Candidate:
        wrong = self.draw.uniform(0.4, 0.95)
        text = " ".join(
            self.draw.choice(WORDS) if self.draw.random() < wrong else word for word in reference[:-1].split()
        )
        said = -wrong if self.hear else -self.draw.random()
        self.likelihood.setdefault(f"{text}.", said + self.draw.gauss(0, 0.05))
        return Candidate(text=f"{text}.", log_probability=-self.draw.random(), finished=True)

    def prediction(self, fname: str, reference: str) -> Prediction:
        candidates = tuple(self.candidate(reference) for _ in range(3))
        return Prediction(fname=fname, text=candidates[0].text, candidates=candidates)

    def rescored(self, predictions: Sequence[Sequence[Prediction]]) -> list[Rescored]:
        return [
            Rescored(
                fname=row[0].fname,
                texts=tuple(
                    Likelihood(text=text, log_probability=20 * self.likelihood[text], tokens=20)
                    for text in {each.text for member in row for each in member.candidates}
                ),
            )
            for row in zip(*predictions, strict=True)
        ]


def write_world(
    world: World, rescorers: Sequence[str], names: Sequence[str] = MEMBERS, rows: int = ROWS, **params: Any
) -> None:
    """What the stages `score` and `ensemble` read, in the current folder: rows of train that no member has seen, and of
    dev and test; the dev scores, too."""
    run = {"models": [*names], "tuned": [], "untuned": [], "averaged": [], "rescorers": [*rescorers], "seed": 42}
    defaults = read_yaml(ROOT / "params.yaml")
    write_yaml(Path("params.yaml"), defaults | {"run": run, "ensemble": {"strategy": "learned", **params}})
    lines = []
    for split in ("train", "dev", "test"):
        references = [world.reference() for _ in range(rows)]
        fnames = [f"{split}_{row}" for row in range(rows)]
        prompts = [
            Prompt(fname=fname, system="", turns=("#Person1#: 네.",), question="", summary=text)
            for fname, text in zip(fnames, references, strict=True)
        ]
        write_records(Path(f"data/prompts/{split}.jsonl"), prompts)
        said = {
            name: [world.prediction(fname, text) for fname, text in zip(fnames, references, strict=True)]
            for name in names
        }
        for name, predictions in said.items():
            write_records(Path(f"predictions/{name}/{split}.jsonl"), predictions)
        for name in rescorers:
            write_records(Path(f"rescored/{name}/{split}.jsonl"), world.rescored([*said.values()]))
        if split == "dev":
            expected = [Reference(fname=f, summaries=(t,)) for f, t in zip(fnames, references, strict=True)]
            write_records(Path("data/references/dev.jsonl"), expected)
            for name, predictions in said.items():
                scores = rouge.score([row.text for row in predictions], [(text,) for text in references])
                lines += [
                    {"split": "dev", "model": name, "fname": fname, "rouge_mean": 100 * score.mean}
                    for fname, score in zip(fnames, scores, strict=True)
                ]
    for name in names:
        write_whole(Path(f"plots/training/{name}/epochs.csv"), "epoch,step,loss\n1,22,3.5\n")
    Path("scores").mkdir()
    pd.DataFrame(lines).to_csv("scores/rows.csv", index=False)
