"""Each pretrained model of `params.yaml` as its twin: trained, saved, reloaded and inferred with, on the CPU."""

import json
import math
import runpy
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from project import ROOT, Project, new_project
from prompts import PROMPT
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, DataCollatorWithFlattening
from twins import FAMILIES, Family, save_twin

from yoyak.core.ended_work import ENDED
from yoyak.core.environment import describe
from yoyak.core.errors import UserError
from yoyak.core.limits import LimitsParams, check_shortened
from yoyak.core.params import read_yaml
from yoyak.core.records import Prediction, Prompt, read_json, read_records
from yoyak.inference.hf_decoding import log_probabilities
from yoyak.inference.loading import load_for_inference
from yoyak.modeling import hub, precision, weights
from yoyak.modeling.loading import Loaded
from yoyak.modeling.spec import ModelSpec, QuantizationParams
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training import packing
from yoyak.training.base_model import dequantize, load_for_training
from yoyak.training.memory import CPU_TOKENS
from yoyak.training.params import TrainingConfig
from yoyak.training.qlora import SummaryLossTrainer
from yoyak.training.rows import IGNORED, Rows, causal_rows

ENTRIES = read_yaml(ROOT / "params.yaml")["models"]
IN_PROCESSES_OF_THEIR_OWN = ("kot5", "qwen3_4b")
"""As a user runs them; starting Python for all of them would take twice as long as all else here."""


def test_every_pretrained_model_has_a_twin() -> None:
    assert set(FAMILIES) == {name for name, entry in ENTRIES.items() if entry["weights"] != "scratch"}


# Through the stages


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with each entry's weights replaced by its twin's, after the first stage."""
    project = new_project(tmp_path_factory.mktemp("twins") / "project", {"train": 8, "dev": 2, "test": 2})
    for name, family in FAMILIES.items():
        save_twin(family, project.root / "twins" / name)
    project.edit(_use_twins)
    project.stage("prepare_prompts")
    return project


def _use_twins(params: Any) -> None:
    params["run"].update(models=list(FAMILIES), untuned=[])
    params["limits"].update(free_gb=0.1, empty_percent=100)
    params["generation"]["max_new_tokens"] = 8
    for name in FAMILIES:
        entry = params["models"][name]
        entry["weights"] = f"./twins/{name}"
        # Two, so that one comes after an evaluation.
        entry.setdefault("training", {})["epochs"] = 2
        if "generation" in entry:
            entry["generation"].pop("max_new_tokens", None)


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest, prepared: Project) -> str:
    """A model's name, after its training and inference."""
    model = str(request.param)
    for stage in ("train", "infer"):
        if model in IN_PROCESSES_OF_THEIR_OWN:
            prepared.stage(stage, model)
        else:
            _run_here(prepared, stage, model)
    return model


def _run_here(project: Project, stage: str, *arguments: str) -> None:
    script = f"stages/{stage}.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        patch.delenv("DVC_ROOT", raising=False)
        patch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(script, run_name="__main__")


@pytest.fixture
def config(prepared: Project, name: str, monkeypatch: pytest.MonkeyPatch) -> TrainingConfig:
    """What the training stage was given, from within the project's folder."""
    monkeypatch.chdir(prepared.root)
    return TrainingConfig.model_validate(read_yaml(Path(f"data/resolved/{name}/training.yaml")))


def test_a_twin_is_trained_as_its_entry_says(name: str, config: TrainingConfig) -> None:
    entry = ENTRIES[name]
    assert (config.model.method, config.model.dtype, config.model.prompt) == (
        entry["method"],
        entry["dtype"],
        entry["prompt"],
    )
    if config.model.method == "lora":
        assert config.quantization == QuantizationParams(load_in_4bit=True, type="nf4", double=True)


def test_the_saved_folder_holds_no_pickle_and_no_checkpoint(name: str, config: TrainingConfig) -> None:
    files = {path.name for path in Path(f"models/{name}").iterdir()}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    if (Path(config.model.weights) / "chat_template.jinja").exists():
        tokenizer.add("chat_template.jinja")
    if config.model.method == "full":
        assert files == {"config.json", "generation_config.json", "model.safetensors", *tokenizer}
    else:
        assert files == {"adapter_config.json", "adapter_model.safetensors", *tokenizer}
    # Work that has ended waits there until DVC has saved it.
    assert all((folder / ENDED).is_file() for folder in Path(".cache/checkpoints").glob("*/"))


def test_vocabulary_and_embeddings_are_the_base_models(name: str, config: TrainingConfig) -> None:
    saved, base = Path(f"models/{name}"), Path(config.model.weights)
    assert _vocabulary(saved) == _vocabulary(base)
    tensors = load_file(next(saved.glob("*.safetensors")))
    if config.model.method == "full":
        size = AutoConfig.from_pretrained(base).vocab_size
        assert AutoConfig.from_pretrained(saved).vocab_size == size
        assert tensors.get("model.shared.weight", tensors.get("shared.weight")).shape[0] == size
    else:
        assert all(".lora_" in key for key in tensors)


def _vocabulary(folder: Path) -> Any:
    content = json.loads((folder / "tokenizer.json").read_text())
    return content["model"]["vocab"], content["added_tokens"]


def test_adapters_learn_in_fp32_on_every_linear_layer(name: str, config: TrainingConfig) -> None:
    if config.model.method == "full":
        pytest.skip("no adapter")
    tensors = load_file(f"models/{name}/adapter_model.safetensors")
    adapted = {key.split(".")[-3] for key in tensors}
    assert adapted == {f"{layer}_proj" for layer in ("q", "k", "v", "o", "gate", "up", "down")}
    # Weights that learned in bf16 stay so round, in whatever dtype they are saved.
    assert all((tensor.float() != tensor.bfloat16().float()).any() for tensor in tensors.values())
    # What an adapter starts as is zero here.
    assert all(tensor.abs().max() > 0 for key, tensor in tensors.items() if "lora_B" in key)


def test_the_record_says_what_ran(name: str, config: TrainingConfig) -> None:
    record = read_json(Path(f"metrics/train/{name}.json"))
    assert record["ran"] == {**describe(), **precision.describe([precision.choose(config.model.dtype)])}
    assert record["micro_batch_tokens"] == CPU_TOKENS
    assert record["gradient_checkpointing"] is False
    assert (record["rows"], record["epochs"], record["shortened_rows"]) == (8, 2, 0)
    figure = "eval_rouge_mean" if config.model.method == "full" else "eval_loss"
    assert math.isfinite(record["train_loss"])
    assert math.isfinite(record["best"][figure])


def test_predictions_keep_the_order_of_the_prompts(name: str, config: TrainingConfig) -> None:
    candidates = ENTRIES[name].get("generation", {}).get("candidates", 8)
    for split in ("dev", "test"):
        predictions = read_records(Path(f"predictions/{name}/{split}.jsonl"), Prediction)
        prompts = read_records(Path(f"data/prompts/{split}.jsonl"), Prompt)
        assert [row.fname for row in predictions] == [row.fname for row in prompts]
        for row in predictions:
            assert len(row.candidates) == candidates
            assert row.text == row.candidates[0].text
            assert all(-math.inf < candidate.log_probability <= 0 for candidate in row.candidates)


def test_inference_loads_what_training_saved_in_the_entrys_dtype(name: str, config: TrainingConfig) -> None:
    tuned, base = (load_for_inference(config.model, folder) for folder in (Path(f"models/{name}"), None))
    chosen = precision.choose(config.model.dtype)
    assert {parameter.dtype for parameter in tuned.model.parameters()} == {chosen.torch_dtype}
    before, after = base.model.state_dict(), tuned.model.state_dict()
    assert before.keys() == after.keys()
    learned = [key for key in after if not torch.equal(before[key], after[key])]
    if config.model.method == "full":
        assert len(learned) > len(after) / 2
    else:
        assert learned == [key for key in after if key.endswith("_proj.weight")]


def test_4_bit_weights_compute_in_the_models_dtype(name: str, config: TrainingConfig) -> None:
    if config.model.method == "full":
        pytest.skip("not quantised")
    model = load_for_training(config.model, config.quantization, []).model
    quantised = [module for module in model.modules() if hasattr(module, "compute_dtype")]
    assert {(module.compute_dtype, module.weight.quant_state.nested) for module in quantised} == {
        (precision.choose(config.model.dtype).torch_dtype, True)
    }
    assert len(quantised) == 7 * model.config.num_hidden_layers
    others = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    assert others == {precision.choose(config.model.dtype).torch_dtype}


# Weights as the hub has koBART's and koT5's


@pytest.mark.parametrize("family", [twins.bart, twins.t5], ids=lambda family: family.__name__)
def test_pickled_weights_become_safetensors_beside_the_same_tokenizer(family: Family, tmp_path: Path) -> None:
    folder, converted = save_twin(family, tmp_path / "hub"), tmp_path / "converted"
    tensors = load_file(folder / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    converted.mkdir()
    hub.convert(folder, converted)
    assert not list(converted.glob("*.bin"))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (converted / name).read_bytes() == (folder / name).read_bytes()
    again = load_file(converted / "model.safetensors")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())


# Prompts in each chat template

TEMPLATES = {
    "llama3.2": (twins.llama32, "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "llama3": (twins.llama3, "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>assistant<|end_header_id|>\n\n"),
    "qwen2.5": (twins.qwen25, None, "<|im_end|>", "<|im_start|>assistant\n"),
    "qwen3-2507": (twins.qwen3, None, "<|im_end|>", "<|im_start|>assistant\n"),
    # The empty think block is what the template puts before a supervised answer too.
    "qwen3": (twins.qwen3_thinking, None, "<|im_end|>", "<|im_start|>assistant\n<think>\n\n</think>\n\n"),
    "gemma3": (twins.gemma3, "<bos>", "<end_of_turn>", "<start_of_turn>model\n"),
    "no template": (twins.gemma3_base, "<bos>", "<eos>", "\n\n[Answer]\n"),
}


@pytest.fixture(scope="module", params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> tuple[Any, str | None, str, str]:
    """A tokenizer with its family's chat template, and that family's begin token, end of turn and answer's header."""
    family, begin, end, header = TEMPLATES[request.param]
    return family()[1], begin, end, header


def test_a_prompt_holds_each_part_once(template: tuple[Any, str | None, str, str]) -> None:
    tokenizer, begin, _, header = template
    ids = PromptTokenizer(tokenizer, "structured", 1024).encode_prompt(PROMPT).ids
    text = tokenizer.decode(ids)
    assert text.count("[Conversation]\n" + "\n".join(PROMPT.turns) + "\n\n[Question]\n" + PROMPT.question) == 1
    assert text.count(PROMPT.question) == 1
    assert text.count(PROMPT.system) == (1 if tokenizer.chat_template else 0)
    assert text.endswith(header)
    if begin:
        assert ids[0] == tokenizer.convert_tokens_to_ids(begin)
        assert ids.count(ids[0]) == 1


def test_labels_are_the_summary_and_the_end_of_turn(template: tuple[Any, str | None, str, str]) -> None:
    tokenizer, _, end, _ = template
    prompt_tokenizer = PromptTokenizer(tokenizer, "structured", 1024)
    (row,) = causal_rows([PROMPT], prompt_tokenizer).rows
    prompt = prompt_tokenizer.encode_prompt(PROMPT).ids
    assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
    supervised = row["labels"][len(prompt) :]
    assert row["input_ids"] == prompt + supervised
    assert tokenizer.decode(supervised[:-1]) == PROMPT.summary
    assert supervised[-1] == prompt_tokenizer.end_id == tokenizer.convert_tokens_to_ids(end)


def test_a_row_reads_as_the_template_writes_the_conversation(template: tuple[Any, str | None, str, str]) -> None:
    tokenizer, *_ = template
    if not tokenizer.chat_template:
        pytest.skip("no template")
    prompt_tokenizer = PromptTokenizer(tokenizer, "structured", 1024)
    text = tokenizer.decode(causal_rows([PROMPT], prompt_tokenizer).rows[0]["input_ids"])
    user = "[Conversation]\n" + "\n".join(PROMPT.turns) + "\n\n[Question]\n" + PROMPT.question
    messages = [
        {"role": "system", "content": PROMPT.system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": PROMPT.summary},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, date_string="26 Jul 2024")
    assert whole.removesuffix("\n") == text


def test_llama_is_not_told_todays_date() -> None:
    _, tokenizer = twins.llama32()
    text = tokenizer.decode(PromptTokenizer(tokenizer, "structured", 1024).encode_prompt(PROMPT).ids)
    assert "Today Date: 26 Jul 2024" in text
    assert date.today().strftime("%d %b %Y") not in text


# Dialogues longer than the budget


def test_a_long_dialogue_loses_whole_turns_from_its_middle(template: tuple[Any, str | None, str, str]) -> None:
    tokenizer, *_, header = template
    turns = tuple(f"#Person{1 + turn % 2}#: {turn}번째로 하는 말이니 잘 들어 보세요." for turn in range(60))
    long = PROMPT.model_copy(update={"turns": turns})
    prompt_tokenizer = PromptTokenizer(tokenizer, "structured", 700)
    encoded = prompt_tokenizer.encode_prompt(long)
    text = tokenizer.decode(encoded.ids)
    kept = text.split("[Conversation]\n")[1].split("\n\n[Question]\n")[0].split("\n")
    assert 600 < len(encoded.ids) <= 700
    assert kept == [turn for turn in turns if turn in kept]
    assert (kept[0], kept[-1]) == (turns[0], turns[-1])
    dropped = [turn for turn, said in enumerate(turns) if said not in kept]
    assert dropped == list(range(dropped[0], dropped[-1] + 1))
    assert (encoded.dropped_turns, encoded.cut_inside) == (len(dropped), False)
    assert text.count(PROMPT.question) == 1
    assert text.endswith(header)


def test_a_single_giant_turn_is_cut_inside(template: tuple[Any, str | None, str, str]) -> None:
    tokenizer, *_, header = template
    giant = PROMPT.model_copy(update={"turns": ("#Person1#: " + "그래서 내가 말했지. " * 300,)})
    encoded = PromptTokenizer(tokenizer, "structured", 300).encode_prompt(giant)
    text = tokenizer.decode(encoded.ids)
    assert len(encoded.ids) <= 300
    assert (encoded.dropped_turns, encoded.cut_inside) == (0, True)
    assert "[Conversation]\n#Person1#: 그래서 내가 말했지." in text
    assert text.count(PROMPT.question) == 1
    assert text.endswith(header)


def test_shortened_dialogues_are_counted_and_limited() -> None:
    _, tokenizer = twins.llama32()
    long = PROMPT.model_copy(update={"turns": PROMPT.turns * 30})
    rows = causal_rows([PROMPT, long, PROMPT, PROMPT], PromptTokenizer(tokenizer, "structured", 500))
    assert rows.shortened == 1
    assert rows.rows[1]["labels"][-1] == rows.rows[0]["labels"][-1]
    check_shortened(rows.shortened, len(rows.rows), LimitsParams(shortened_percent=25), "llama32_3b")
    with pytest.raises(UserError, match=r"llama32_3b: 1 of 4 dialogues \(25.0 %\)"):
        check_shortened(rows.shortened, len(rows.rows), LimitsParams(shortened_percent=24), "llama32_3b")


# Rows joined to one sequence

ANSWERS = ("병원에 같이 갑니다.", "열 시입니다.", "#Person1#은 아픕니다.")


@pytest.fixture(params=[twins.llama32, twins.qwen25, twins.qwen3, twins.gemma3], ids=lambda family: family.__name__)
def fp32(request: pytest.FixtureRequest) -> tuple[Any, Rows]:
    """A decoder-only twin in fp32 and rows of unlike length, longer than Gemma's sliding window."""
    return _model_and_rows(request.param)


def _model_and_rows(family: Family) -> tuple[Any, Rows]:
    config, tokenizer = family()
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    prompts = [
        PROMPT.model_copy(update={"turns": PROMPT.turns * times, "summary": answer})
        for times, answer in zip((1, 3, 2), ANSWERS, strict=True)
    ]
    return model, causal_rows(prompts, PromptTokenizer(tokenizer, "structured", 1024))


def test_joined_rows_do_not_see_each_other_in_scoring(fp32: tuple[Any, Rows]) -> None:
    model, rows = fp32
    model.eval()
    split = [row["labels"].count(IGNORED) for row in rows.rows]
    prompts = [row["input_ids"][:at] for row, at in zip(rows.rows, split, strict=True)]
    answers = [row["input_ids"][at:] for row, at in zip(rows.rows, split, strict=True)]
    with torch.no_grad():
        joined = log_probabilities([model], [prompts], answers)
        alone = [
            float(cross_entropy(_logits(model, row)[at - 1 : -1], torch.tensor(row["input_ids"][at:])).neg())
            for row, at in zip(rows.rows, split, strict=True)
        ]
    assert joined == pytest.approx(alone, abs=1e-4)


def test_the_training_loss_is_plain_cross_entropy_of_each_row_alone(fp32: tuple[Any, Rows]) -> None:
    """Loss and gradient, of logits at the summaries' positions in joined rows, against whole logits row by row."""
    model, rows = fp32
    model.train()
    loss = _joined_loss(model, rows)
    loss.backward()
    ours = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    total = sum(
        cross_entropy(_logits(model, row)[:-1], torch.tensor(row["labels"][1:]), ignore_index=IGNORED, reduction="sum")
        for row in rows.rows
    )
    plain = total / sum(label != IGNORED for row in rows.rows for label in row["labels"])
    plain.backward()
    torch.testing.assert_close(loss, plain, atol=1e-5, rtol=0)
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(ours[key], parameter.grad, atol=1e-6, rtol=1e-4, msg=key)


def _joined_loss(model: Any, rows: Rows) -> Any:
    inputs = packing.for_loss(DataCollatorWithFlattening()(rows.rows))
    trainer = SummaryLossTrainer.__new__(SummaryLossTrainer)
    trainer.longest_of_all = inputs["input_ids"].shape[1]
    return trainer.compute_loss(model, inputs)


def _logits(model: Any, row: dict[str, list[int]]) -> Any:
    return model(input_ids=torch.tensor([row["input_ids"]])).logits[0]


# bitsandbytes on the CPU


@pytest.fixture
def quantised(prepared: Project) -> Loaded:
    spec = ModelSpec(
        weights=str(prepared.root / "twins/llama32_3b"),
        pin=weights.pin(str(prepared.root / "twins/llama32_3b"), "the twin"),
        method="lora",
        dtype="bf16",
        prompt="structured",
    )
    loaded = load_for_training(spec, QuantizationParams(load_in_4bit=True, type="nf4", double=True), [])
    return replace(loaded, model=dequantize(loaded.model)[0])


def test_an_evaluation_leaves_the_gradients_over_4_bit_weights_as_they_were(quantised: Loaded) -> None:
    rows = causal_rows([PROMPT], quantised.prompt_tokenizer)
    before = _gradient(quantised.model, rows)
    quantised.model.eval()
    with torch.no_grad():
        _joined_loss(quantised.model, rows)
    assert torch.equal(_gradient(quantised.model, rows), before)


def _gradient(model: Any, rows: Rows) -> Any:
    """Of the embeddings: what comes back through every 4-bit layer."""
    model.train()
    embeddings = model.get_input_embeddings().weight.requires_grad_()
    embeddings.grad = None
    _joined_loss(model, rows).backward()
    return embeddings.grad.clone()
