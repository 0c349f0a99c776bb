"""Write docs/results.md from experiments/results: each number in it is a run's own, but for the anchors.

    python experiments/document.py

`experiments/results` has a folder of what `run.py` wrote for each list: `final`, `sweep`, `ablations`, `true_size`. A
section is there where its folder is; a test writes the document anew and compares.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import words
from collect import MBR
from words import Result

from yoyak import significance
from yoyak.errors import UserError, exits_with_one_line
from yoyak.parameters import read_yaml
from yoyak.plots import draw_leaderboard
from yoyak.records import read_json
from yoyak.scoring import what_was_counted

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs/results.md"
PICTURE = DOCUMENT.with_suffix(".png")
ALT = (
    "Mean ROUGE of models and ensembles on dev with 95 % intervals, the best on top; in grey what was not trained here"
)
SCORES = ["R-1", "R-2", "R-L", "mean", "sum"]
LEAD = "lead-2, the first two turns"
SAMPLES, SEED = 10_000, 0
"""Of the bootstrap of paired differences."""
BASE = "base"
"""The ablation that others are compared with."""
SEARCHES = ("beam",)
"""Ablations of how a trained model is asked: beams are set against MBR over samples."""


@exits_with_one_line
def main() -> None:
    DOCUMENT.write_text(document(RESULTS), encoding="utf-8")
    if results := read_results(RESULTS / "final"):
        draw(results, PICTURE)
    print(f"{DOCUMENT}: written")


def document(folder: Path) -> str:
    """Markdown; a section for each kind of list that `folder` has results of."""
    sections = {"final": final, "sweep": sweep, "ablations": ablations, "true_size": true_size}
    found = {name: read_results(folder / name) for name in sections}
    written = [sections[name](results) for name, results in found.items() if results]
    parts = [HEAD, f"What a run's parameters do not name was: {words.usual()}.", *written]
    return "\n\n".join(parts if written else [HEAD, "Nothing has been run yet."]) + "\n"


def read_results(folder: Path) -> list[Result]:
    """By experiment, data and seed."""
    found = [read_json(path) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: (result["experiment"], result["on"], result["seed"]))


HEAD = """# Real models on real data

What `python experiments/document.py` makes of `experiments/results`; no number is typed, but for the anchors, which are
in `experiments/anchors.yaml`. Scores are percent. Which lists of experiments made them, and how to run them:
[experiments/](../experiments/README.md)."""


# Final models, on dev


def final(results: list[Result]) -> str:
    scored = results[0]["scores"]["scoring"]
    return "\n\n".join(
        [
            "## Dev",
            f"{_rows_of(results)} rows of dev, one reference; {what_was_counted(scored)}. Each line is a look at dev, "
            "each training chose its best epoch there, too, and 95 % is the interval of the mean over these rows.",
            f"![{ALT}]({PICTURE.name})",
            table(
                ["", "weights", *SCORES, "95 %", "MBR of its own"],
                map(_line, _leaderboard(results)),
            ),
            "MBR of its own: of the model's own candidates the one most like the others. Ensembles are "
            "cross-validated: each fold of dev is summarised with weights that were learned without it.",
            "### What the ensembles gain",
            _gains(results),
            "### What they are made of, and what they took",
            f"On {_devices(results)}, several experiments at once on each. Minutes: training and the summaries of dev "
            "and four rows, loading left out. Peak memory in GiB: of training, of inference.",
            _costs(results),
        ]
    )


class Line(NamedTuple):
    """Of the leaderboard."""

    name: str
    of: str
    """The entry of `params.yaml` whose weights it has, or what was combined."""
    scores: dict[str, Any]
    """As `metrics/scores.json` has them; of an anchor the mean alone."""
    own: str = ""
    """What MBR of its own candidates scores."""
    trained: bool = True


def _leaderboard(results: list[Result]) -> list[Line]:
    """The best first, with the anchors among them."""
    lead = Line(LEAD, "", results[0]["scores"]["models"]["baseline/lead_2"], trained=False)
    anchors = [Line(entry["name"], "", entry, trained=False) for entry in read_yaml(HERE / "anchors.yaml")["anchors"]]
    lines = [line for result in results for line in _scored(result)]
    return sorted([*lines, lead, *anchors], key=lambda line: -line.scores["rouge_mean"])


def _scored(result: Result) -> Iterator[Line]:
    """Of each model that this result is the first to have, and of an ensemble of several."""
    scores, report = result["scores"]["models"], result["ensemble"]
    models, averaged = result["run"]["models"], result["averaged"]
    for name in result["run"]["untuned"]:
        yield Line(f"{name}, untuned", _base(result, name), scores[f"baseline/untuned_{name}"], trained=False)
    if len(models) == 1:
        own = f"{report['cross_validated']['rouge_mean']:.2f}" if report["gain"] else ""
        yield Line(models[0], _base(result, models[0]), scores[models[0]], own)
    for name, job in averaged.items():
        yield Line(name, f"logits of {', '.join(job['members'])}", scores[name])
    if len(models) + len(averaged) > 1:
        members = ", ".join([*models, *averaged])
        if report["gain"]:
            yield Line(result["experiment"], f"MBR of {members}", report["cross_validated"])
        else:  # `ensemble.strategy: best`: no MBR was tried.
            yield Line(result["experiment"], f"the best of {members}", report["ensemble"])


def _line(line: Line) -> list[str]:
    name = f"**{line.name}**" if line.trained else line.name
    if "ci95" not in line.scores:
        return [name, "", "", "", "", f"{line.scores['rouge_mean']:.1f}", "", "", ""]
    return [name, line.of, *_scores(line.scores), line.own]


def draw(results: list[Result], path: Path) -> None:
    """The leaderboard; bars of what was not trained here are grey, and an anchor's has no interval."""
    entries = {}
    for line in _leaderboard(results):
        mean = line.scores["rouge_mean"]
        entries[line.name if line.trained else f"baseline/{line.name}"] = {"ci95": [mean, mean]} | line.scores
    draw_leaderboard({"models": entries, "scoring": results[0]["scores"]["scoring"]}, path)


def _base(result: Result, name: str) -> str:
    """The entry of the project's own `params.yaml` that has these weights."""
    weights = result["models"][name]["generation"]["model"]["weights"]
    entries = read_yaml(HERE.parent / "params.yaml")["models"]
    return next((f"`{key}`" for key, entry in entries.items() if entry.get("weights") == weights), Path(weights).name)


def _gains(results: list[Result]) -> str:
    lines = []
    for result in results:
        gain, models = result["ensemble"]["gain"], [*result["run"]["models"], *result["averaged"]]
        if len(models) > 1 and gain:
            best = max(models, key=lambda name: np.mean(result["rows"][name]))
            alike = _column(result, MBR) - _column(result, best)
            learned = [_signed(gain["rouge_mean"]), _interval(gain["ci95"]), f"{gain['p']:.4f}"]
            lines.append([result["experiment"], *learned, best, _signed(alike.mean()), _interval(_paired(alike))])
    if not lines:
        return "No ensemble has run."
    header = ["", "cross-validated", "95 %", "p", "best member", "all alike", "95 %"]
    return (
        "Cross-validated: weights and best member are chosen on four fifths of dev and compared, row by row, on the "
        "other. All alike: MBR whose members have the same weight, so that nothing is learned on dev, against the "
        f"member that turned out best there.\n\n{table(header, lines)}"
    )


def _costs(results: list[Result]) -> str:
    lines = []
    for result in results:
        models = result["run"]["models"]
        for name in models if len(models) == 1 else []:
            train, infer = result["train"][name], result["infer"][name]
            told = [_rate(train), _minutes(train, infer), _peak(train, infer)]
            lines.append([name, words.parameters(result, name), *told])
        for name, job in result["averaged"].items():
            infer = result["infer"][name]
            told = ["", _minutes(None, infer), _peak(None, infer)]
            lines.append([name, words.searched(job["generation"]), *told])
    return table(["", "parameters", "train tokens/s", "minutes", "peak"], lines)


def _devices(results: list[Result]) -> str:
    found = {train["ran"]["device"] for result in results for train in result["train"].values()}
    return " and ".join(sorted(found))


def _scores(entry: dict[str, Any]) -> list[str]:
    numbers = [f"{entry[key]:.2f}" for key in ("rouge1", "rouge2", "rougeL", "rouge_mean", "rouge_sum")]
    return [*numbers, _interval(entry["ci95"])]


def _minutes(train: dict[str, Any] | None, infer: dict[str, Any]) -> str:
    seconds = (train["seconds"] if train else 0) + sum(infer[split]["seconds"] for split in ("dev", "test"))
    return f"{seconds / 60:.1f}"


def _rate(train: dict[str, Any]) -> str:
    """Nothing where no step was timed: the training was resumed when it had ended."""
    return f"{train['tokens_per_second']:,.0f}" if train["tokens_per_second"] else ""


def _peak(train: dict[str, Any] | None, infer: dict[str, Any]) -> str:
    return ", ".join(f"{each['peak_memory_gib']:.1f}" for each in (train, infer) if each)


# The sweep, on held-out rows of train


def sweep(results: list[Result]) -> str:
    by_base: dict[str, list[Result]] = {}
    for result in results:
        by_base.setdefault(_base(result, result["run"]["models"][0]), []).append(result)
    return "\n\n".join(
        [
            "## Sweep",
            f"What was chosen was chosen on rows of train that were held out ({_rows_of(results)} rows; trained on the "
            f"rest), and so was each training's best epoch. On {_devices(results)}, several experiments at once on "
            "each. MBR: of the model's own candidates. The difference is to the first line, row by row, with its "
            "paired interval, which does not know how much seeds differ.",
            *(_swept(base, runs) for base, runs in by_base.items()),
        ]
    )


def _swept(base: str, results: list[Result]) -> str:
    """Of one model: the experiment that changes nothing, and the others, the best first."""
    plain = {(run["on"], run["seed"]): run for run in results if not _own(run)}
    others = sorted((run for run in results if _own(run)), key=lambda run: -float(np.mean(_column(run, None))))
    lines = [
        [
            run["experiment"],
            _own(run),
            run["on"],
            *(_mean(_column(run, column)) for column in (None, MBR)),
            _difference(run, plain.get((run["on"], run["seed"]))),
        ]
        for run in [*plain.values(), *others]
    ]
    header = ["", "changed", "held out", "mean", "MBR", "difference"]
    told = f": {words.parameters(run, run['run']['models'][0])}" if (run := next(iter(plain.values()), None)) else ""
    return f"### {base}\n\nNothing changed{told}.\n\n{table(header, lines)}"


def _difference(run: Result, base: Result | None) -> str:
    if base is None or base is run:
        return ""
    rows = _column(run, None) - _column(base, None)
    return f"{_signed(rows.mean())} {_interval(_paired(rows))}"


def _paired(rows: significance.Floats) -> significance.Floats:
    """Interval of the mean of differences."""
    return significance.interval(significance.resampled_means(rows[:, None], SAMPLES, SEED))[0]


# Ablations, three seeds each, paired with the base


def ablations(results: list[Result]) -> str:
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result["experiment"], []).append(result)
    if BASE not in by_name:
        raise UserError(f"{RESULTS}/ablations: no result of `{BASE}`, which the others are compared with; run it")
    base = by_name.pop(BASE)
    differences = {name: _differences(runs, base, MBR if name in SEARCHES else None) for name, runs in by_name.items()}
    lines = [_compared(name, runs, differences[name]) for name, runs in by_name.items() if differences[name]]
    header = ["", "parameters", "against", "difference", "95 %", "of each seed", ""]
    seeds = ", ".join(map(str, sorted({result["seed"] for result in base})))
    left_out = ", ".join(name for name in by_name if not differences[name])
    return "\n\n".join(
        [
            "## Ablations",
            f"One thing changed, seeds {seeds}, {_rows_of(base)} rows of train that were held out. The difference of "
            "the mean over seeds and its paired interval over rows, which does not know how much seeds differ: "
            "undecided where 0 lies in it, or where seeds disagree on the sign. Each training chose its best epoch on "
            "these same rows. The weights were 4-bit values before anything was trained: NF4 against bf16 is of those.",
            f"The base: {words.parameters(base[0], base[0]['run']['models'][0])}; mean {_mean_of(base, None)}, "
            f"MBR of its samples {_mean_of(base, MBR)}.",
            table(header, lines),
        ]
        + ([f"Left out, for the base has no run of their seeds and rows: {left_out}."] if left_out else [])
    )


def _differences(runs: list[Result], base: list[Result], column: str | None) -> dict[str, list[significance.Floats]]:
    """By data folder, of each seed that both have run there: what the rows gain over that column of the base."""
    found: dict[str, list[significance.Floats]] = {}
    for run in runs:
        for other in base:
            if (run["on"], run["seed"]) == (other["on"], other["seed"]):
                found.setdefault(run["on"], []).append(_column(run, None) - _column(other, column))
    return found


def _compared(name: str, runs: list[Result], differences: dict[str, list[significance.Floats]]) -> list[str]:
    by_row = np.concatenate([np.mean(seeds, axis=0) for seeds in differences.values()])
    by_seed = np.array([rows.mean() for seeds in differences.values() for rows in seeds])
    bounds = _paired(by_row)
    numbers = [_signed(by_row.mean()), _interval(bounds), ", ".join(map(_signed, by_seed))]
    against = "the base's MBR" if name in SEARCHES else "the base"
    return [name, _own(runs[0]), against, *numbers, _verdict(bounds, by_seed)]


def _verdict(bounds: Sequence[float], seeds: significance.Floats) -> str:
    if bounds[0] > 0 and min(seeds) > 0:
        return "better"
    return "worse" if bounds[1] < 0 and max(seeds) < 0 else "undecided"


def _own(result: Result) -> str:
    """The overrides of this experiment, as its model has them; those of seeds and of the whole list left out."""
    own = result["overrides"][len(result["set"]) :]
    told = [each for each in own if not each.startswith(("run.", "generation.seed"))]
    return ", ".join(f"`{each.removeprefix(f'models.{name}.')}`" for each in told for name in result["run"]["models"])


def _column(result: Result, column: str | None) -> significance.Floats:
    """Scores of the rows: of the model itself where `column` is None."""
    return np.array(result["rows"][column or result["run"]["models"][0]])


def _mean_of(runs: Sequence[Result], column: str | None) -> str:
    return _mean(np.array([_column(result, column) for result in runs]))


# True sizes, random weights


def true_size(results: list[Result]) -> str:
    header = ["shape", "base weights in training", "train tokens/s", "peak GiB", "dialogues/s", "peak GiB", "device"]
    lines = []
    for result in results:
        (name,) = result["run"]["models"]
        train, infer = result["train"][name], result["infer"][name]
        numbers = [_rate(train), f"{train['peak_memory_gib']:.1f}"]
        rates = [f"{infer['dev']['dialogues_per_second']:.1f}", f"{infer['peak_memory_gib']:.1f}"]
        # Of a full fine-tune nothing is frozen.
        lines.append([f"`{name}`", train.get("base", ""), *numbers, *rates, train["ran"]["device"]])
    (name,) = results[0]["run"]["models"]
    search = results[0]["models"][name]["generation"]["generation"]
    return "\n\n".join(
        [
            "## True sizes",
            "Random weights of the true shapes, the process held to 23 GiB, through the stages: "
            f"{_trained(results)}, the longest of train among them, one epoch; {_rows_of(results)} dialogues of dev, "
            f"{words.searched(search)}, each summary {search['max_new_tokens']} tokens long, since random weights "
            "never end one.",
            table(header, lines),
        ]
    )


def _trained(results: list[Result]) -> str:
    """How many rows, and whether that was enough for compiling, which alike shapes have alike."""
    (name,) = results[0]["run"]["models"]
    train = results[0]["train"][name]
    compiled = "" if train["compiled"] == "yes" else ", nothing compiled for so few"
    return f"{train['rows']} rows in {train['steps']} steps{compiled}"


# Tables


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _rows_of(results: list[Result]) -> int:
    """Of all data folders."""
    return sum({result["on"]: len(next(iter(result["rows"].values()))) for result in results}.values())


def _mean(values: Any) -> str:
    return f"{np.mean(values):.2f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _interval(bounds: Sequence[float]) -> str:
    return "[" + ", ".join(f"{bound:.2f}" for bound in bounds).replace("-", "−") + "]"


if __name__ == "__main__":
    main()
