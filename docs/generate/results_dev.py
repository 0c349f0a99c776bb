"""The final models and their ensembles on dev, for docs/results.md: scores, what ensembles gain, and what each took."""

from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import wording
from comparisons import paired_interval
from markdown_tables import interval, mean, paragraph, signed, table
from provenance import ROOT, counted, entry_of, ran_on, rows_of

from yoyak.core.params import read_yaml
from yoyak.evaluation.leaderboard import NOISE
from yoyak.evaluation.plots import draw_leaderboard
from yoyak.sweeps.results import Result

ANCHORS = ROOT / "sweeps/anchors.yaml"
SCORES = ["R-1", "R-2", "R-L", "mean", "sum"]
LEAD = "lead-2, the first two turns"
ALT = (
    "Mean ROUGE of models and ensembles on dev with 95 % intervals, the best on top; in grey what was not trained here"
)


def dev_section(results: list[Result], picture: str) -> str:
    """The section "Dev"; `picture` is the file that `draw` writes, as the document links it."""
    header = ["", "weights", *SCORES, "95 %", "MBR of its own"]
    return "\n\n".join(
        [
            "## Dev",
            paragraph(f"""
                {rows_of(results)} rows of dev, one reference. {ran_on(results)}; {counted(results)}. Each model is one
                training, each line a look at dev. 95 % is a bootstrap interval of the mean over these rows: what
                another seed would give, it does not know.
            """),
            f"![{ALT}]({picture})",
            table(header, [_cells(line) for line in _leaderboard(results)]),
            paragraph("""
                A model's scores are of the candidate that it finds likeliest itself, by log-probability a token; of
                beams, of the first. MBR of its own: of the model's own candidates the one most like the others. Of
                ensembles the members' weights are cross-validated: each fold of dev is summarised with weights learned
                on the others. Which ensemble is first depends on how members are weighted. Each model's epoch was
                chosen on all of dev. Anchors were noted by hand outside this pipeline, on the same rows: no scores of
                rows are kept, hence no interval. The probes are LoRA on the same rows of train, with four beams,
                nothing tuned; q05 and g270 are searched by samples, and why they lie below has not been looked into.
            """),
            "### What the ensembles gain",
            paragraph("""
                Weights cross-validated: they, and the member that is compared, are chosen on four fifths of dev and
                judged on the other, MBR against single summaries. All alike: every member has the same weight, so that
                nothing is learned on dev, and the comparison is with the member that turned out best there. Differences
                are of the same rows. An ensemble chooses among all members' candidates, MBR of one member among its
                own: part of that difference is their number (`q15_32` in the sweep).
            """),
            gains(results),
            "### What they are made of, and what they took",
            paragraph(f"""
                Others ran on the same GPU, so that rates and minutes are not to be compared with each other.
                {_compiled(results)} Minutes: training and the summaries of dev and of {_test_rows(results)} rows that
                stand for test, loading left out. Peak memory in GiB: of training, of inference. The packages hold 4-bit
                weights: a bf16 base is these unpacked, an NF4 base these quantised again.
            """),
            _costs(results),
        ]
    )


class Line(NamedTuple):
    """A line of the leaderboard."""

    name: str
    of: str
    """The entry of `params.yaml` whose weights it has, or what was combined."""
    scores: dict[str, Any]
    """As `metrics/scores.json` has them; of an anchor the mean alone."""
    mbr: str = ""
    """What MBR of its own candidates scores."""
    trained: bool = True


def _leaderboard(results: list[Result]) -> list[Line]:
    """The best first, with the anchors among them."""
    lead = Line(LEAD, "", results[0].figures["scores"]["models"]["baseline/lead_2"], trained=False)
    anchors = [Line(entry["name"], "", entry, trained=False) for entry in read_yaml(ANCHORS)["anchors"]]
    lines = [line for result in results for line in _lines(result)]
    return sorted([*lines, lead, *anchors], key=lambda line: -line.scores["rouge_mean"])


def _lines(result: Result) -> Iterator[Line]:
    """Of the model that has this experiment to itself, or of an ensemble; of averages and untuned models."""
    scores = result.figures["scores"]["models"]
    for name in result.figures["run"]["untuned"]:
        entry = entry_of(result, name)
        yield Line(f"{entry}, untuned", f"`{entry}`", scores[f"baseline/untuned_{name}"], trained=False)
    for name, config in result.averaged.items():
        yield Line(name, f"logits of {', '.join(config['members'])}", scores[name])
    if len(result.models) == 1:
        yield Line(result.model, f"`{entry_of(result, result.model)}`", scores[result.model], mean(result.mbr))
    else:
        members = ", ".join([*result.models, *result.averaged])
        yield Line(result.experiment, f"MBR of {members}", result.figures["ensemble"]["cross_validated"])


def _cells(line: Line) -> list[str]:
    name = f"**{line.name}**" if line.trained else line.name
    if "ci95" not in line.scores:
        return [name, "", "", "", "", f"{line.scores['rouge_mean']:.1f}", "", "", ""]
    numbers = [f"{line.scores[key]:.2f}" for key in ("rouge1", "rouge2", "rougeL", "rouge_mean", "rouge_sum")]
    return [name, line.of, *numbers, interval(line.scores["ci95"]), line.mbr]


def draw(results: list[Result], path: Path) -> None:
    """Write a picture of the leaderboard; what was not trained here is grey, and an anchor has no interval."""
    entries = {}
    for line in _leaderboard(results):
        entries[line.name if line.trained else f"baseline/{line.name}"] = {"ci95": [nan, nan]} | line.scores
    draw_leaderboard({"models": entries, "scoring": results[0].figures["scores"]["scoring"]}, path)


def gains(results: list[Result]) -> str:
    """A table of what each ensemble gains over its best member, and whether dev can tell its members apart."""
    alone = {result.model: result for result in results if len(result.models) == 1}
    ensembles = [result for result in results if len(result.models) > 1]
    if not ensembles:
        return "No ensemble has run."
    header = ["", "members", "mean", "against", "mean", "difference", "95 %"]
    lines = [line for result in ensembles for line in _gained(result, alone)]
    return "\n\n".join([table(header, lines), *map(_open, ensembles)])


def _gained(result: Result, alone: dict[str, Result]) -> Iterator[list[str]]:
    report, best = result.figures["ensemble"], result.figures["scores"]["best"]
    learned, chosen, delta = report["cross_validated"], best["cross_validated"], report["delta"]
    compared = [f"{learned['rouge_mean']:.2f}", "the best member, chosen likewise", f"{chosen['rouge_mean']:.2f}"]
    yield [
        result.experiment,
        "weights cross-validated",
        *compared,
        signed(delta["rouge_mean"]),
        interval(delta["ci95"]),
    ]
    against = {best["model"]: result.rows(best["model"])}
    if best["model"] in alone:
        against[f"MBR of {best['model']} alone"] = alone[best["model"]].mbr
    for name, rows in against.items():
        difference = result.mbr - rows
        compared = [mean(result.mbr), name, mean(rows), signed(difference.mean())]
        yield [result.experiment, "all alike", *compared, interval(paired_interval(difference))]


def _open(result: Result) -> str:
    """Whether dev can tell its members apart."""
    best = result.figures["scores"]["best"]
    others = {name: best["delta"][name] for name in [*result.models, *result.averaged] if name != best["model"]}
    worse = [name for name, difference in others.items() if not difference["noise"]]
    verdict = f"worse than it: {', '.join(worse)}" if worse else "none of the others is worse than it"
    return f"Of {result.experiment}'s members {best['model']} has the highest mean; p < {NOISE} after Holm: {verdict}."


def _costs(results: list[Result]) -> str:
    lines = []
    for result in results:
        infer = result.figures["infer"]
        if len(result.models) == 1:
            name, train = result.model, result.figures["train"][result.model]
            peaks = f"{train['peak_memory_gib']:.1f}, {infer[name]['peak_memory_gib']:.1f}"
            minutes = _minutes(train["seconds"], infer[name])
            lines.append([name, wording.parameters(result, name), result.rate, minutes, peaks])
        for name, config in result.averaged.items():
            search, minutes = wording.searched(config["generation"]), _minutes(0, infer[name])
            lines.append([name, search, "", minutes, f"{infer[name]['peak_memory_gib']:.1f}"])
    return table(["", "parameters", "train tokens/s", "minutes", "peak GiB"], lines)


def _compiled(results: list[Result]) -> str:
    trainings = [training for result in results for training in result.figures["train"].values()]
    return "" if any(training["compiled"] == "yes" for training in trainings) else "No training was compiled."


def _minutes(seconds: float, infer: dict[str, Any]) -> str:
    return f"{(seconds + sum(infer[split]['seconds'] for split in ('dev', 'test'))) / 60:.1f}"


def _test_rows(results: list[Result]) -> int:
    return int(results[0].figures["infer"][results[0].models[0]]["test"]["rows"])
