"""An exported tokenizer makes by itself, of plain messages, the tokens that the pipeline reads: in each family."""

from pathlib import Path

import chat_templates
import pytest
import twins
from families import CASES, Case, save
from prompts import PROMPT
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from yoyak.exporting.conversation import Conversation
from yoyak.exporting.plain import prompt_ids
from yoyak.modeling.loading import read_tokenizer
from yoyak.modeling.spec import Persons
from yoyak.modeling.tokenization import PromptTokenizer

TAUGHT = [case for case in CASES if not case.refused]
OTHERS = {
    "SOLAR leaves the begin token to its tokenizer": chat_templates.SOLAR,
    "Falcon's answers begin with a blank": chat_templates.FALCON,
    "Amber passes over a system message": chat_templates.AMBER,
    "GLM-4": chat_templates.GLM4,
    "no template at all": None,
}


def exported_ids(asked: PromptTokenizer, seq2seq: bool, folder: Path) -> list[int]:
    """Of the prompt, by what is exported alone."""
    conversation = Conversation(asked, seq2seq)
    asked.tokenizer.chat_template = conversation.chat_template
    asked.tokenizer.save_pretrained(folder)
    return prompt_ids(AutoTokenizer.from_pretrained(folder), conversation.asked(PROMPT))


@pytest.mark.parametrize("case", TAUGHT, ids=lambda case: case.family)
def test_a_family(case: Case, tmp_path: Path) -> None:
    folder = save(case, tmp_path / "twin")
    asked = PromptTokenizer(read_tokenizer(folder, folder), case.prompt, 1024)
    expected = asked.encode_prompt(PROMPT).ids
    assert exported_ids(asked, case.method == "full", tmp_path / "exported") == expected


@pytest.mark.parametrize("persons", ["tags", "speakers"])
@pytest.mark.parametrize("name", OTHERS)
def test_a_template(name: str, persons: Persons, tmp_path: Path) -> None:
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "[gMASK]", "<sop>", "<|system|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=twins.byte_level(special, begin="<s>"),
        bos_token="<s>",
        eos_token="</s>",
        chat_template=OTHERS[name],
    )
    asked = PromptTokenizer(tokenizer, "structured", 1024, persons)
    expected = asked.encode_prompt(PROMPT).ids
    assert exported_ids(asked, False, tmp_path) == expected


@pytest.mark.parametrize("template", ["llama32", "qwen3_thinking"])
def test_what_the_pipeline_tells_a_template_is_in_it(template: str, tmp_path: Path) -> None:
    """Today's date, and room for thoughts: a plain call would have them, and the model never saw them."""
    _, tokenizer = getattr(twins, template)()
    asked = PromptTokenizer(tokenizer, "structured", 1024)
    expected = asked.encode_prompt(PROMPT).ids
    plainly = prompt_ids(tokenizer, Conversation(asked, False).asked(PROMPT))
    assert plainly != expected
    assert exported_ids(asked, False, tmp_path) == expected
