"""One inference, from its config to the predictions and the record of what ran."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils.logging import set_verbosity_error

from yoyak.core import environment, folds, gpu, progress, repository
from yoyak.core.files import files_in
from yoyak.core.limits import LimitsParams
from yoyak.core.records import Prompt, read_records, write_json, write_records
from yoyak.core.resume import scratch_folder
from yoyak.core.run import entry_of
from yoyak.core.stale_outputs import PREFIX
from yoyak.core.workers import Work, Workers
from yoyak.inference.averaging import Averaged, assemble
from yoyak.inference.generate import Generated, check_generated, generate, is_one_at_a_time, search
from yoyak.inference.loading import load_for_inference, load_mean
from yoyak.inference.params import InferenceConfig, Member
from yoyak.modeling import precision
from yoyak.modeling.loading import Loaded


def infer(name: str, config: InferenceConfig, limits: LimitsParams, untuned: bool) -> None:
    """Summarise dev, test and what a fold holds out of train; `untuned`: dev alone, by the base weights."""
    folders = {member: None if untuned else Path(f"models/{member}") for member in config.members_of(name)}
    title = f"untuned_{name}" if untuned else name
    paths = _prompts(config, untuned)
    files = [*paths.values(), *(path for folder in folders.values() if folder for path in files_in(folder))]
    _, *others = gpu.allowed(limits)
    gpu.use_one()
    gpu.limit(limits)
    metrics, record = {}, Path(f"metrics/infer/{title}.json")
    begin = partial(_begin_to_search, name, title, config, folders, limits)
    with (
        scratch_folder("predictions", title, config, files, record) as scratch,
        Workers(title, others, begin) as workers,
    ):
        loaded = _load(name, title, config, folders)
        computed_in = precision.describe(member.precision for member in loaded.members)
        batching = _batching(loaded, config)
        sharing = {"processes": f"{1 + len(others)} share the dialogues"} if others else {}
        facts = [f"dtype: {computed_in['dtype']}, {computed_in['dtype_why']}", *batching.values()]
        facts += [f"{key}: {value}" for key, value in sharing.items()]
        print(f"{title}: {'; '.join(facts)}", flush=True)
        for split, path in paths.items():
            prompts = read_records(path, Prompt)
            if split == "train":
                prompts = folds.held_out(prompts, config.fold)
            started = time.perf_counter()
            # A baseline is what the base weights say by themselves.
            generated = generate(
                loaded, prompts, config, f"{title} {split}", scratch / split, repaired=not untuned, workers=workers
            )
            seconds = time.perf_counter() - started
            folder = Path(f"predictions/{PREFIX if untuned else ''}{title}")
            write_records(folder / f"{split}.jsonl", generated.predictions)
            metrics[split] = _figures(generated, len(prompts), seconds)
            if not untuned:
                check_generated(generated, limits, name)
        write_json(
            record,
            {
                **metrics,
                "peak_memory_gib": round(max(gpu.peak_memory_gib(), workers.peak_memory_gib), 2),
                "seed": config.generation.seed,
                "commit": repository.commit(),
                "ran": {**environment.describe(), **computed_in, **batching, **sharing},
            },
        )


def _prompts(config: InferenceConfig, untuned: bool) -> dict[str, Path]:
    """Files of the splits that are summarised: a baseline is measured on dev, and nothing of it is submitted."""
    splits = ("dev",) if untuned else ("dev", "test", "train") if config.fold else ("dev", "test")
    return {split: Path(f"data/prompts/{split}.jsonl") for split in splits}


def _begin_to_search(
    name: str, title: str, config: InferenceConfig, folders: Mapping[str, Path | None], limits: LimitsParams
) -> Work:
    """In a process beside the one that `infer` runs in."""
    progress.leave_to_another_process()
    # Of what a library has to say, once is enough.
    set_verbosity_error()
    gpu.limit(limits)
    loaded = _load(name, title, config, folders)
    return lambda order: search(loaded, *order)


def _load(name: str, title: str, config: InferenceConfig, folders: Mapping[str, Path | None]) -> Loaded | Averaged:
    """What writes the summaries: one model, or several as one."""
    members = config.members_of(name)
    if config.in_memory(name) == list(members):
        return assemble(name, load_members(title, members, folders))
    spec = next(iter(members.values())).model
    fewer = "take models with fewer parameters"
    with (
        gpu.oom_in_one_line(title, fewer, fewer),
        progress.waiting(f"{title}: loading the mean of {', '.join(members)}"),
    ):
        return load_mean(spec, [Path(f"models/{member}") for member in members])


def load_members(title: str, members: Mapping[str, Member], folders: Mapping[str, Path | None]) -> dict[str, Loaded]:
    """Each loaded, from its folder or, where that is None, from the base weights alone."""
    loaded = {}
    for name, member in members.items():
        with (
            gpu.oom_in_one_line(
                title,
                f"set models.{entry_of(name)}.generation.load_in_4bit: true",
                "take a model with fewer parameters",
            ),
            progress.waiting(f"{title}: loading {name}"),
        ):
            loaded[name] = load_for_inference(member.model, folders[name], member.quantization)
    return loaded


def _batching(loaded: Loaded | Averaged, config: InferenceConfig) -> dict[str, str]:
    """For the record, where `batch_size` counts for nothing."""
    if config.generation.batch_size == 1 or not is_one_at_a_time(loaded, config):
        return {}
    return {"batch": "one dialogue at a time: padding would change what this model writes"}


def _figures(generated: Generated, rows: int, seconds: float) -> dict[str, Any]:
    """What a split's summaries took, and what they lack."""
    return {
        "rows": rows,
        "generated_again": generated.generated_again,
        **{fault: generated.faults[fault] for fault in ("empty", "truncated", "foreign_script")},
        "shortened_prompts": generated.shortened_prompts,
        "resumed_at_row": generated.done_before,
        "seconds": round(seconds, 1),
        "dialogues_per_second": round((rows - generated.done_before) / seconds, 2),
    }
