"""`yoyak export`: files are written, held to the pipeline's model, described; only then do they get their name."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers.utils.logging import set_verbosity_error

from yoyak.core import environment, gpu, progress, repository
from yoyak.core.errors import UserError
from yoyak.core.files import read_text
from yoyak.core.limits import check_disk
from yoyak.core.params import PARAMS
from yoyak.core.records import Prompt, read_json, read_records, write_json
from yoyak.evaluation.leaderboard import made_by
from yoyak.exporting import card, folder, generation_config, licences, parity, trained
from yoyak.exporting.conversation import Conversation
from yoyak.exporting.parity import Judge, Measured, Rows
from yoyak.exporting.trained import Trained
from yoyak.modeling import precision
from yoyak.modeling.precision import TORCH_DTYPES
from yoyak.preflight import status
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params

Kind = Literal["adapter", "hf"]
EXPORTS = Path("export")


class Options(NamedTuple):
    """What the command is told."""

    rows: int
    """Of dev that are compared; 0: all."""
    licence: str | None
    data_licence: str | None
    repository: str | None
    """Name on the hub."""


class Exported(NamedTuple):
    """What was made."""

    folder: Path
    parity: dict[str, Any]


def export(name: str, kind: Kind, options: Options) -> Exported:
    """Write `export/<name>-<kind>` from the trained model `name`, or stop where it would not be that model."""
    params = read_params(PARAMS)
    found = trained.find(params, name)
    _check_kind(found, kind)
    data_licence = licences.of_data(str(params.data.dir), options.data_licence)
    base_licence = licences.of_base(found.spec.weights, found.spec.pin, options.licence, data_licence)
    set_verbosity_error()
    gpu.use_one()
    gpu.limit(params.limits)
    target = EXPORTS / f"{name}-{kind}"
    with _half(target) as half:
        report, about = _written(params, found, kind, half, options)
        write_json(half / "parity.json", report)
        facts = _facts(params, found, kind, options, report, about, (data_licence, base_licence), target)
        card.write(half / "README.md", facts)
    return Exported(target, report)


def _check_kind(found: Trained, kind: Kind) -> None:
    if kind == "adapter" and not found.has_adapters:
        raise UserError(f"{found.name} has no adapters (method: full): --to hf")
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


class About(NamedTuple):
    """What a card needs of the loaded model."""

    conversation: Conversation
    differences: list[str]
    seq2seq: bool


def _written(params: Params, found: Trained, kind: Kind, half: Path, options: Options) -> tuple[dict[str, Any], About]:
    """Write weights and what stands beside them, and measure."""
    name, dtype = found.name, TORCH_DTYPES[found.spec.dtype]
    with progress.timed(f"{name}: loading it in fp32"):
        loaded = trained.load(found, "fp32")
    conversation = Conversation(loaded)
    rows = parity.read_rows(loaded, read_records(Path("data/prompts/dev.jsonl"), Prompt), options.rows)
    judge = Judge(rows, params.scoring)
    generation = found.config.generation
    about = About(
        conversation, generation_config.left_out(loaded, generation), bool(loaded.model.config.is_encoder_decoder)
    )
    folder.write_around(half, loaded, conversation, generation)
    at_once = parity.together(loaded)
    learned = parity.of_pipeline(loaded, found.config, rows, f"{name}, as trained, fp32")
    measured = {"as trained, in fp32": learned}
    pipeline = learned
    if kind == "adapter":
        folder.write_adapter(half, found)
    else:
        check_disk(params.limits, _gigabytes(loaded.model, dtype), f"the export of {name}")
        folder.write_weights(half, loaded.model.to(dtype))
        if dtype != torch.float32:
            loaded.model.float()
            pipeline = parity.of_pipeline(loaded, found.config, rows, f"{name}, rounded to {found.spec.dtype}")
            measured[f"its weights rounded to {found.spec.dtype}, computed in fp32"] = pipeline
    del loaded
    gpu.release_memory()
    exported = parity.of_folder(
        half, torch.float32, rows, conversation, generation.max_new_tokens, at_once, f"{name}, exported"
    )
    measured["exported, computed in fp32"] = exported
    share = parity.check_texts(name, pipeline.texts, exported.texts)
    checks = [f"{parity.percent(share)} of the greedy summaries in fp32 are the pipeline's to the letter"]
    checks += _lost(judge, measured)
    checks += _in_16_bits(found, half, rows, conversation, judge, at_once, measured)
    return _report(rows, judge, measured, checks, options), about


def _lost(judge: Judge, measured: dict[str, Measured]) -> list[str]:
    """What rounding costs, where there was any."""
    first, *others = measured.items()
    return [
        f"{what}: {other.loss - first[1].loss:+.4f} nats a token to {first[0]}, "
        f"ROUGE {_told(judge.delta(other.texts, first[1].texts))}, "
        f"{parity.percent(parity.equal(first[1].texts, other.texts))} of the summaries the same"
        for what, other in others
        if what.startswith("its weights")
    ]


def _in_16_bits(
    found: Trained,
    half: Path,
    rows: Rows,
    conversation: Conversation,
    judge: Judge,
    at_once: int,
    measured: dict[str, Measured],
) -> list[str]:
    """ROUGE of pipeline and export, both by `generate`."""
    asked = found.spec.dtype
    if asked == "fp32":
        return ["its weights are in 32 bits, and so is its inference"]
    chosen = precision.choose(asked)
    if chosen.dtype != asked:
        return [f"not compared in {asked}: {chosen.why}"]
    most = found.config.generation.max_new_tokens
    with progress.timed(f"{found.name}: {len(rows.rows)} summaries of the pipeline's model in {asked}"):
        loaded = trained.load(found, asked)
        loaded.model.generation_config = generation_config.of(loaded, found.config.generation)
        pipeline = parity.of_plain(loaded.model, loaded.tokenizer, rows, conversation, most, at_once)
    del loaded
    gpu.release_memory()
    exported = parity.of_folder(half, TORCH_DTYPES[asked], rows, conversation, most, at_once, f"{found.name}, exported")
    measured[f"the pipeline's, in {asked}"] = pipeline
    measured[f"exported, in {asked}"] = exported
    delta = judge.delta(exported.texts, pipeline.texts)
    parity.check_rouge(found.name, delta)
    return [f"in {asked}, exported less the pipeline's: ROUGE {_told(delta)}"]


def _told(delta: dict[str, Any]) -> str:
    low, high = delta["ci95"]
    return f"{delta['rouge_mean']:+.2f} [{low}, {high}]"


def _report(
    rows: Rows, judge: Judge, measured: dict[str, Measured], checks: list[str], options: Options
) -> dict[str, Any]:
    """`parity.json`."""
    left_out = {
        "lose turns to max_prompt_tokens": rows.shortened,
        "hold texts of control tokens": rows.steering,
    }
    checks += [f"{number} rows were left out: they {why}" for why, number in left_out.items() if number]
    return {
        "rows": len(rows.rows),
        "rows_asked_for": options.rows or "all of dev",
        "left_out": left_out,
        "checks": checks,
        "models": [
            {"what": what, "loss": round(each.loss, 5), **judge.entry(each.texts)} for what, each in measured.items()
        ],
        "device": environment.describe()["device"],
        "ran": environment.describe(),
        "commit": repository.commit(),
    }


def _gigabytes(model: Any, dtype: torch.dtype) -> float:
    return float(sum(weight.numel() for weight in model.parameters()) * dtype.itemsize / 1e9)


def _facts(
    params: Params,
    found: Trained,
    kind: Kind,
    options: Options,
    report: dict[str, Any],
    about: About,
    both: tuple[str, str],
    target: Path,
) -> card.Facts:
    scores, why = _scores(found.name)
    rows = len(read_records(Path("data/prompts/train.jsonl"), Prompt))
    first = found.folders[0].name
    training = Path(f"data/resolved/{first}/training.yaml")
    tuning = Path(f"data/resolved/{first}/tuning.yaml")
    used = next((path for path in (tuning, training) if path.is_file()), None)
    request = about.conversation.prompt_tokenizer.request(
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
        kind=kind,
        where=options.repository or str(target),
        spec=found.spec,
        training=read_text(used, "no such file; run `dvc repro`", "run `dvc repro`") if used else "",
        asked=about.conversation.around(params.prompts.system, request),
        data=str(params.data.dir),
        rows=rows,
        data_licence=both[0],
        base_licence=both[1],
        scoring=read_json(Path("metrics/scores.json"))["scoring"] if scores else made_by(params.scoring),
        scores=scores,
        not_scored=why,
        parity=report,
        differences=about.differences,
        seq2seq=about.seq2seq,
        commit=repository.commit(),
    )


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
