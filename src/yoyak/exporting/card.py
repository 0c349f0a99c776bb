"""The model card: what the model is, made of what and under which terms, what it scores, and how it is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from yoyak.core.errors import UserError
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.exporting.conversation import Asked
from yoyak.modeling.spec import PACKAGE, ModelSpec, is_folder

DIALOGUE = "#Person1#: 내일 회의는 몇 시에 시작하나요?\n#Person2#: 오전 10시에 시작합니다."
"""What the code of a card summarises; written for it."""
MARK = "{dialogue}"
"""In what a model is asked, where the dialogue stands."""
KINDS = {"adapter": "LoRA adapters beside their base weights", "hf": "weights for transformers", "gguf": "a GGUF file"}


class Training(NamedTuple):
    """What made trained weights, or went on with them."""

    model: str
    tuned: bool
    """By the scores of its own summaries; else by references."""
    rows: int
    """Of train that it saw."""
    parameters: str
    """Resolved, YAML, without the place of the base weights."""
    stale: str
    """Why its stage would run again, so that the model may have come of other parameters; else empty."""


class Facts(NamedTuple):
    """What a card says."""

    name: str
    kind: str
    """A key of `KINDS`."""
    where: str
    """The name, or the folder, that its reader loads it by."""
    spec: ModelSpec
    trainings: list[Training]
    """One after the other; of a mean, those of all members."""
    members: list[str]
    """Models whose weights it is the mean of; else itself."""
    asked: Asked
    """Messages, or the text for an encoder, with `MARK` in it."""
    data: str
    """Folder of what it was trained on."""
    rows: int
    """Of train there that it, or one of its members, saw."""
    data_licence: str
    base_licence: str
    scoring: Mapping[str, Any]
    """As in `metrics/scores.json`: what made the scores."""
    scores: Mapping[str, Any] | None
    """Its entry there; None where those are not of this model."""
    not_scored: str
    """Why there are none."""
    parity: Mapping[str, Any]
    """As in `parity.json`."""
    differences: list[str]
    """What the pipeline's inference does beyond the exported generation config."""
    seq2seq: bool
    file: str | None
    """Of a GGUF: its name."""
    commit: str


def write(path: Path, facts: Facts) -> None:
    """Write it, having read it again as the hub's own client reads cards."""
    card = ModelCard(f"---\n{_metadata(facts).to_yaml()}\n---\n\n{_text(facts)}")
    card.save(path)
    check(path)


def check(path: Path) -> None:
    """Stop where huggingface_hub's own reader refuses the card, or reads other scores than it says."""
    try:
        read = ModelCard.load(path, ignore_metadata_errors=False)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: huggingface_hub refuses the card: {error}") from None
    for key in ("license", "language", "pipeline_tag"):
        if not read.data.get(key):
            raise UserError(f"{path}: the card has no {key}")


def _metadata(facts: Facts) -> ModelCardData:
    weights = facts.spec.weights
    on_the_hub = not (weights == "scratch" or PACKAGE.fullmatch(weights) or is_folder(weights))
    results = None
    if facts.scores:
        results = [
            EvalResult(
                task_type="summarization",
                dataset_type="csv",
                dataset_name=f"dev of {facts.data}",
                metric_type="rouge",
                metric_name=f"{title} F1 ({what_was_counted(facts.scoring)})",
                metric_value=facts.scores[key],
            )
            for key, title in (("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L"))
        ]
    return ModelCardData(
        language="ko",
        license=facts.base_licence,
        library_name={"adapter": "peft", "hf": "transformers", "gguf": "gguf"}[facts.kind],
        pipeline_tag="summarization",
        base_model=weights if on_the_hub else None,
        tags=["dialogue-summarization", "yoyak", *(["lora"] if facts.kind == "adapter" else [])],
        model_name=facts.name,
        eval_results=results,
    )


def _text(facts: Facts) -> str:
    parts = [
        f"# {facts.name}\n\nIt summarises Korean dialogues: {KINDS[facts.kind]}, made by yoyak at commit "
        f"`{facts.commit}`.",
        f"## How to load\n\n```python\n{code(facts)}```",
        _prompt(facts),
        f"## Base and training\n\n{_base(facts)}\n\n{_trainings(facts)}",
        f"## Data\n\nTrained on {facts.rows} rows of {facts.data}, under `{facts.data_licence}`.",
        _scores(facts),
        _parity(facts),
        "## Beyond the generation config\n\nThe pipeline's own summaries"
        + (", which the scores above are of, differ:\n\n" if facts.scores else " differ:\n\n")
        + "\n".join(f"- {note}" for note in facts.differences),
        f"## Licences\n\nBase weights: `{facts.base_licence}`. Data: `{facts.data_licence}`. What was made of both is "
        "under the terms of both.",
    ]
    return "\n\n".join(parts) + "\n"


def code(facts: Facts) -> str:
    """Python that prints a summary of `DIALOGUE`."""
    if facts.kind == "gguf":
        return _code_of_gguf(facts)
    adapter = facts.kind == "adapter"
    model = "AutoModelForSeq2SeqLM" if facts.seq2seq else "AutoModelForCausalLM"
    imports = ["AutoTokenizer", "GenerationConfig"] + ([] if adapter else [model])
    lines = ["from peft import AutoPeftModelForCausalLM"] if adapter else []
    lines += [
        f"from transformers import {', '.join(sorted(imports))}",
        "",
        f'name = "{facts.where}"',
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        f'model = {"AutoPeftModelForCausalLM" if adapter else model}.from_pretrained(name, dtype="auto")',
        "config = GenerationConfig.from_pretrained(name)",
        f'dialogue = """{DIALOGUE}"""',
    ]
    if facts.spec.persons == "speakers":
        lines = ["import re", *lines, 'dialogue = re.sub(r"#Person(\\d+)#", r"화자\\1", dialogue)']
    if isinstance(facts.asked, str):
        lines.append(f'inputs = tokenizer({_with_dialogue(facts.asked)}, return_tensors="pt")')
    else:
        lines += [
            "messages = [",
            *(f"    {_message(message)}," for message in facts.asked),
            "]",
            "inputs = tokenizer.apply_chat_template(",
            '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"',
            ")",
        ]
    lines.append("written = model.generate(**inputs, generation_config=config)[0]")
    new = "written" if facts.seq2seq else 'written[inputs["input_ids"].shape[1] :]'
    lines.append(f"summary = tokenizer.decode({new}, skip_special_tokens=True)")
    if facts.spec.persons == "speakers":
        lines.append('summary = re.sub(r"화자(\\d+)", r"#Person\\1#", summary)')
    return "\n".join([*lines, "print(summary)"]) + "\n"


def _code_of_gguf(facts: Facts) -> str:
    assert not isinstance(facts.asked, str)
    lines = [
        "import xllamacpp  # A wheel of llama.cpp; any other that reads GGUF will do.",
        "",
        "params = xllamacpp.CommonParams()",
        f'params.model.path = "{facts.where}/{facts.file}"',
        "params.n_ctx = 2048",
        "model = xllamacpp.Server(params)",
        f'dialogue = """{DIALOGUE}"""',
        "messages = [",
        *(f"    {_message(message)}," for message in facts.asked),
        "]",
        'answer = model.handle_chat_completions({"messages": messages, "temperature": 0})',
        'print(answer["choices"][0]["message"]["content"])',
    ]
    return "\n".join(lines) + "\n"


def _message(message: Mapping[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        said = _with_dialogue(content)
    else:
        said = f'[{{"type": "text", "text": {_with_dialogue(content[0]["text"])}}}]'
    return f'{{"role": "{message["role"]}", "content": {said}}}'


def _with_dialogue(text: str) -> str:
    """A Python expression for the text, in which the dialogue is a variable."""
    written = [json.dumps(part, ensure_ascii=False) if part else "" for part in text.split(MARK)]
    if len(written) == 1:
        return written[0]
    return " + ".join(part for part in (written[0], "dialogue", written[1]) if part)


def _prompt(facts: Facts) -> str:
    persons = {
        "tags": "Speakers are written `#Person1#`, and so are they in summaries.",
        "speakers": "Speakers are read and written as `화자1`; the code above puts `#Person1#` in their place again.",
    }[facts.spec.persons]
    return (
        "## Prompt\n\nA turn a line, each with its speaker. "
        f"{persons} Longer than {facts.spec.max_prompt_tokens} tokens a prompt was never seen: of such dialogues the "
        "pipeline leaves turns out of the middle. The chat template is the one that the model was trained with, and "
        "needs no options."
    )


def _base(facts: Facts) -> str:
    spec = facts.spec
    how = {"lora": "LoRA adapters were trained", "full": "all weights were trained"}[spec.method]
    if spec.weights == "scratch":
        return f"There is no base: the weights began at random, and {how}."
    # Where a folder lies on the machine that trained is nobody's matter.
    name = Path(spec.weights).name if is_folder(spec.weights) else spec.weights
    base = f"`{name}`, at `{spec.pin}`; {how}."
    if facts.kind == "adapter" and (PACKAGE.fullmatch(spec.weights) or is_folder(spec.weights)):
        base += (
            " It is no model of the hub: `base_model_name_or_path` in `adapter_config.json` is a folder of the project "
            "that trained it, from which PEFT loads it there; elsewhere, put your copy's folder in its place."
        )
    return base


def _trainings(facts: Facts) -> str:
    parts = [_training(training, named=len(facts.trainings) > 1) for training in facts.trainings]
    if len(facts.members) > 1:
        names = " and ".join(f"`{member}`" for member in facts.members)
        parts.append(f"The weights are the mean of those of {names}.")
    return "\n\n".join(parts)


def _training(training: Training, named: bool) -> str:
    how = "was tuned for the ROUGE of its own summaries" if training.tuned else "was trained"
    lines = [f"`{training.model}` {how}, on {training.rows} rows:"] if named else []
    lines.append(f"```yaml\n{training.parameters.rstrip()}\n```")
    if training.stale:
        lines.append(f"It may have come of other parameters: its stage would run again, for {training.stale}.")
    return "\n\n".join(lines)


def _scores(facts: Facts) -> str:
    if facts.scores is None:
        return f"## Scores\n\nNone of the pipeline: {facts.not_scored}."
    scores = facts.scores
    low, high = scores["ci95"]
    return (
        f"## Scores\n\n{scores['rows']} rows of dev, which also chose the epoch; {what_was_counted(facts.scoring)}, "
        f"dictionary {facts.scoring['dictionary'] or 'none'}; F1 in percent, with a bootstrap interval of 95 %.\n\n"
        "| ROUGE-1 | ROUGE-2 | ROUGE-L | mean |\n| --- | --- | --- | --- |\n"
        f"| {scores['rouge1']} | {scores['rouge2']} | {scores['rougeL']} | **{scores['rouge_mean']}** [{low}, {high}] |"
    )


def _parity(facts: Facts) -> str:
    parity = facts.parity
    lines = [
        f"## Held to the model that was trained\n\nOn {parity['rows']} rows of dev, {parity['ran']['device']}: the "
        "prompt's tokens, made by the exported chat template alone, are the pipeline's in each row."
    ]
    lines += [f"{line[0].upper()}{line[1:]}." for line in parity["checks"]]
    table = "| model | loss, nats a token | ROUGE, greedy |\n| --- | --- | --- |\n" + "\n".join(
        f"| {row['what']} | {row['loss']:.4f} | {_score_of(row)} |" for row in parity["models"]
    )
    return "\n".join(lines) + f"\n\n{table}"


def _score_of(row: Mapping[str, Any]) -> str:
    if "rouge_mean" not in row:
        return ""
    low, high = row["ci95"]
    return f"{row['rouge_mean']} [{low}, {high}]"
