"""No letters that a dialogue lacks, and all that it has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from inferences import config_of, load
from trainers import PROMPTS
from twins import FAMILIES, gemma3, save_twin

from yoyak.evaluation.faults import diagnose
from yoyak.inference import generate
from yoyak.inference.partial import read_partial
from yoyak.inference.script_guard import ScriptGuard, _bits, _script, _token_texts, scripts_of_token

DIALOGUE = "#Person1#: Jimmy가 UFO를 봤대. 3시 ㅋㅋ\n#Person2#: #Email# 로 보내 줘! 🙂"


@pytest.fixture(params=["kobart", "kot5", "llama32_3b", "qwen3_4b", "gemma3_270m"], scope="module")
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return FAMILIES[request.param]()[1]


def allowed(tokenizer: Any, text: str, dialogue: str = DIALOGUE) -> bool:
    guard = ScriptGuard(tokenizer, [tokenizer.eos_token_id], len(tokenizer) + 16, "cpu")
    ids = tokenizer(text, add_special_tokens=False).input_ids
    # What a tokenizer does not know, it does not write.
    known = [token for token in ids if token != tokenizer.unk_token_id]
    return not guard.forbidden(["", dialogue])[1, known].any()


@pytest.mark.parametrize(
    "text",
    [
        "Jimmy",
        " Jimmy",
        "JIMMY",
        "jimmy",
        "UFO",
        "#Person1#",
        " #Person2#",
        "#Email#",
        "지미는 3시에, 비행접시를 봤다!",
    ],
)
def test_what_the_dialogue_has_passes(tokenizer: Any, text: str) -> None:
    assert allowed(tokenizer, text)


@pytest.mark.parametrize("text", ["especialmente", " hello", "привет", "สวัสดี", "مرحبا", "こんにちは", "日本語", "ὦ"])
def test_what_it_lacks_does_not(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if tokenizer.unk_token_id in ids:
        pytest.skip("this tokenizer cannot write it")
    assert not allowed(tokenizer, text)
    assert allowed(tokenizer, text.strip(), dialogue=f"#Person1#: {text}")


def test_the_end_is_never_forbidden(tokenizer: Any) -> None:
    guard = ScriptGuard(tokenizer, [tokenizer.eos_token_id], len(tokenizer), "cpu")
    forbidden = guard.forbidden([""])[0]
    assert not forbidden[tokenizer.eos_token_id]
    assert 0 < forbidden.sum() < len(tokenizer)


def test_all_tokens_at_once_are_as_each_by_itself(tokenizer: Any) -> None:
    vocabulary, ends = len(tokenizer) + 16, [tokenizer.eos_token_id]
    guard = ScriptGuard(tokenizer, ends, vocabulary, "cpu")
    whole, begun = torch.zeros_like(guard._whole), torch.zeros_like(guard._begun)
    for token, text in _token_texts(tokenizer, vocabulary, ends):
        whole[token], begun[token] = map(_bits, scripts_of_token(text))
    assert whole.any()
    assert torch.equal(guard._whole, whole)
    assert torch.equal(guard._begun, begun)


def test_a_turn_that_ends_in_latin_letters_ends() -> None:
    """Gemma's `<end_of_turn>` is no special token to its tokenizer."""
    tokenizer = gemma3()[1]
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert not ScriptGuard(tokenizer, [end], len(tokenizer), "cpu").forbidden([""])[0, end]


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1), st.integers(1, 3))
def test_no_part_of_hangul_is_foreign(text: str, cut: int) -> None:
    assert scripts_of_token(text.encode()[:-cut]) == (set(), set())
    assert scripts_of_token(text.encode()[cut:]) == (set(), set())


@pytest.mark.parametrize(
    ("character", "script"), [("가", None), ("ㅋ", None), ("ア", "KANA"), ("漢", "HAN"), ("é", "LATIN")]
)
def test_scripts_of_letters(character: str, script: str | None) -> None:
    assert _script(character) == script
    assert scripts_of_token(character.encode()) == ({script} if script else set(), set())


def test_letters_that_are_begun_count() -> None:
    assert scripts_of_token("한".encode() + "я".encode()[:1]) == (set(), {"CYRILLIC"})
    assert scripts_of_token("語".encode()[:2]) == (set(), {"HAN"})
    assert {"KANA", "HAN"} <= scripts_of_token("ア".encode()[:1])[1]
    # Emoji, and Korean syllables, too, begin so.
    assert scripts_of_token("🙂".encode()[:2]) == scripts_of_token("가".encode()[:1]) == (set(), set())


@pytest.mark.parametrize("family", ["llama32_3b", "gemma3_270m"])
@pytest.mark.parametrize("search", [{"search": "sample"}, {"search": "beam", "num_beams": 3, "candidates": 3}])
def test_no_candidate_has_foreign_words(tmp_path: Path, family: str, search: dict[str, Any]) -> None:
    config, tokenizer = FAMILIES[family]()
    folder = save_twin(lambda: (config, tokenizer), tmp_path / "twin")
    # Beams of a model with random weights are too alike to come upon a foreign word: this one likes them.
    guard = ScriptGuard(tokenizer, [tokenizer.eos_token_id], config.vocab_size, "cpu")
    likes = guard.forbidden(["\n".join(PROMPTS[0].turns)])[0]
    foreign = {}
    for guarded in (True, False):
        config = config_of(folder, script_guard=guarded, temperature=3.0, top_k=0, **search)
        loaded = load(config)
        loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits + 5 * likes)
        generate.generate(loaded, PROMPTS, config, "twin", tmp_path / str(guarded))
        # Of the first search: the second has the guard in any case.
        found = read_partial(tmp_path / str(guarded) / "first.jsonl")
        foreign[guarded] = [
            diagnose(candidate.text, "\n".join(prompt.turns)).foreign_script
            for row, prompt in enumerate(PROMPTS)
            for candidate in found[row]
        ]
    assert not any(foreign[True])
    assert any(foreign[False])


def test_each_row_has_its_own_words() -> None:
    tokenizer = FAMILIES["qwen3_4b"]()[1]
    guard = ScriptGuard(tokenizer, [tokenizer.eos_token_id], len(tokenizer), "cpu")
    both = guard.forbidden(["#Person1#: Jimmy", "#Person1#: 안녕"])
    alone = [guard.forbidden([text])[0] for text in ("#Person1#: Jimmy", "#Person1#: 안녕")]
    assert torch.equal(both, torch.stack(alone))
    assert not torch.equal(both[0], both[1])
