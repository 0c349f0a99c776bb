"""What models would say, by parameters: a stage in the place of all those before `score`.

`models.<name>.right` is the share of its references' words that a model has, each of which it has at any larger share,
too; a tenth of LoRA's rank counts as a hundredth more. `data.dev` is the number of dev rows.
"""

import json
import random
from pathlib import Path
from typing import Any

from yoyak.core.params import PARAMS, read_yaml

WORDS = (
    "저녁",
    "회의",
    "주말",
    "여행",
    "치과",
    "예약",
    "이사",
    "날짜",
    "생일",
    "선물",
    "면접",
    "준비",
    "환불",
    "운동",
    "계획",
)
OTHERS = ("노래", "바다", "연필", "구름", "사과", "기차", "모자", "의자")
TOPICS = ("약속", "일상", "업무")


def reference(row: int) -> list[str]:
    draw = random.Random(row)
    return ["#Person1#은", *draw.choices(WORDS, k=draw.randint(6, 14)), "이야기를", "한다."]


def said(words: list[str], right: float, seed: str) -> str:
    draw = random.Random(seed)
    return " ".join(word if draw.random() < right else draw.choice(OTHERS) for word in words)


def main() -> None:
    params = read_yaml(PARAMS)
    rows = range(params["data"]["dev"])
    prompts, references = [], []
    for row in rows:
        turns = [
            f"#Person{1 + turn % 2}#: {' '.join(random.Random(turn + row).choices(WORDS, k=9))}" for turn in range(4)
        ]
        prompts.append({"fname": f"dev_{row}", "system": "", "turns": turns, "question": ""})
        text = " ".join(reference(row))
        references.append({"fname": f"dev_{row}", "summaries": [text], "topic": TOPICS[row % len(TOPICS)]})
    write("data/prompts/dev.jsonl", prompts)
    write("data/prompts/test.jsonl", prompts[:1])
    write("data/references/dev.jsonl", references)
    for model in params["run"]["models"]:
        right = params["models"][model]["right"] + params["lora"]["r"] / 1000
        texts = [said(reference(row), right, f"{model} {row}") for row in rows]
        predictions = [
            {
                "fname": f"dev_{row}",
                "text": text,
                "candidates": [{"text": text, "log_probability": -1.0, "finished": True}],
            }
            for row, text in enumerate(texts)
        ]
        write(f"predictions/{model}/dev.jsonl", predictions)
        write(f"predictions/{model}/test.jsonl", predictions[:1])
        curve = Path(f"plots/training/{model}/epochs.csv")
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text("epoch,step,loss\n1,22,3.5\n2,44,2.5\n")


def write(path: str, rows: list[dict[str, Any]]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
