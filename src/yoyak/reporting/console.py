"""Tables of scores for the terminal; each fits into 80 columns."""

from collections.abc import Callable, Mapping, Sequence
from gettext import gettext
from gettext import gettext as _
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from yoyak.core import repository
from yoyak.core.language import N_
from yoyak.core.records import read_object
from yoyak.core.stale_outputs import PREFIX, is_baseline
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.evaluation.written import Ensemble, Postprocessing, Scores
from yoyak.metrics.rouge import FIGURES
from yoyak.submission.history import Submission, correlation

FAULTS = {
    "empty": N_("empty"),
    "copied": N_("copied"),
    "no_sentence_end": N_("no end"),
    "unknown_tags": N_("tags"),
    "foreign_script": N_("script"),
    "repeated": N_("repeats"),
    "labelled": N_("label"),
    "distinct": N_("distinct"),
    "length_ratio": N_("length"),
}
WHAT_FAULTS_MEAN = N_(
    "copied: 80 % is in the dialogue word for word; no end: it does not end as a sentence does; tags, script: what the "
    "dialogue has not; repeats: five words in a row twice, or a stutter; label: `요약:` before it; distinct: no two "
    "alike; length: characters, the references' being 1."
)
LONGEST_NAME = 30
Translate = Callable[[str], str]
"""From a message to the same in the reader's language."""


def print_run(root: Path) -> None:
    """Print what `make repro` ends with: the leaderboards, faults that ROUGE does not see, and where the files are."""
    console = Console()
    scores, ensemble = scores_of_the_run(root), of_the_ensemble(root)
    console.print(leaderboard_table(scores, scores["scoring"], "dev", ensemble.get("ensemble")))
    console.print(escape(what_dev_decided(scores["best"], ensemble)), "", sep="\n")
    if "test" in scores:
        console.print(leaderboard_table(scores["test"], scores["scoring"], "test", ensemble.get("test")))
    console.print(faults_table(scores["diagnostics"]))
    if near := scores.get("similarity"):
        console.print(similarity_table(near, ensemble.get("similarity")))
    if measured := of_postprocessing(root):
        console.print(postprocessing_table(measured))
    for name, path in (
        (_("submission"), "submission/submission.csv"),
        (_("checklist"), "submission/checklist.md"),
        (_("every row"), "scores/rows.csv"),
        (_("groups of rows"), "scores/breakdowns.csv"),
        (_("pictures"), "plots/"),
    ):
        missing = "" if (root / path).exists() else "  " + _("(not made yet)")
        console.print(f"{' ' * (16 - cell_len(name))}{name}: {path}{missing}", highlight=False)


def scores_of_the_run(root: Path) -> dict[str, Any]:
    """`metrics/scores.json`, with what every reader needs of it."""
    return read_object(root / "metrics/scores.json", Scores)


def of_the_ensemble(root: Path) -> dict[str, Any]:
    """`metrics/ensemble.json`; empty where the ensemble has not been made."""
    path = root / "metrics/ensemble.json"
    return read_object(path, Ensemble) if path.exists() else {}


def of_postprocessing(root: Path) -> dict[str, Any]:
    """`metrics/postprocessing.json`; empty where the ensemble has not been made."""
    path = root / "metrics/postprocessing.json"
    return read_object(path, Postprocessing) if path.exists() else {}


def leaderboard_table(
    board: Mapping[str, Any], scoring: Mapping[str, Any], split: str, ensemble: Mapping[str, Any] | None
) -> Table:
    """Models by score, with intervals, and the best one's score less each other's."""
    best = board["best"]
    table = Table(
        title=_("Leaderboard: ROUGE F1 on {split}, percent").format(split=split),
        caption=f"{what_was_counted(scoring)}. "
        + _("Brackets: 95 % bootstrap interval.")
        + f" {_what_delta_means(best['model'])}" * bool(best["delta"]),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for column in ("R-1", "R-2", "R-L", _("mean"), "", *((_("delta"), "", "") if best["delta"] else ())):
        table.add_column(column, justify="right", no_wrap=True)
    rows = dict(board["models"]) | ({"ensemble": ensemble} if ensemble else {})
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["rouge_mean"]):
        delta = best["delta"].get(name)
        table.add_row(
            _name(name),
            *(f"{row[key]:.1f}" for key in FIGURES),
            f"{row['rouge_mean']:.2f}",
            escape(interval(row["ci95"])),
            *(
                (f"{delta['rouge_mean']:.2f}", escape(interval(delta["ci95"])), _("noise") * delta["noise"])
                if delta
                else ()
            ),
            style="dim" if is_baseline(name) else None,
        )
    return table


def _what_delta_means(best: str) -> str:
    told = _("Delta: {best} less this model on the same rows; noise: Holm-corrected p above 0.05.")
    return told.format(best=best)


def similarity_table(near: Mapping[str, Any], ensemble: Mapping[str, Any] | None) -> Table:
    """What the encoder of `scoring.encoder` says of dev's summaries; below a tuned model, what tuning has changed."""
    table = Table(
        title=_("How near in meaning on dev: cosine to dialogue and references"),
        caption=f"{near['encoder_version']}. "
        + _(
            "By tuning: tuned less untuned, of the same rows; at one length: without what other lengths explain. What "
            "this tells and what not: docs/scoring.md."
        ),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for column in (_("dialogue"), "", _("references"), ""):
        table.add_column(column, justify="right", no_wrap=True)
    anchors = {_("references"): near["references"], _("of other rows"): near["references_of_other_rows"]}
    for name, entry in anchors.items():
        table.add_row(name, *_estimate(entry["to_dialogue"]), style="dim")
    models = near["models"] | (ensemble["models"] if ensemble else {})
    for name, entry in sorted(models.items(), key=lambda item: -item[1]["to_dialogue"]["mean"]):
        style = "dim" if is_baseline(name) else None
        table.add_row(_name(name), *_estimate(entry["to_dialogue"]), *_estimate(entry["to_references"]), style=style)
        if changed := entry.get("by_tuning"):
            sides = (*_estimate(changed["to_dialogue"], "+"), *_estimate(changed["to_references"], "+"))
            table.add_row("  " + _("by tuning"), *sides)
            table.add_row("  " + _("at one length"), *_estimate(changed["at_equal_length"], "+"))
    return table


def _estimate(entry: Mapping[str, float], sign: str = "") -> tuple[str, str]:
    mean, low, high = (f"{entry[key]:{sign}.3f}" for key in ("mean", "ci95_low", "ci95_high"))
    return mean, escape(f"[{low}, {high}]")


def outsider_tables(name: str, result: Mapping[str, Any]) -> list[Table | str]:
    """Output of `yoyak score` for a file."""
    board = {"models": {name: result["scores"]}, "best": {"model": name, "delta": {}}}
    extra = result["rows_without_reference"]
    told = _("{extra} further rows of {name} have no reference and were not scored.")
    note = told.format(extra=extra, name=_name(name)) + "\n" if extra else ""
    rows = _("{rows} rows").format(rows=result["scores"]["rows"])
    return [
        leaderboard_table(board, result["scoring"], rows, None),
        note,
        faults_table({name: result["diagnostics"]}),
    ]


def what_dev_decided(best: Mapping[str, Any], ensemble: Mapping[str, Any], _: Translate = gettext) -> str:
    """Lines on what was chosen on dev, and what that is worth on other rows; `_` gives their language."""
    where = ensemble.get("learned_on", "dev")
    if where == "dev":
        lines = [_("Each model's epoch, the best model and the ensemble's weights were chosen on dev.")]
    else:
        told = _("Each model's epoch and the best model were chosen on dev, the ensemble's weights on {where}.")
        lines = [told.format(where=where)]
    for what, estimate in ((_("best model"), best["cross_validated"]), ("MBR", ensemble.get("cross_validated"))):
        if estimate:
            told = _("{what}, chosen on other rows: {score}")
            score = f"{estimate['rouge_mean']:.2f} {interval(estimate['ci95'])}"
            lines.append(told.format(what=what, score=score))
    if delta := ensemble.get("delta"):
        lines.append(_what_mbr_gains(delta, ensemble["used"] == "mbr", where == "dev", _))
    if "dev" in (oracle := ensemble.get("oracle", {})):
        told = _("the oracle, the best candidate of each row, which only the references tell: {score}")
        lines.append(told.format(score=f"{oracle['dev']:.2f}"))
    return "\n".join(lines)


def _what_mbr_gains(delta: Mapping[str, Any], used: bool, chosen_elsewhere: bool, _: Translate) -> str:
    over = (
        _("MBR over the best member, both chosen on other rows: {gain}")
        if chosen_elsewhere
        else _("MBR over the best member, the best chosen on these rows: {gain}")
    )
    if not delta["rouge_mean"]:
        sure = _("which is none")
    elif delta["noise"]:
        sure = _("which may be noise")
    else:
        sure = _("which is no noise")
    so = _("so the ensemble is MBR") if used else _("so the ensemble is the best member alone")
    gain = over.format(gain=f"{delta['rouge_mean']:.2f} {interval(delta['ci95'])}")
    return f"{gain}, {sure}: {so}"


def faults_table(diagnostics: Mapping[str, Mapping[str, float]]) -> Table:
    """Percent of each model's summaries with each fault."""
    table = Table(
        title=_("Beside ROUGE: percent of the summaries"),
        caption=_(WHAT_FAULTS_MEAN),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    shown = [fault for fault in FAULTS if any(fault in row for row in diagnostics.values())]
    table.add_column("", no_wrap=True)
    for fault in shown:
        table.add_column(_(FAULTS[fault]), justify="right", no_wrap=True)
    for name, row in diagnostics.items():
        percents = [f"{row[fault]:.2f}" if fault == "length_ratio" else f"{row[fault]:.0f}" for fault in shown]
        table.add_row(_name(name), *percents, style="dim" if is_baseline(name) else None)
    return table


def postprocessing_table(measured: Mapping[str, Any]) -> Table:
    """Delta in mean ROUGE on dev by each rule of post-processing alone, whether it is on or off."""
    table = Table(
        title=_("Post-processing: mean ROUGE gained on dev by each rule alone"),
        caption=_(
            "of {rows} rows. Brackets: 95 % paired bootstrap interval; noise: Holm-corrected p above 0.05. "
            "params.yaml: postprocessing switches rules on."
        ).format(rows=measured["rows"]),
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for column in ("", "", _("rows changed"), _("delta"), "", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, rule in measured["rules"].items():
        delta = rule["delta"]
        table.add_row(
            name,
            _("on") if rule["on"] else _("off"),
            str(rule["rows_changed"]),
            f"{delta['rouge_mean']:+.2f}",
            escape("[{:+.2f}, {:+.2f}]".format(*delta["ci95"])),
            _("noise") * delta["noise"],
            style=None if rule["on"] else "dim",
        )
    return table


def submissions_tables(submissions: Sequence[Submission]) -> list[Table | str]:
    """Output of `yoyak submissions`: a line each, the latest last, and how dev and public scores correlate."""
    table = Table(title=_("Submissions: mean ROUGE, percent"), box=None, padding=(0, 1, 0, 0))
    for column in (_("sent, UTC"), "sha256", _("made by")):
        table.add_column(column, no_wrap=True)
    for column in ("dev", "public", "private"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(_("note"), overflow="fold")
    for row in sorted(submissions, key=lambda row: row.time):
        scores = ["" if score is None else f"{score:.2f}" for score in (row.dev, row.public, row.private)]
        made_by = row.experiment or repository.short(row.commit or "")
        table.add_row(f"{row.time:%m-%d %H:%M}", row.sha256[:7], _name(made_by), *scores, escape(row.note or ""))
    found = correlation(submissions)
    shown = _("not known: it takes three rows with both, and differences") if found is None else f"{found:+.2f}"
    return [table, _("correlation of dev and public: {shown}").format(shown=shown)]


def _name(name: str) -> str:
    """The name of a model, file or experiment as a table has it: without `baseline/`, shortened in the middle."""
    name = name.removeprefix(PREFIX)
    return printable(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 8]}…{name[-7:]}", "?")


def printable(text: str, instead: str = " ") -> str:
    """The text as rich prints it: square brackets are no markup, and `instead` stands for control characters."""
    return escape("".join(letter if letter.isprintable() else instead for letter in text))


def interval(bounds: Sequence[float]) -> str:
    """`[29.0, 33.5]`; rich reads square brackets as markup, so that it takes them escaped."""
    low, high = bounds
    return f"[{low:.1f}, {high:.1f}]"
