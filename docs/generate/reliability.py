"""Write docs/reliability.md from benchmarks/results/reliability.json and serve_load.json.

    python docs/generate/reliability.py

A test writes the page anew and compares.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs/generate"))

from markdown_tables import paragraph, table  # noqa: E402

from yoyak.core.files import write_whole  # noqa: E402

RESULTS = ROOT / "benchmarks/results/reliability.json"
LOAD = ROOT / "benchmarks/results/serve_load.json"
DOCUMENT = ROOT / "docs/reliability.md"
HOW = {
    "group": "DVC and its stage",
    "dvc": "DVC alone",
    "stage": "the stage alone",
    "saving": "while DVC saves",
}
PROOFS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Kill, Ctrl-C",
        "The same command goes on, and ends as if it had not been stopped.",
        (
            "benchmarks/reliability.py",
            "tests/pipeline/test_reliability.py",
            "tests/core/test_resume.py",
            "tests/pipeline/test_interrupts.py",
        ),
    ),
    (
        "Memory",
        "Where the GPU's or the machine's runs out, less goes through at once; what never fits is told in a line.",
        (
            "tests/core/test_out_of_memory.py",
            "tests/training/test_training.py",
            "tests/inference/test_generation.py",
            "tests/gpu/test_gpu.py",
        ),
    ),
    (
        "Several GPUs",
        "Losses, figures of dev and texts are those of one; a process that dies ends all, and any number goes on.",
        ("tests/core/test_workers.py", "tests/training/test_ranks.py", "tests/inference/test_sharing.py"),
    ),
    (
        "Weights sharded over GPUs",
        "Losses, figures of dev and adapters are those of one process, and each holds its part alone; where memory "
        "runs out in a pass, all end and go on in smaller ones.",
        ("tests/training/test_sharding.py",),
    ),
    (
        "Disk",
        "A full disk, DVC's cache too, is told in a line; what was there is whole, and no training is lost.",
        ("tests/core/test_disk.py", "tests/core/test_files.py", "tests/preflight/test_clean.py"),
    ),
    (
        "Bad input",
        "A damaged file, of a user or of ours, gives a result or one line.",
        ("tests/pipeline/test_damage.py", "tests/preflight/test_preflight.py", "tests/preflight/test_check_files.py"),
    ),
    (
        "Text stays text",
        "A special token that somebody typed is read as letters; the report shows texts as texts.",
        ("tests/modeling/test_tokenization.py", "tests/reporting/test_html.py"),
    ),
    (
        "Numbers",
        "A loss that is no number or explodes stops its training; weights with a NaN are not saved and not inferred.",
        ("tests/training/test_training.py", "tests/pipeline/test_no_numbers.py"),
    ),
    (
        "Reproducible",
        "The same commit gives the same files; two runs at once each have their own result.",
        ("benchmarks/reliability.py", "tests/pipeline/test_at_once.py", "tests/pipeline/test_pipeline.py"),
    ),
    (
        "Trust",
        "No pickle and no code of a model runs; no file and no output of a run has a token or the path of a home.",
        (
            "tests/preflight/test_check_files.py",
            "tests/pipeline/test_leaks.py",
            "tests/serving/test_guard.py",
            "benchmarks/serve_load.py",
        ),
    ),
    (
        "Doctor, status",
        "`yoyak doctor` has a line for each thing that a run needs; `yoyak status` tells what is stale, and at which "
        "step a training was stopped.",
        ("tests/preflight/test_doctor.py", "tests/pipeline/test_dvc_habits.py", "tests/core/test_resume.py"),
    ),
)
"""A subject, what holds, and which files prove it."""
Entry = dict[str, Any]


def main() -> None:
    write_whole(DOCUMENT, document(*(json.loads(path.read_text(encoding="utf-8")) for path in (RESULTS, LOAD))))
    print(f"{DOCUMENT.relative_to(ROOT)}: written")


def document(results: Entry, load: Entry) -> str:
    """The whole page."""
    of_runs = [_head(results), _killed(results), _of_dvc(results), _interrupted(results), _reproducible(results)]
    parts = [*of_runs, _serving(load), _proofs()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(results: Entry) -> str:
    project = results["project"]
    measured = paragraph(f"""What `{results["command"]}` measured on commit `{results["commit"][:7]}`,
        {results["device"]}. No figure on this page is typed: `python docs/generate/reliability.py` writes it from
        `benchmarks/results/reliability.json`, where each kill has an entry of its own. Run it on your machine; it needs
        Linux, and no GPU.""")
    shrunk = paragraph(f"""The project is shrunk: {project["rows"]["train"]} dialogues, a tiny adapter (`llama32_3b`)
        and a tiny full fine-tune (`bart_mini`), a checkpoint after each {project["steps_an_epoch"]} of
        {project["steps_an_epoch"] * project["epochs"]} steps. Git, DVC and the stages are the real ones. Nothing here
        was measured on a GPU.""")
    note = results.get("note", "")
    return "\n\n".join(part for part in ("# Reliability", measured, note, shrunk) if part)


def _killed(results: Entry) -> str:
    trials = results["kills"]
    stages = list(dict.fromkeys(trial["stage"] for trial in trials))
    header = ("stage", *HOW.values(), "runs killed", "the same in the end", "computed again, at most")
    rows = [_stage([trial for trial in trials if trial["stage"] == stage]) for stage in stages]
    kills = sum(len(trial["kills"]) for trial in trials)
    twice = sum(len(trial["kills"]) > 1 for trial in trials)
    refused = sum(trial["refused"] for trial in trials)
    return f"""## Killed at random moments

SIGKILLs: {kills}; runs: {len(trials)}, of which killed twice: {twice} (seed {results["seed"]}). After each
kill `dvc repro` again, until it ended with 0. Columns count kills.

{table(header, rows)}

*The same*: all weights, predictions, scores, pictures, the ensemble and the submission are equal to the byte to those
of a run that nobody disturbed; metrics and curves but for seconds, rates, memory and `resumed_at_…`; `dvc.lock` but for
the hashes of files with such figures. Nothing of a half-written file, a checkpoint or a held lock is left.

Where DVC alone is killed, its stage works on. A `dvc repro` that meets it ends in one line, `another process works
on …` (runs: {refused}); once the stage has ended, the next one goes on.{_faults(trials)}"""


def _stage(trials: list[Entry]) -> list[str]:
    by_how = Counter(trial["how"] for trial in trials for _ in trial["kills"])
    lost = [trial["lost"] for trial in trials if trial["lost"] is not None]
    unit = "steps" if trials[0]["stage"].startswith("train") else "rows"
    whole = sum(not trial["faults"] for trial in trials)
    again = f"{max(lost)} {unit}" if lost else "the stage" if "@" not in trials[0]["stage"] else "nothing"
    return [
        f"`{trials[0]['stage']}`",
        *(str(by_how[how]) for how in HOW),
        str(len(trials)),
        f"{whole} of {len(trials)}",
        again,
    ]


def _faults(trials: list[Entry]) -> str:
    found = [
        f"- `{trial['stage']}`, {HOW.get(trial['how'], trial['how'])}: {'; '.join(trial['faults'])}"
        for trial in trials
        if trial["faults"]
    ]
    return "\n\nFaults:\n\n" + "\n".join(found) if found else ""


def _of_dvc(results: Entry) -> str:
    trials = [*results["kills"], *results["interrupts"]]
    emptied = sum(trial["rwlock_emptied"] for trial in trials)
    left = Counter(line for trial in trials for line in {_kind(line) for line in trial["of_dvc"]})
    told = "; ".join(f"{kind}: {count}" for kind, count in sorted(left.items())) or "nothing"
    return f"""## What is DVC's own

DVC empties `.dvc/tmp/rwlock` before it writes it. A kill between the two leaves an empty file, and the next command
ends with `Unable to read RWLock-file`: `yoyak status` and `make repro` remove it. So it was in {emptied} of
{len(trials)} runs. What else DVC left behind, and in how many runs: {told}."""


def _kind(line: str) -> str:
    return (
        "entries of dead processes in its rwlock" if line.startswith("rwlock") else line.rpartition(": ")[2] + " files"
    )


def _interrupted(results: Entry) -> str:
    if not results["interrupts"]:
        return ""
    rows = [
        [
            f"`{trial['how'].removeprefix('Ctrl-C, ')}`",
            f"`{trial['stage']}`",
            f"{trial['seconds']:.1f}",
            _same(not trial["faults"]),
        ]
        for trial in results["interrupts"]
    ]
    shown = table(("command", "during", "seconds until no process is left", "without a fault"), rows)
    return f"## Ctrl-C\n\n{shown}{_faults(results['interrupts'])}"


def _same(same: bool) -> str:
    return "yes" if same else "**no**"


def _reproducible(results: Entry) -> str:
    found = results.get("reproducible")
    if not found:
        return ""
    key: Callable[[Entry], tuple[bool, bool]] = lambda file: (file["again"], file["two"])  # noqa: E731
    rows = [[f"`{file['path']}`", f"`{file['stage']}`", *map(_same, key(file)), _why(file)] for file in found["files"]]
    scores = found["scores"]
    header = ("ROUGE on dev", "one thread", "again", "two threads")
    figures = [
        [f"`{name}`", *(f"{scores[run][name]:.2f}" for run in ("first", "again", "two"))] for name in scores["first"]
    ]
    return f"""## The same commit twice

`dvc repro` with one thread (`OMP_NUM_THREADS=1`), in a clean clone with one again, and in another with two. Which files
of `dvc.lock` are equal to those of the first:

{table(("file", "stage", "one thread again", "two threads", "why not"), rows)}

{table(header, figures)}

With other threads a sum has another order, and its last bit may differ: so weights may. To compare two runs to the
byte, give them the same number of threads. These tiny models say nothing of how far scores of large ones move."""


def _serving(load: Entry) -> str:
    memory = load["memory_mib"]
    quarters = [memory[len(memory) * part // 4 : len(memory) * (part + 1) // 4] for part in range(4)]
    measured = paragraph(f"""What `{load["command"]}` measured on commit `{load["commit"][:7]}`, {load["device"]}, with
        the models of `make repro`: {load["clients"]} clients at once, for {load["minutes"]:g} minutes. It is written
        from `benchmarks/results/serve_load.json`.""")
    different = " and ".join(f"{count} of `{model}`" for model, count in load["different_summaries"].items())
    answers = paragraph(f"""Answers that were not as expected: {len(load["wrong"])}. To a dialogue that is the summary
        of `yoyak summarize`, to the letter; different summaries among them: {different}. What no page sends is refused,
        or told in a line. Tracebacks in the server's log: {load["tracebacks"]}. Ctrl-C ended it in
        {load["seconds_to_end"]:.1f} s.""")
    of_memory = paragraph(f"""The server's memory, read each {load["every_seconds"]} s, in MiB: {memory[0]} before a
        model is loaded; in the four quarters of the time, the median is
        {", ".join(f"{median(each):.0f}" for each in quarters)}; the most in each is
        {", ".join(str(max(each)) for each in quarters)}; {memory[-1]} at the end.""")
    rows = [[kind, str(count)] for kind, count in load["requests"].items()]
    return "\n\n".join(["## The page under load", measured, table(("requests", "number"), rows), answers, of_memory])


def _proofs() -> str:
    rows = [[subject, holds, ", ".join(f"`{path}`" for path in paths)] for subject, holds, paths in PROOFS]
    return f"""## Which test proves what

`make test` runs all but the benchmarks; what needs a GPU, a browser or the right to mount a disk is left out where
there is none.

{table(("subject", "what holds", "where it is tried"), rows)}"""


def _why(file: Entry) -> str:
    if not file["again"]:
        return "has seconds, rates and memory" if file["path"].startswith(("metrics/", "plots/training")) else "unknown"
    return "" if file["two"] else "sums in another order"


if __name__ == "__main__":
    main()
