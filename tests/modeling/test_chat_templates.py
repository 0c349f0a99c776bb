"""Chat templates as families have them: what a model is asked, what ends its answer, and what is refused."""

import json
from pathlib import Path
from typing import Any

import chat_templates
import pytest
import torch
import twins
from prompts import PROMPT
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from yoyak.core.errors import UserError
from yoyak.modeling.loading import read_tokenizer
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training.rows import causal_rows

REQUEST = "[Conversation]\n" + "\n".join(PROMPT.turns) + "\n\n[Question]\n" + PROMPT.question
SPECIAL = ["<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>"]
SPECIAL += ["<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"]


@pytest.fixture(scope="module")
def plain() -> PreTrainedTokenizerFast:
    """A tokenizer that begins each text with its begin token, as Llama's and SOLAR's."""
    return PreTrainedTokenizerFast(
        tokenizer_object=twins.byte_level(SPECIAL, begin="<s>"), bos_token="<s>", eos_token="</s>"
    )


def prompt_tokenizer(plain: PreTrainedTokenizerFast, template: str) -> PromptTokenizer:
    plain.chat_template = template
    return PromptTokenizer(plain, "structured", 1024)


FIRST = f"{PROMPT.system}\n\n{REQUEST}"
"""The user's turn where the system text has no message of its own."""
SHAPES = {
    "a blank line ends an answer": (
        chat_templates.SOLAR,
        f"<s>### System:\n{PROMPT.system}\n\n### User:\n{REQUEST}\n\n### Assistant:\n",
        "</s>",
    ),
    "nothing ends an answer": (
        chat_templates.GLM4,
        f"<s>[gMASK]<sop><|system|>\n{PROMPT.system}<|user|>\n{REQUEST}<|assistant|>\n",
        "</s>",
    ),
    "a blank begins an answer, and nothing ends it": (
        chat_templates.FALCON,
        f"<s>{PROMPT.system}\n\nUser: {REQUEST}\n\nAssistant:",
        "</s>",
    ),
    "a system message is passed over": (
        chat_templates.AMBER,
        f"<s>### Human: {FIRST}\n### Assistant:",
        "</s>",
    ),
    "a system message is refused": (
        chat_templates.GEMMA2,
        f"<s><start_of_turn>user\n{FIRST}<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    "roles alternate": (chat_templates.MISTRAL1, f"<s>[INST] {FIRST} [/INST]", "</s>"),
    "the template puts the system text there itself": (
        chat_templates.MISTRAL3,
        f"<s>[INST] {FIRST}[/INST]",
        "</s>",
    ),
    "content is a list": (
        chat_templates.IN_PARTS,
        f"<s><|im_start|>system\n{PROMPT.system}<|im_end|>\n<|im_start|>user\n{REQUEST}<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "content is a list, and a system message refused": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + chat_templates.IN_PARTS,
        f"<s><|im_start|>user\n{FIRST}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "an answer is not begun": (
        chat_templates.CHATML.partition("{% if add_generation_prompt %}")[0],
        f"<s><|im_start|>system\n{PROMPT.system}<|im_end|>\n<|im_start|>user\n{REQUEST}<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
}


@pytest.mark.parametrize(("template", "asked", "end"), SHAPES.values(), ids=SHAPES)
def test_a_template_is_asked_in_the_form_that_it_takes(
    plain: PreTrainedTokenizerFast, template: str, asked: str, end: str
) -> None:
    told = prompt_tokenizer(plain, template)
    (row,) = causal_rows([PROMPT], told).rows
    ids = told.encode_prompt(PROMPT).ids
    assert plain.decode(ids) == asked
    assert row["input_ids"][: len(ids)] == ids
    assert plain.decode(row["input_ids"]) == f"{asked}{PROMPT.summary}{end}"
    assert row["labels"][len(ids) :] == row["input_ids"][len(ids) :]
    assert told.end_id == row["labels"][-1] == plain.convert_tokens_to_ids(end)
    assert ids.count(plain.bos_token_id) == 1


def test_what_stands_before_every_answer_is_part_of_the_prompt(plain: PreTrainedTokenizerFast) -> None:
    told = prompt_tokenizer(plain, chat_templates.of_trl("gptoss"))
    text = plain.decode(told.encode_prompt(PROMPT).ids)
    assert text.endswith(f"{REQUEST}<|end|><|start|>assistant<|channel|>final<|message|>")
    assert told.end_id == plain.convert_tokens_to_ids("<|return|>")


def test_a_blank_line_among_the_added_tokens_ends_no_answer() -> None:
    """As Gemma's tokenizer has it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=twins.byte_level(["</s>"]), eos_token="</s>")
    tokenizer.add_tokens(["\n\n"])
    assert prompt_tokenizer(tokenizer, chat_templates.SOLAR).end_id == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ raise_exception('not today') }}", "TemplateError: not today"),
        ("{{ messages[9].content }}", "has no element 9"),
        ("{% for message in messages %}", "TemplateSyntaxError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("nothing", "it leaves the question out"),
    ],
)
def test_a_template_that_takes_nothing_is_told_in_one_line(
    plain: PreTrainedTokenizerFast, template: str, says: str
) -> None:
    with pytest.raises(UserError, match=f"its chat template takes no question of a user .*{says}"):
        prompt_tokenizer(plain, template)


# Several templates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model as `save_pretrained` leaves it, without a template."""
    config, tokenizer = twins.llama32()
    tokenizer.chat_template = None
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def in_tokenizer_config(folder: Path, template: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


def named(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "template": f"{name}: {chat_templates.SOLAR}"} for name in names]


def in_files(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(f"default: {chat_templates.SOLAR}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/rag.jinja").write_text(f"rag: {chat_templates.SOLAR}")


@pytest.mark.parametrize(
    "write", [lambda folder: in_tokenizer_config(folder, named("rag", "default")), in_files], ids=["list", "files"]
)
def test_of_several_templates_the_default_is_kept(folder: Path, write: Any) -> None:
    write(folder)
    tokenizer = read_tokenizer(folder, folder)
    text = tokenizer.decode(PromptTokenizer(tokenizer, "structured", 1024).encode_prompt(PROMPT).ids)
    assert text.startswith("<|begin_of_text|>default: ### System:")
    tokenizer.save_pretrained(folder / "trained")
    assert not (folder / "trained/additional_chat_templates").exists()


def test_several_templates_without_a_default(folder: Path) -> None:
    in_tokenizer_config(folder, named("tool_use", "rag"))
    with pytest.raises(UserError, match=r"of its chat templates \(rag, tool_use\) none is named default; name one so"):
        read_tokenizer(folder, folder)
