"""`yoyak export`: files are written, held to the pipeline's model, described; only then do they get their name."""

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core import gpu, repository
from yoyak.core.errors import UserError
from yoyak.core.files import read_text
from yoyak.core.folds import seen
from yoyak.core.params import PARAMS
from yoyak.core.records import Prompt, read_json, read_records, write_json
from yoyak.core.run import entry_of
from yoyak.evaluation.leaderboard import made_by
from yoyak.exporting import card, licences, mean_adapter, trained
from yoyak.exporting.gguf_file import Quantized, check_tools
from yoyak.exporting.measured import Export, Kind
from yoyak.exporting.push import check_name, push
from yoyak.exporting.trained import Trained
from yoyak.preflight import status
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params
from yoyak.training.params import read_config as read_training

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
    known = _known(found)
    gpu.use_one()
    gpu.limit(params.limits)
    target = EXPORTS / f"{name}-{kind}"
    with _half(target) as half:
        made = Export(params, found, kind, half, options.rows, options.quantized)
        write_json(half / "parity.json", made.report)
        facts = _facts(params, made, known, options.repository or str(target), data_licence, base_licence)
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
        mean_adapter.check(found.name, found.folders)


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


class _Known(NamedTuple):
    """What files tell of the model, before any work."""

    trainings: list[card.Training]
    rows: int
    """Of train that were seen in them."""
    scores: dict[str, Any] | None
    not_scored: str


def _known(found: Trained) -> _Known:
    stale = {state.name: ", ".join(state.why) for state in status.states() if state.why}
    return _Known(*_trainings(found, stale), *_scores(found.name, stale))


def _facts(params: Params, made: Export, known: _Known, where: str, data_licence: str, base_licence: str) -> card.Facts:
    found = made.found
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
        trainings=known.trainings,
        members=[folder.name for folder in found.folders],
        asked=made.conversation.around(params.prompts.system, request),
        data=str(params.data.dir),
        rows=known.rows,
        data_licence=data_licence,
        base_licence=base_licence,
        scoring=read_json(Path("metrics/scores.json"))["scoring"] if known.scores else made_by(params.scoring),
        scores=known.scores,
        not_scored=known.not_scored,
        parity=made.report,
        differences=made.differences,
        seq2seq=made.seq2seq,
        file=next((path.name for path in made.half.glob("*.gguf")), None),
        commit=repository.commit(),
    )


def _trainings(found: Trained, stale: Mapping[str, str]) -> tuple[list[card.Training], int]:
    """What made the model, and how many rows of train were seen in it; `stale` tells why stages would run again."""
    train = read_records(Path("data/prompts/train.jsonl"), Prompt)
    made: dict[str, card.Training] = {}
    fnames: set[str] = set()
    for name in (folder.name for folder in found.folders):
        of_entry = Path(f"data/resolved/{entry_of(name)}/training.yaml")
        rows = seen(train, read_training(of_entry).fold)
        fnames |= {row.fname for row in rows}
        parameters = _without_weights(of_entry)
        made[entry_of(name)] = training = card.Training(
            entry_of(name), False, len(rows), parameters, stale.get(f"train@{entry_of(name)}", "")
        )
        if name != entry_of(name):
            parameters = _without_weights(Path(f"data/resolved/{name}/tuning.yaml"))
            why = stale.get(f"tune@{entry_of(name)}", "")
            made[name] = training._replace(model=name, tuned=True, parameters=parameters, stale=why)
    return list(made.values()), len(fnames)


def _without_weights(resolved: Path) -> str:
    """Where a folder of weights lies on this machine is nobody's matter."""
    text = read_text(resolved, "no such file; run `dvc repro`", "run `dvc repro`")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("  weights:"))


def _scores(name: str, stale: Collection[str]) -> tuple[dict[str, Any] | None, str]:
    """The model's entry in `metrics/scores.json`, or why that is of another one; `stale` are stages."""
    if not Path("metrics/scores.json").is_file():
        return None, "it was not scored"
    inference = f"infer_tuned@{entry_of(name)}" if name != entry_of(name) else f"infer@{name}"
    if older := [stage for stage in (inference, f"infer_averaged@{name}", "score") if stage in stale]:
        return None, f"{', '.join(older)} would run anew (`yoyak status`), and what metrics/scores.json has is older"
    entry = read_json(Path("metrics/scores.json"))["models"].get(name)
    return entry, "metrics/scores.json does not have it"
