"""One rescoring, from the members' predictions to how likely the model finds them, and the record of what ran."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yoyak.core import environment, folds, gpu, progress, repository
from yoyak.core.files import files_in
from yoyak.core.limits import LimitsParams
from yoyak.core.records import Prediction, Prompt, Rescored, read_records, write_json, write_records
from yoyak.core.resume import scratch_folder
from yoyak.inference.params import OneModelConfig
from yoyak.inference.run import load_members
from yoyak.modeling import precision
from yoyak.rescoring.likelihood import rescore_rows


def rescore(name: str, config: OneModelConfig, limits: LimitsParams, scored: Sequence[str]) -> None:
    """Let a trained model say how likely it finds each candidate of the models named by `scored`: of dev, of test, and
    of the rows of train that it has not seen, where others that have not wrote about them."""
    folder = Path(f"models/{name}")
    prompts = _prompts(config)
    paths = [path for split in prompts for path in _predictions(scored, split).values()]
    files = [*(Path(f"data/prompts/{split}.jsonl") for split in prompts), *paths, *files_in(folder)]
    gpu.use_one()
    gpu.limit(limits)
    metrics, record = {}, Path(f"metrics/rescore/{name}.json")
    with scratch_folder("rescored", name, config, files, record) as scratch:
        loaded = load_members(name, {name: config}, {name: folder})[name]
        computed_in = precision.describe([loaded.precision])
        progress.say(f"{name}: dtype: {computed_in['dtype']}, {computed_in['dtype_why']}")
        for split, of_split in prompts.items():
            texts = candidate_texts(scored, split)
            rows = [prompt for prompt in of_split if prompt.fname in texts]
            started = time.perf_counter()
            partial = scratch / f"{split}.jsonl"
            rescored = rescore_rows(loaded, rows, [texts[row.fname] for row in rows], f"{name} {split}", partial)
            write_records(Path(f"rescored/{name}/{split}.jsonl"), rescored)
            metrics[split] = _figures(rescored, time.perf_counter() - started)
        write_json(
            record,
            {
                **metrics,
                "peak_memory_gib": round(gpu.peak_memory_gib(), 2),
                "commit": repository.commit(),
                "ran": {**environment.describe(), **computed_in},
            },
        )


def _prompts(config: OneModelConfig) -> dict[str, list[Prompt]]:
    """Of each split that has rows which the model has not seen."""
    dev, test, train = (read_records(Path(f"data/prompts/{split}.jsonl"), Prompt) for split in ("dev", "test", "train"))
    unseen = folds.held_out(train, config.fold)
    return {"dev": dev, "test": test} | ({"train": unseen} if unseen else {})


def _predictions(scored: Sequence[str], split: str) -> dict[str, Path]:
    """The members' files; of train those have one that leave out a fold."""
    paths = {name: Path(f"predictions/{name}/{split}.jsonl") for name in scored}
    return {name: path for name, path in paths.items() if split != "train" or path.exists()}


def candidate_texts(scored: Sequence[str], split: str) -> dict[str, list[str]]:
    """All different texts that are not empty, by fname, in the order of the members."""
    texts: dict[str, dict[str, None]] = {}
    for path in _predictions(scored, split).values():
        for row in read_records(path, Prediction):
            texts.setdefault(row.fname, {}).update(dict.fromkeys(each.text for each in row.candidates if each.text))
    return {fname: list(of_row) for fname, of_row in texts.items()}


def _figures(rescored: Sequence[Rescored], seconds: float) -> dict[str, Any]:
    """What a split's candidates took."""
    texts = [text for row in rescored for text in row.texts]
    tokens = sum(text.tokens for text in texts)
    return {
        "rows": len(rescored),
        "texts": len(texts),
        "tokens": tokens,
        "seconds": round(seconds, 1),
        "tokens_per_second": round(tokens / seconds, 1),
    }
