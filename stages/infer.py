"""Stage `infer@<model>`: a trained model and the dev and test prompts in; predictions out.

`infer.py <model> untuned` is the stage `infer_untuned@<model>`: the same with the base weights.
"""

import sys
import time
from pathlib import Path

from yoyak import machine
from yoyak.errors import exits_with_one_line
from yoyak.generation import GenerationJob, check_generated, generate
from yoyak.machine import LimitsParams
from yoyak.models import load_for_inference
from yoyak.parameters import check, read_yaml
from yoyak.records import Prompt, read_records, write_json, write_records


@exits_with_one_line
def main() -> None:
    name, untuned = sys.argv[1], sys.argv[2:] == ["untuned"]
    resolved = Path(f"data/resolved/{name}/generation.yaml")
    job = check(GenerationJob, read_yaml(resolved), f"{resolved}:")
    limits = check(LimitsParams, read_yaml(Path("params.yaml"))["limits"], "params.yaml: limits")
    loaded = load_for_inference(job.model, None if untuned else Path(f"models/{name}"))
    title = f"untuned_{name}" if untuned else name
    metrics = {}
    for split in ("dev", "test"):
        prompts = read_records(Path(f"data/prompts/{split}.jsonl"), Prompt)
        started = time.perf_counter()
        generated = generate(loaded, prompts, job, f"{title} {split}")
        seconds = time.perf_counter() - started
        write_records(Path(f"predictions/{'baseline/' if untuned else ''}{title}/{split}.jsonl"), generated.predictions)
        metrics[split] = {
            "rows": len(prompts),
            "empty": len(generated.empty),
            "unfinished": len(generated.unfinished),
            "shortened_prompts": generated.shortened_prompts,
            "seconds": round(seconds, 1),
            "dialogues_per_second": round(len(prompts) / seconds, 2),
        }
        if not untuned:
            check_generated(generated, limits, name)
    ran = {"seed": job.seed, "commit": machine.commit(), "ran": machine.describe()}
    write_json(
        Path(f"metrics/infer/{title}.json"),
        {**metrics, "peak_memory_gib": round(machine.peak_memory_gib(), 2), **ran},
    )


if __name__ == "__main__":
    main()
