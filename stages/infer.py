"""Stage `infer@<model>`: a trained model and the dev and test prompts in; predictions out.

`infer.py <model> untuned` is the stage `infer_untuned@<model>`: the same with the base weights. It is the stage
`infer_averaged@<model>`, too, which loads all members of an average.
"""

import sys
import time
from pathlib import Path

from yoyak import folds, gpu, machine, precision, progress
from yoyak.errors import exits_with_one_line
from yoyak.generation import check_generated, generate
from yoyak.jobs import read_job
from yoyak.machine import LimitsParams
from yoyak.models import load_for_inference, together
from yoyak.parameters import check, read_yaml
from yoyak.records import Prompt, read_records, write_json, write_records
from yoyak.scratch import scratch_folder


@exits_with_one_line
def main() -> None:
    name, untuned = sys.argv[1], sys.argv[2:] == ["untuned"]
    job = read_job(Path(f"data/resolved/{name}/generation.yaml"))
    limits = check(LimitsParams, read_yaml(Path("params.yaml"))["limits"], "params.yaml: limits")
    folders = {member: None if untuned else Path(f"models/{member}") for member in job.members_of(name)}
    title = f"untuned_{name}" if untuned else name
    paths = {split: Path(f"data/prompts/{split}.jsonl") for split in ("dev", "test")}
    if job.fold and not untuned:
        paths["train"] = Path("data/prompts/train.jsonl")
    files = [*paths.values(), *(path for folder in folders.values() if folder for path in sorted(folder.iterdir()))]
    gpu.use_one()
    gpu.limit(limits)
    metrics = {}
    with scratch_folder("predictions", title, job, files) as scratch:
        members = {}
        for member, each in job.members_of(name).items():
            with (
                gpu.running_out_is_told(title, f"set models.{member}.generation.load_in_4bit: true"),
                progress.waiting(f"{title}: loading {member}"),
            ):
                members[member] = load_for_inference(each.model, folders[member], each.quantization)
        loaded = together(name, members)
        for split, path in paths.items():
            prompts = read_records(path, Prompt)
            if split == "train":
                prompts = folds.held_out(prompts, job.fold)
            started = time.perf_counter()
            generated = generate(loaded, prompts, job, f"{title} {split}", scratch / split)
            seconds = time.perf_counter() - started
            folder = Path(f"predictions/{'baseline/' if untuned else ''}{title}")
            write_records(folder / f"{split}.jsonl", generated.predictions)
            metrics[split] = {
                "rows": len(prompts),
                "generated_again": generated.generated_again,
                **{fault: generated.faults[fault] for fault in ("empty", "unfinished", "foreign_script")},
                "shortened_prompts": generated.shortened_prompts,
                "resumed_at_row": generated.done_before,
                "seconds": round(seconds, 1),
                "dialogues_per_second": round((len(prompts) - generated.done_before) / seconds, 2),
            }
            if not untuned:
                check_generated(generated, limits, name)
    computed_in = precision.describe(member.precision for member in loaded.members)
    ran = {"seed": job.generation.seed, "commit": machine.commit(), "ran": {**machine.describe(), **computed_in}}
    write_json(
        Path(f"metrics/infer/{title}.json"),
        {**metrics, "peak_memory_gib": round(gpu.peak_memory_gib(), 2), **ran},
    )


if __name__ == "__main__":
    main()
