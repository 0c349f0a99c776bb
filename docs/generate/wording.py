"""A run's parameters in words: what is tuned, as it was, and of the rest what is unusual."""

from collections.abc import Mapping
from typing import Any

from yoyak.sweeps.results import Result

USUAL_TRAINING = {
    "schedule": "cosine",
    "warmup_ratio": 0.03,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "label_smoothing": 0.0,
    "loss_on": "summary",
    "best_by": "loss",
}
USUAL_SEARCH = {
    "max_new_tokens": 192,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "script_guard": True,
    "load_in_4bit": False,
}
USUAL_TOP_K = 50


def usual() -> str:
    """The values that `parameters` and `searched` leave out."""
    values = {**USUAL_TRAINING, **USUAL_SEARCH, "top_k": USUAL_TOP_K}
    return ", ".join(f"`{key}` {_value(value)}" for key, value in values.items()) + "; no topic in train's prompts"


def parameters(result: Result, name: str) -> str:
    """Those of a model that was trained as adapters; `name` is its name in the result."""
    resolved = result.figures["models"][name]
    config, search = resolved["training"], resolved["generation"]["generation"]
    model, training, lora, quantization = (config[key] for key in ("model", "training", "lora", "quantization"))
    rate, epochs, rows = (training[key] for key in ("learning_rate", "epochs", "effective_batch_size"))
    base = quantization["type"].upper() if quantization["load_in_4bit"] else model["dtype"]
    tuned = [
        f"lr {rate:g}, {epochs:g} epochs, {rows} rows a step",
        f"r {lora['r']}, alpha {lora['alpha']:g}, dropout {lora['dropout']:g}; {base} base",
        f"{model['prompt']} prompt" + (", persons as 화자1" if model["persons"] == "speakers" else ""),
        *(["topic in train's prompts"] if result.figures["prompts"]["train_topic"] else []),
        *_unusual(training, USUAL_TRAINING),
    ]
    return "; ".join([*tuned, searched(search)])


def searched(search: Mapping[str, Any]) -> str:
    """A section `generation` in words."""
    return "; ".join([_kind(search), *_unusual(search, USUAL_SEARCH)])


def _kind(search: Mapping[str, Any]) -> str:
    if search["search"] == "greedy":
        return "greedy"
    if search["search"] == "beam":
        return f"{search['num_beams']} beams, length penalty {search['length_penalty']:g}"
    if search["search"] == "diverse_beam":
        groups, penalty = search["num_beam_groups"], search["diversity_penalty"]
        return f"{search['num_beams']} beams in {groups} groups, diversity penalty {penalty:g}"
    top_k = "" if search["top_k"] == USUAL_TOP_K else f", top-k {search['top_k']}"
    return f"{search['candidates']} samples, T {search['temperature']:g}, top-p {search['top_p']:g}{top_k}"


def _unusual(section: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    return [f"`{key}` {_value(section[key])}" for key, value in usual.items() if section[key] != value]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
