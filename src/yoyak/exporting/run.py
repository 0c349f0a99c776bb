"""`yoyak export`: files are written, held to the pipeline's model, described; only then do they get their name."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core import gpu, repository
from yoyak.core.errors import UserError
from yoyak.core.files import read_text
from yoyak.core.params import PARAMS
from yoyak.core.records import Prompt, read_json, read_records, write_json
from yoyak.evaluation.leaderboard import made_by
from yoyak.exporting import card, licences, trained
from yoyak.exporting.gguf_file import Quantized, check_tools
from yoyak.exporting.measured import Export, Kind
from yoyak.exporting.push import check_name, push
from yoyak.exporting.trained import Trained
from yoyak.preflight import status
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params

EXPORTS = Path("export")


class Options(NamedTuple):
    """What the command is told."""

    rows: int
    """Of dev that are compared; 0: all."""
    licence: str | None
    data_licence: str | None
    quantized: Quantized | None
    """Of a GGUF."""
    repository: str | None
    """Name on the hub."""


class Exported(NamedTuple):
    """What was made."""

    folder: Path
    parity: dict[str, Any]
    pushed: str | None
    """Address on the hub."""


def export(name: str, kind: Kind, options: Options) -> Exported:
    """Write `export/<name>-<kind>` from the trained model `name`, or stop where it would not be that model."""
    if options.repository:
        check_name(options.repository)
    params = read_params(PARAMS)
    found = trained.find(params, name)
    _check_kind(found, kind)
    data_licence = licences.of_data(str(params.data.dir), options.data_licence)
    base_licence = licences.of_base(found.spec.weights, found.spec.pin, options.licence, data_licence)
    gpu.use_one()
    gpu.limit(params.limits)
    target = EXPORTS / f"{name}-{kind}"
    with _half(target) as half:
        made = Export(params, found, kind, half, options.rows, options.quantized)
        write_json(half / "parity.json", made.report)
        facts = _facts(params, made, options.repository or str(target), data_licence, base_licence)
        card.write(half / "README.md", facts)
    pushed = push(target, options.repository) if options.repository else None
    return Exported(target, made.report, pushed)


def _check_kind(found: Trained, kind: Kind) -> None:
    if kind == "adapter" and not found.has_adapters:
        raise UserError(f"{found.name} has no adapters (method: full): --to hf")
    if kind == "gguf":
        if found.spec.method == "full":
            raise UserError(f"{found.name} is an encoder-decoder, or trained as one (method: full): --to hf")
        check_tools()
    if kind == "adapter" and found.is_mean:
        raise UserError(f"{found.name} is the mean of several adapters, which is none of their rank: --to hf")


@contextmanager
def _half(target: Path) -> Iterator[Path]:
    """A folder beside `target` for the block to fill, which takes its place once the block has ended well."""
    half = target.with_name(f"{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    try:
        yield half
        shutil.rmtree(target, ignore_errors=True)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _facts(params: Params, made: Export, where: str, data_licence: str, base_licence: str) -> card.Facts:
    found = made.found
    scores, why = _scores(found.name)
    rows = len(read_records(Path("data/prompts/train.jsonl"), Prompt))
    first = found.folders[0].name
    training = Path(f"data/resolved/{first}/training.yaml")
    tuning = Path(f"data/resolved/{first}/tuning.yaml")
    used = next((path for path in (tuning, training) if path.is_file()), None)
    request = made.conversation.prompt_tokenizer.request(
        Prompt(
            fname="example",
            system=params.prompts.system,
            turns=(card.MARK,),
            question=params.prompts.question,
        ),
        [card.MARK],
    )
    return card.Facts(
        name=found.name,
        kind=made.kind,
        where=where,
        spec=found.spec,
        training="" if used is None else _without_weights(used),
        asked=made.conversation.around(params.prompts.system, request),
        data=str(params.data.dir),
        rows=rows,
        data_licence=data_licence,
        base_licence=base_licence,
        scoring=read_json(Path("metrics/scores.json"))["scoring"] if scores else made_by(params.scoring),
        scores=scores,
        not_scored=why,
        parity=made.report,
        differences=made.differences,
        seq2seq=made.seq2seq,
        file=next((path.name for path in made.half.glob("*.gguf")), None),
        commit=repository.commit(),
    )


def _without_weights(resolved: Path) -> str:
    """Where a folder of weights lies on this machine is nobody's matter."""
    text = read_text(resolved, "no such file; run `dvc repro`", "run `dvc repro`")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("  weights:"))


def _scores(name: str) -> tuple[dict[str, Any] | None, str]:
    """The model's entry in `metrics/scores.json`, or why that is of another one."""
    if not Path("metrics/scores.json").is_file():
        return None, "it was not scored"
    stages = {f"{stage}@{name}" for stage in ("infer", "infer_averaged")} | {"score"}
    if name.endswith("_tuned"):
        stages.add(f"infer_tuned@{name.removesuffix('_tuned')}")
    if stale := [state.name for state in status.states() if state.name in stages and state.why]:
        return None, f"{', '.join(stale)} would run anew (`yoyak status`), and what metrics/scores.json has is older"
    entry = read_json(Path("metrics/scores.json"))["models"].get(name)
    return entry, "metrics/scores.json does not have it"
