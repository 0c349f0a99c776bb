"""What `scoring.encoder` can tell of a summary and what it cannot: references damaged by rule, beside ROUGE.

    python benchmarks/similarity.py DATA

DATA has the competition's train.csv and dev.csv; all of their rows are taken. Each damage is judged on the rows that it
changes: the cosine of the damaged reference to its dialogue, less that of the whole one, and how often it fell, by
chance in half of the rows. Beside it stands ROUGE against the reference as it was.
"""

import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import recording
from rich.console import Console
from rich.table import Table

from yoyak.core import environment, repository
from yoyak.core.records import Floats
from yoyak.data.dialogues import clean_dialogues
from yoyak.evaluation import significance
from yoyak.metrics import rouge
from yoyak.metrics.encoder import describe, vectors

ENCODER = "use"
AMONG = 250
"""Dialogues that a summary's own is looked for among."""
FREQUENT = 12
PERSONS = re.compile(r"#Person([12])#(으로|은|는|이|가|을|를|과|와|로)?")
PARTICLES = {"1": ("은", "이", "을", "과", "로"), "2": ("는", "가", "를", "와", "로")}
"""After 일, which ends in a consonant, and after 이, which does not."""
FORMAL = {"합니다.": "한다.", "했습니다.": "했다.", "입니다.": "이다.", "있습니다.": "있다.", "없습니다.": "없다."}
NEGATED = {
    "합니다.": "하지 않습니다.",
    "한다.": "하지 않는다.",
    "했다.": "하지 않았다.",
    "했습니다.": "하지 않았습니다.",
}


def main() -> None:
    recording.require_clean_tree()
    files = [Path(sys.argv[1]) / f"{name}.csv" for name in ("train", "dev")]
    rows = [row for path in files for row in clean_dialogues(path, with_summary=True)]
    dialogues, references = ["\n".join(each.turns) for each in rows], [each.row.summaries[0] for each in rows]
    begun = time.perf_counter()
    said = vectors(dialogues, ENCODER)
    seconds = time.perf_counter() - begun
    expected = vectors(references, ENCODER)
    own = (said * expected).sum(axis=1)
    figures: dict[str, Any] = {
        "device": environment.describe()["device"],
        "commit": repository.commit(),
        "command": "python benchmarks/similarity.py DATA",
        **describe(ENCODER),
        "rows": len(rows),
        "milliseconds_of_a_dialogue": round(1000 * seconds / len(rows), 1),
        "references_to_dialogue": round(float(own.mean()), 3),
        "found_among_250": round(found_among(said, expected), 3),
        "correlation_with_length": round(float(np.corrcoef(own, [len(text) for text in references])[0, 1]), 2),
        "damages": [
            judged(name, texts, references, said, own) for name, texts in damages(dialogues, references).items()
        ],
    }
    Path("benchmarks/results/similarity.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    show(figures)


def found_among(said: Floats, expected: Floats) -> float:
    """How often a reference is nearest to its own dialogue, among so many."""
    hits = [
        (said[start : start + AMONG] @ expected[start : start + AMONG].T).argmax(axis=0) == np.arange(AMONG)
        for start in range(0, len(said) - AMONG + 1, AMONG)
    ]
    return float(np.mean(hits))


def damages(dialogues: Sequence[str], references: Sequence[str]) -> dict[str, list[str]]:
    """By name, each reference damaged; as it was where the rule does not apply."""
    draw = random.Random(0)
    words = Counter(word for text in references for word in text.split())
    frequent = " ".join(word for word, _ in words.most_common(FREQUENT))
    one_by_one: dict[str, Callable[[str], str]] = {
        "none: 합니다 becomes 한다": lambda text: with_end(text, FORMAL),
        "persons swapped, particles made to fit": swapped,
        "last verb negated": lambda text: with_end(text, NEGATED),
        "digits changed": lambda text: re.sub(r"(?<!#Person)\d", lambda digit: str((int(digit[0]) + 3) % 10), text),
        "all but the first sentence dropped": lambda text: re.split(r"(?<=[.!?]) ", text)[0],
        "second half of the words cut": lambda text: " ".join(text.split()[: max(1, len(text.split()) // 2)]),
        "words shuffled": lambda text: " ".join(draw.sample(text.split(), len(text.split()))),
        "said twice": lambda text: f"{text} {text}",
        f"the {FREQUENT} most frequent words added": lambda text: f"{text} {frequent}",
        f"nothing but the {FREQUENT} most frequent words": lambda _: frequent,
    }
    return {
        **{name: [rule(text) for text in references] for name, rule in one_by_one.items()},
        "another row's reference": [*references[-1:], *references[:-1]],
        "the first two turns, quoted": ["\n".join(text.split("\n")[:2]) for text in dialogues],
    }


def with_end(text: str, ends: dict[str, str]) -> str:
    found = next((end for end in sorted(ends, key=len, reverse=True) if text.endswith(end)), None)
    return text.removesuffix(found) + ends[found] if found else text


def swapped(text: str) -> str:
    """`#Person1#은` becomes `#Person2#는`; where only one of both is in the text, it is left as it was."""
    return PERSONS.sub(_other, text) if "#Person1#" in text and "#Person2#" in text else text


def _other(match: re.Match[str]) -> str:
    number = "2" if match[1] == "1" else "1"
    kind = next((at for at in range(5) for of in PARTICLES.values() if of[at] == match[2]), None)
    return f"#Person{number}#" + (PARTICLES[number][kind] if kind is not None else match[2] or "")


def judged(name: str, texts: Sequence[str], references: Sequence[str], said: Floats, own: Floats) -> dict[str, Any]:
    changed = np.array([row for row, text in enumerate(texts) if text != references[row]])
    damaged = [texts[row] for row in changed]
    change = (vectors(damaged, ENCODER) * said[changed]).sum(axis=1) - own[changed]
    bounds = significance.interval(significance.resampled_means(change[:, None], 2000, 0))[0]
    scores = rouge.score(damaged, [[references[row]] for row in changed])
    return {
        "damage": name,
        "rows": len(changed),
        "rouge_mean": round(100 * float(np.mean(scores)), 1),
        "change": round(float(change.mean()), 3),
        "ci95": [round(float(bound), 3) for bound in bounds],
        "fell_percent": round(100 * float((change < 0).mean())),
    }


def show(figures: dict[str, Any]) -> None:
    table = Table(title=f"{figures['encoder_version']} on {figures['rows']} rows")
    for column in figures["damages"][0]:
        table.add_column(column)
    for entry in figures["damages"]:
        table.add_row(*map(str, entry.values()))
    Console().print({key: value for key, value in figures.items() if key != "damages"}, table)


if __name__ == "__main__":
    main()
