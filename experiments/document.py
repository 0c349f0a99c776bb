"""Write docs/results.md from experiments/results: each number in it is a run's own, but for the anchors.

    python experiments/document.py

`experiments/results` has a folder of what `run.py` wrote for each list: `final`, `sweep`, `ablations`, `true_size`. A
section is there where its folder is; a test writes the document anew and compares.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from collect import MBR

from yoyak import significance
from yoyak.errors import UserError, exits_with_one_line
from yoyak.parameters import read_yaml
from yoyak.records import read_json
from yoyak.scoring import what_was_counted

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs/results.md"
SAMPLES, SEED = 10_000, 0
"""Of the bootstrap of paired differences."""
BASE = "base"
"""The ablation that others are compared with."""
SEARCHES = ("beam",)
"""Ablations of how a trained model is asked: beams are set against MBR over samples."""
USUAL_TRAINING = {
    "schedule": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "label_smoothing": 0.0,
    "loss_on": "summary",
}
USUAL_SEARCH = {
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "script_guard": True,
    "load_in_4bit": False,
}
USUAL_TOP_K = 50
"""What is not told of a run's parameters: the head of the document says it once."""
Result = dict[str, Any]


@exits_with_one_line
def main() -> None:
    DOCUMENT.write_text(document(RESULTS), encoding="utf-8")
    print(f"{DOCUMENT}: written")


def document(folder: Path) -> str:
    """Markdown; a section for each kind of list that `folder` has results of."""
    sections = {"final": final, "sweep": sweep, "ablations": ablations, "true_size": true_size}
    found = {name: read_results(folder / name) for name in sections}
    written = [sections[name](results) for name, results in found.items() if results]
    parts = [HEAD, _usual(), *written] if written else [HEAD, "Nothing has been run yet."]
    return "\n\n".join(parts) + "\n"


def read_results(folder: Path) -> list[Result]:
    """By experiment, data and seed."""
    found = [read_json(path) for path in folder.glob("*.json")]
    return sorted(found, key=lambda result: (result["experiment"], result["on"], result["seed"]))


HEAD = """# Real models on real data

What `python experiments/document.py` makes of `experiments/results`; no number is typed, but for the anchors, which are
in `experiments/anchors.yaml`. Scores are percent. Which lists of experiments made them, and how to run them:
[experiments/](../experiments/README.md)."""


def _usual() -> str:
    usual = {**USUAL_TRAINING, **USUAL_SEARCH, "top_k": USUAL_TOP_K}
    told = ", ".join(f"`{key}` {_value(value)}" for key, value in usual.items())
    return f"What a run's parameters do not name was: {told}; no topic in train's prompts."


# Final models, on dev


def final(results: list[Result]) -> str:
    lines = [line for result in results for line in _lines_of(result)]
    lead = ["lead-2, the first two turns", *_scores(results[0]["scores"]["models"]["baseline/lead_2"]), *[""] * 4]
    anchors = [
        [entry["name"], "", "", "", f"{entry['rouge_mean']:.1f}", "", "", "", "", "", ""]
        for entry in read_yaml(HERE / "anchors.yaml")["anchors"]
    ]
    header = ["", "R-1", "R-2", "R-L", "mean", "sum", "95 %", "train tokens/s", "minutes", "peak GiB", "parameters"]
    scored = results[0]["scores"]["scoring"]
    return "\n\n".join(
        [
            "## Dev",
            f"{_rows_of(results)} rows of dev, one reference; {what_was_counted(scored)}. Minutes: training and the "
            "summaries of dev and four rows, loading left out. Peak memory: of training, of inference. Each training "
            "chose its best epoch on dev, too, and each row is a further look at it.",
            table(header, [*lines, lead, *anchors]),
            _gains(results),
        ]
    )


def _lines_of(result: Result) -> list[list[str]]:
    """Of each model that this result is the first to have, and of the ensemble."""
    models = result["run"]["models"]
    lines = []
    for name in result["run"]["untuned"]:
        entry, infer = result["scores"]["models"][f"baseline/untuned_{name}"], result["infer"][f"untuned_{name}"]
        lines.append([f"{name}, untuned", *_scores(entry), "", _minutes(None, infer), _peak(None, infer), ""])
    if len(models) == 1:
        (name,) = models
        train, infer = result["train"][name], result["infer"][name]
        told = [_rate(train), _minutes(train, infer), _peak(train, infer)]
        lines.append([f"**{name}**", *_scores(result["scores"]["models"][name]), *told, _parameters(result, name)])
    for name, job in result["averaged"].items():
        entry, infer = result["scores"]["models"][name], result["infer"][name]
        told = ["", _minutes(None, infer), _peak(None, infer), _search(job["generation"])]
        lines.append([f"**{name}**: logits of {', '.join(job['members'])} averaged", *_scores(entry), *told])
    lines.append([*_of_ensemble(result), "", "", "", ""])
    return lines


def _of_ensemble(result: Result) -> list[str]:
    """What was combined and how, and its scores."""
    report, scored = result["ensemble"], [*result["run"]["models"], *result["averaged"]]
    members = "its own candidates" if len(scored) == 1 else ", ".join(scored)
    if not report["gain"]:
        # `ensemble.strategy: best`: no MBR was tried.
        return [f"{result['experiment']}: the best on dev of {', '.join(scored)}", *_scores(report["ensemble"])]
    used = "MBR" if report["used"] == "mbr" else "MBR (not used: its gain may be chance)"
    return [f"{result['experiment']}: {used} of {members}", *_scores(report["cross_validated"])]


def _gains(results: list[Result]) -> str:
    header = ["ensemble", "members", "gain over the best member", "95 %", "p"]
    lines = []
    for result in results:
        gain = result["ensemble"]["gain"]
        scored = [*result["run"]["models"], *result["averaged"]]
        if len(scored) > 1 and gain:
            numbers = [_signed(gain["rouge_mean"]), _interval(gain["ci95"]), f"{gain['p']:.4f}"]
            lines.append([result["experiment"], ", ".join(scored), *numbers])
    if not lines:
        return "No ensemble has run."
    return (
        "Gains are cross-validated: each fold of dev is summarised with members and weights that were chosen without "
        f"it, and compared, row by row, with the member that is best on the others.\n\n{table(header, lines)}"
    )


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


def _parameters(result: Result, name: str) -> str:
    """What of a model's parameters is tuned, as they were."""
    job, search = result["models"][name]["training"], result["models"][name]["generation"]["generation"]
    model, training, lora, quantization = (job[key] for key in ("model", "training", "lora", "quantization"))
    rate, epochs, rows = (training[key] for key in ("learning_rate", "epochs", "effective_batch_size"))
    told = [
        f"lr {rate:g}, {epochs:g} epochs, {rows} rows a step",
        _weights(model, lora, quantization),
        f"{model['prompt']} prompt" + (", persons as 화자1" if model["persons"] == "speakers" else ""),
        *(["topic in train's prompts"] if result["prompts"]["train_topic"] else []),
        *_unusual(training, USUAL_TRAINING),
        # A full fine-tune goes by ROUGE whatever it says.
        *(["best epoch by ROUGE"] if lora and training["best_by"] == "rouge" else []),
    ]
    return "; ".join([*told, _search(search)])


def _weights(model: dict[str, Any], lora: dict[str, Any] | None, quantization: dict[str, Any] | None) -> str:
    """Which are trained, and as what the others are held."""
    if not lora or not quantization:
        return f"all weights, {model['dtype']}"
    held = quantization["type"].upper() if quantization["load_in_4bit"] else model["dtype"]
    return f"r {lora['r']}, alpha {lora['alpha']:g}, dropout {lora['dropout']:g}; {held} base"


def _search(search: dict[str, Any]) -> str:
    return "; ".join([_kind(search), *_unusual(search, USUAL_SEARCH)])


def _kind(search: dict[str, Any]) -> str:
    if search["search"] == "sample":
        top_k = "" if search["top_k"] == USUAL_TOP_K else f", top-k {search['top_k']}"
        return f"{search['candidates']} samples, T {search['temperature']:g}, top-p {search['top_p']:g}{top_k}"
    if search["search"] == "greedy":
        return "greedy"
    groups = f" in {search['num_beam_groups']} groups" if search["search"] == "diverse_beam" else ""
    return f"{search['num_beams']} beams{groups}, length penalty {search['length_penalty']:g}"


def _unusual(section: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    return [f"`{key}` {_value(section[key])}" for key, value in usual.items() if section[key] != value]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


# The sweep, on held-out rows of train


def sweep(results: list[Result]) -> str:
    lines = [
        [
            result["experiment"],
            _parameters(result, result["run"]["models"][0]),
            result["on"],
            *(_mean(result["rows"][column]) for column in (result["run"]["models"][0], MBR)),
            _interval(result["scores"]["models"][result["run"]["models"][0]]["ci95"]),
            f"{result['minutes']:.1f}",
        ]
        for result in results
    ]
    header = ["", "parameters", "held out", "mean", "its MBR", "95 % of the mean", "minutes"]
    return "\n\n".join(
        [
            "## Sweep",
            f"What was chosen was chosen on rows of train that were held out ({_rows_of(results)} rows; trained on the "
            "rest), and so was each training's best epoch. MBR: of the model's own candidates. Minutes: of the whole "
            "experiment, others beside it on the GPU.",
            table(header, lines),
        ]
    )


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
            f"The base: {_parameters(base[0], base[0]['run']['models'][0])}; mean {_mean_of(base, None)}, "
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
    bounds = significance.interval(significance.resampled_means(by_row[:, None], SAMPLES, SEED))[0]
    numbers = [_signed(by_row.mean()), _interval(bounds), ", ".join(map(_signed, by_seed))]
    against = "the base's MBR" if name in SEARCHES else "the base"
    return [name, _own(runs[0]), against, *numbers, _verdict(bounds, by_seed)]


def _verdict(bounds: Sequence[float], seeds: significance.Floats) -> str:
    if bounds[0] > 0 and min(seeds) > 0:
        return "better"
    return "worse" if bounds[1] < 0 and max(seeds) < 0 else "undecided"


def _own(result: Result) -> str:
    """The overrides of this experiment, those of seeds and of the whole list left out."""
    own = result["overrides"][len(result["set"]) :]
    return ", ".join(f"`{each}`" for each in own if not each.startswith(("run.", "generation.seed")))


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
            f"{_trained(results)} rows of train with the longest among them, one epoch; {_rows_of(results)} dialogues "
            f"of dev, {_search(search)}, each summary {search['max_new_tokens']} tokens long, since random weights "
            "never end one.",
            table(header, lines),
        ]
    )


def _trained(results: list[Result]) -> int:
    (name,) = results[0]["run"]["models"]
    return int(results[0]["train"][name]["rows"])


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
