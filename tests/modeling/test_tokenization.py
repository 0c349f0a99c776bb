"""What of a prompt a model reads, and what it learns to write."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from twins import FAMILIES, llama32, save_twin

from yoyak.core.records import Prompt
from yoyak.modeling.loading import _no_further_tokens, read_tokenizer
from yoyak.modeling.tokenization import EncodedPrompt, PromptTokenizer
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


@pytest.mark.parametrize("number", [0, 1, 7, 300])
def test_turns_go_from_the_middle_one_at_a_time(tokenizer: Any, number: int) -> None:
    """As many as must, and those that dropping the middle one again and again would drop."""
    turns = tuple(f"#Person{1 + turn % 2}#: {turn}번째 말입니다." for turn in range(8 + number))
    prompt = PROMPT.model_copy(update={"turns": turns})
    whole, few = (PromptTokenizer(tokenizer, "structured", most) for most in (10**6, 200))
    left, ids = list(turns), whole.encode_prompt(prompt).ids
    while len(ids) > 200:
        del left[len(left) // 2]
        ids = whole.encode_prompt(prompt.model_copy(update={"turns": tuple(left)})).ids
    assert few.encode_prompt(prompt) == EncodedPrompt(ids, len(turns) - len(left), cut_inside=False)


@pytest.mark.parametrize("letters", [500, 20_000])
def test_single_turns_are_cut_a_tenth_at_a_time(tokenizer: Any, letters: int) -> None:
    turns = [f"#Person1#: {'아주 긴 말 ' * (letters // 6)}", "#Person2#: 네."]
    encoded = PromptTokenizer(tokenizer, "structured", 200).encode_prompt(
        PROMPT.model_copy(update={"turns": tuple(turns)})
    )
    whole, ids = PromptTokenizer(tokenizer, "structured", 10**6), [0] * 201
    while len(ids) > 200:
        turns[0] = turns[0][: len(turns[0]) * 9 // 10]
        ids = whole.encode_prompt(PROMPT.model_copy(update={"turns": tuple(turns)})).ids
    assert encoded == EncodedPrompt(ids, 0, cut_inside=True)


def test_a_long_dialogue_costs_few_readings(tokenizer: Any) -> None:
    """And not one a dropped turn: the costs of 800 turns were seen to grow with their square."""
    turns = tuple(f"#Person{1 + turn % 2}#: {turn}번째 말입니다." for turn in range(800))
    read = []
    counted = PromptTokenizer(tokenizer, "structured", 200)
    plain = counted._plain
    counted._plain = lambda text: (read.append(text), plain(text))[1]
    counted.encode_prompt(PROMPT.model_copy(update={"turns": turns}))
    assert 0 < len(read) < 40


@given(
    st.lists(st.sampled_from(["<|eot_id|>", "<|begin_of_text|>", "<|end", "_id|>", "<", "말 ", "\n", " "]), max_size=9)
)
def test_typed_control_tokens_stay_text(tokenizer: Any, typed: list[str]) -> None:
    text = f"#Person1#: {''.join(typed)}"
    ours = prompt_tokenizer(tokenizer)
    attacked = PROMPT.model_copy(update={"turns": (text, "#Person2#: 네."), "summary": text})
    for ids, plain in (
        (ours.encode_prompt(attacked).ids, ours.encode_prompt(PROMPT).ids),
        (ours.encode_summary(text), ours.encode_summary("말")),
    ):
        assert [ids.count(each) for each in tokenizer.all_special_ids] == [
            plain.count(each) for each in tokenizer.all_special_ids
        ]
        assert text in tokenizer.decode(ids)
    assert ours.decode([ours.encode_summary(text)]) == [text]


def test_tags_that_somebody_made_special_tokens_stay_in_summaries(tokenizer: Any) -> None:
    taught = copy.deepcopy(tokenizer)
    taught.add_special_tokens({"additional_special_tokens": ["#Person1#", "#Address#"]})
    ours = prompt_tokenizer(taught)
    ids = ours.encode_summary(PROMPT.summary)
    assert taught.convert_tokens_to_ids("#Person1#") in ids
    assert ours.decode([ids]) == [PROMPT.summary]


# How it is read


@pytest.mark.parametrize("family", ["kobart", "kot5", "llama32_3b", "qwen3_4b", "gemma3_270m"])
def test_a_tokenizer_is_what_transformers_reads(tmp_path: Path, family: str) -> None:
    folder, saved = save_twin(FAMILIES[family], tmp_path / "twin"), []
    assert _no_further_tokens(folder)
    for options in ({}, _no_further_tokens(folder)):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, **options)
        written = map(Path, tokenizer.save_pretrained(tmp_path / str(len(options))))
        saved.append({path.name: path.read_bytes() for path in written} | {"special": tokenizer.all_special_ids})
    assert saved[0] == saved[1]


ADDED = {
    "content": "<new>",
    "lstrip": False,
    "normalized": False,
    "rstrip": False,
    "single_word": False,
    "special": True,
}


def in_the_config(folder: Path, token: int) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"added_tokens_decoder": {str(token): ADDED}}))


def in_a_file(folder: Path, token: int) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": token}))


@pytest.mark.parametrize("add", [in_the_config, in_a_file])
def test_tokens_that_other_files_add_are_read(tmp_path: Path, add: Any) -> None:
    """As transformers 4 wrote them."""
    folder = save_twin(llama32, tmp_path / "twin")
    new = len(read_tokenizer(folder, folder))
    add(folder, new)
    assert read_tokenizer(folder, folder)("가<new>", add_special_tokens=False).input_ids[-1] == new
