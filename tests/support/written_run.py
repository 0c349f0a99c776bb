"""A run that no model made: its texts are written here, the rest by the stages `score` and `ensemble` themselves."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from project import Project, new_project

from yoyak.core.records import Candidate, Prediction, Prompt, Record, Reference, write_records

NO_ROWS = {"train": 1, "dev": 1, "test": 1}
ENDINGS = ("을 제안한다.", "을 거절한다.", "을 함께 하기로 한다.", "에 대해 이야기한다.")
THINGS = (
    "저녁 회의",
    "주말 여행",
    "치과 예약",
    "이사 날짜",
    "생일 선물",
    "면접 준비",
    "환불 요청",
    "운동 계획",
    "보고서 마감",
)


def write_run(
    root: Path, dialogues: Sequence[Sequence[str]], references: Sequence[Reference], said: Mapping[str, Sequence[str]]
) -> Project:
    """A project whose dev rows are these; its test rows are the first of them, their references unknown."""
    project = new_project(root, NO_ROWS)
    project.edit(lambda params: params["run"].update(models=list(said), untuned=[]))
    prompts = [
        Prompt(fname=row.fname, system="", turns=tuple(turns), question="")
        for row, turns in zip(references, dialogues, strict=True)
    ]
    _write(root / "data/prompts", prompts)
    write_records(root / "data/references/dev.jsonl", references)
    for model, texts in said.items():
        rows = [_prediction(row.fname, text) for row, text in zip(references, texts, strict=True)]
        _write(root / f"predictions/{model}", rows)
        curve = root / f"plots/training/{model}/epochs.csv"
        curve.parent.mkdir(parents=True)
        curve.write_text("epoch,step,loss\n1,22,3.5\n2,44,2.5\n")
    project.stage("score")
    project.stage("ensemble")
    return project


def _write(folder: Path, rows: Sequence[Record]) -> None:
    write_records(folder / "dev.jsonl", rows)
    write_records(folder / "test.jsonl", rows[:1])


def _prediction(fname: str, text: str) -> Prediction:
    return Prediction(fname=fname, text=text, candidates=(Candidate(text=text, log_probability=-1.0, finished=True),))


def large_run(root: Path, rows: int, models: int) -> Project:
    """A run as large as the competition's, of made-up texts as long as its."""
    draw = random.Random(0)
    dialogues = [[f"#Person{1 + turn % 2}#: {_sentences(draw, 2)}" for turn in range(10)] for _ in range(rows)]
    references = [
        Reference(fname=f"dev_{row}", summaries=(_sentences(draw, 3),), topic=draw.choice(THINGS))
        for row in range(rows)
    ]
    said = {f"model_{model}": [_sentences(draw, 3) for _ in range(rows)] for model in range(models)}
    return write_run(root, dialogues, references, said)


def _sentences(draw: random.Random, count: int) -> str:
    return " ".join(
        f"#Person{draw.randint(1, 3)}#은 {draw.choice(THINGS)} 때문에 {draw.choice(THINGS)}{draw.choice(ENDINGS)}"
        for _ in range(count)
    )
