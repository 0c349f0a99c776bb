"""What of a prompt a model reads, and what it learns to write."""

from typing import Any

import pytest
from transformers import AutoTokenizer
from twins import llama32, save_twin

from yoyak.core.records import Prompt
from yoyak.modeling.tokenization import PromptTokenizer
from yoyak.training.rows import IGNORED, causal_rows

PROMPT = Prompt(
    fname="dev_0",
    system="당신은 비서입니다.",
    turns=("#Person1#: #Person2#는 어디 있어요?", "#Person12#: #Address#에요."),
    question="위 대화를 요약해주세요.",
    summary="#Person1#은 #Person12#에게 #Person2#가 #Address#에 있다고 들었다.",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("twin") / "llama32_3b"
    save_twin(llama32, folder)
    return AutoTokenizer.from_pretrained(folder)


def prompt_tokenizer(tokenizer: Any, **options: Any) -> PromptTokenizer:
    return PromptTokenizer(tokenizer, "structured", 1024, **options)


def test_persons_as_speakers_come_back_as_tags(tokenizer: Any) -> None:
    speaking = prompt_tokenizer(tokenizer, persons="speakers")
    read, written = (
        tokenizer.decode(ids) for ids in (speaking.encode_prompt(PROMPT).ids, speaking.encode_summary(PROMPT.summary))
    )
    assert "화자1: 화자2는 어디 있어요?\n화자12: #Address#에요." in read
    assert written.startswith("화자1은 화자12에게 화자2가 #Address#에")
    assert "Person" not in read + written
    assert speaking.decode([speaking.encode_summary(PROMPT.summary)]) == [PROMPT.summary]


def test_persons_as_tags_are_left_alone(tokenizer: Any) -> None:
    plain = prompt_tokenizer(tokenizer)
    assert "#Person1#: #Person2#는" in tokenizer.decode(plain.encode_prompt(PROMPT).ids)
    assert plain.decode([plain.encode_summary("화자1은 #Person1#이다.")]) == ["화자1은 #Person1#이다."]


def test_loss_on_the_summary_or_on_all(tokenizer: Any) -> None:
    rows = {
        loss_on: causal_rows([PROMPT], prompt_tokenizer(tokenizer), loss_on).rows[0] for loss_on in ("summary", "text")
    }
    assert rows["summary"]["input_ids"] == rows["text"]["input_ids"] == rows["text"]["labels"]
    answer = prompt_tokenizer(tokenizer).encode_summary(PROMPT.summary)
    prompt = len(rows["text"]["labels"]) - len(answer)
    assert rows["summary"]["labels"] == [IGNORED] * prompt + answer
