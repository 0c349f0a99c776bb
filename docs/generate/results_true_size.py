"""Shapes of models that need a hub, for docs/results.md: memory and rates."""

import wording
from markdown_tables import paragraph, table
from provenance import ran_on

from yoyak.sweeps.results import Result


def true_size_section(results: list[Result]) -> str:
    """The section "True sizes"."""
    header = ["shape", "rows", "base weights", "tokens/s", "peak GiB"]
    header += ["dialogues", "searched twice", "cut off", "dialogues/s", "peak GiB"]
    limits = sorted({each for run in results for each in run.figures["set"] if each.startswith("limits.gpu_gib=")})
    searches = sorted({wording.searched(_search(result)) for result in results})
    return "\n\n".join(
        [
            "## True sizes",
            paragraph(f"""
                Random weights of the true shapes through the stages, a GPU each, {", ".join(limits)}, the host busy
                with other work: one epoch over the longest rows of train and others, then dialogues of dev
                ({"; ".join(searches)}). No summary may end before its last token, so that all candidates count as cut
                off, and each dialogue is searched twice; dialogues/s counts both. Where none is cut off in the end, the
                second search was free to end early, and dialogues/s is of less. {ran_on(results)}.
            """),
            table(header, map(_line, results)),
        ]
    )


def _line(result: Result) -> list[str]:
    train, infer = result.figures["train"][result.model], result.figures["infer"][result.model]
    # A full fine-tune has no base weights, and is not compiled.
    compiled = train.get("compiled", "yes") == "yes"
    steps = f"{train['rows']} in {train['steps']} steps" + ("" if compiled else ", not compiled")
    dev = infer["dev"]
    trained = [train.get("base", "all trained"), result.rate, f"{train['peak_memory_gib']:.1f}"]
    searched = [f"{dev[key]:.0f}" for key in ("rows", "generated_again", "truncated")]
    rate = f"{dev['dialogues_per_second']:.1f}"
    return [f"`{result.model}`", steps, *trained, *searched, rate, f"{infer['peak_memory_gib']:.1f}"]


def _search(result: Result) -> dict[str, object]:
    search: dict[str, object] = result.figures["models"][result.model]["generation"]["generation"]
    return search
