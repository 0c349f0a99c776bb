"""How likely a model finds given summaries: as it would by itself, one prompt and one summary at a time."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from inferences import config_of
from trainers import PROMPTS
from twins import Family, bart, gemma3, llama32, qwen3_next, qwen25, save_twin, t5

from yoyak.core.errors import UserError
from yoyak.core.records import Candidate, Prompt, Rescored
from yoyak.inference.generate import Asked, as_texts, within_memory
from yoyak.inference.loading import load_for_inference
from yoyak.modeling.loading import Loaded
from yoyak.rescoring import likelihood
from yoyak.rescoring.likelihood import rescore_rows

TEXTS = [
    ["두 사람이 이야기합니다.", "이야기", "#Person1#은 #Person2#에게 말합니다."],
    ["말합니다."],
    [],
    ["아", "이야기", "#Person2#의 2번째 이야기입니다. " * 4],
]
DIALOGUES = PROMPTS[: len(TEXTS)]


def alone(loaded: Loaded, prompt: Prompt, text: str) -> float:
    """The definition: transformers' own pass over one prompt and one summary."""
    model = loaded.model
    ids, answer = loaded.prompt_tokenizer.encode_prompt(prompt).ids, loaded.prompt_tokenizer.encode_summary(text)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            before = torch.tensor([[model.config.decoder_start_token_id, *answer[:-1]]])
            logits = model(input_ids=torch.tensor([ids]), decoder_input_ids=before).logits[0]
        else:
            logits = model(input_ids=torch.tensor([ids + answer[:-1]])).logits[0, len(ids) - 1 :]
    return float(logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum())


def twin_of(family: Family, folder: Path) -> Loaded:
    method = "full" if family in (bart, t5) else "lora"
    return load_for_inference(config_of(save_twin(family, folder / "twin"), method).model, None)


def values(rows: Sequence[Rescored]) -> list[float]:
    return [each.log_probability for row in rows for each in row.texts]


@pytest.mark.parametrize("family", [llama32, gemma3, qwen25, qwen3_next, bart, t5], ids=lambda family: family.__name__)
def test_a_summary_is_as_likely_as_by_itself(family: Family, tmp_path: Path) -> None:
    loaded = twin_of(family, tmp_path)
    attention = loaded.model.config._attn_implementation
    expected = [alone(loaded, prompt, text) for prompt, of_row in zip(DIALOGUES, TEXTS, strict=True) for text in of_row]
    found = rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", tmp_path / "dev.jsonl")
    assert loaded.model.config._attn_implementation == attention
    assert [row.fname for row in found] == [prompt.fname for prompt in DIALOGUES]
    assert [[each.text for each in row.texts] for row in found] == TEXTS
    assert values(found) == pytest.approx(expected, rel=1e-6)
    assert all(
        each.tokens == len(loaded.prompt_tokenizer.encode_summary(each.text)) for row in found for each in row.texts
    )


def test_a_greedy_summary_is_as_likely_as_its_search_said(tmp_path: Path) -> None:
    config = config_of(save_twin(gemma3, tmp_path / "twin"), search="greedy", candidates=1, max_new_tokens=20)
    loaded = load_for_inference(config.model, None)
    asked = [
        Asked(row, [loaded.prompt_tokenizer.encode_prompt(prompt).ids], "\n".join(prompt.turns))
        for row, prompt in enumerate(PROMPTS)
    ]

    def searched() -> list[tuple[int, list[int], Candidate]]:
        return [
            (each.row, found.ids[0], as_texts(loaded, found)[0])
            for group in within_memory(loaded, asked, config)
            for each, found in group
        ]

    # A twin never ends: here it does where it would have said its third word.
    head = loaded.model.get_output_embeddings().weight.data
    head[loaded.prompt_tokenizer.end_id] = 1.01 * head[searched()[0][1][2]]
    ended = [(row, ids, own) for row, ids, own in searched() if own.finished]
    texts = [[own.text] for _, _, own in ended]
    found = rescore_rows(loaded, [PROMPTS[row] for row, _, _ in ended], texts, "twin dev", tmp_path / "dev.jsonl")
    compared = [
        (row.texts[0].log_probability / row.texts[0].tokens, own.log_probability)
        for row, (_, ids, own) in zip(found, ended, strict=True)
        if loaded.prompt_tokenizer.encode_summary(own.text) == ids
    ]
    assert len(compared) > 1
    assert [again for again, _ in compared] == pytest.approx([own for _, own in compared], abs=1e-5)


def test_a_run_after_a_kill_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, partial = twin_of(llama32, tmp_path), tmp_path / "dev.jsonl"
    whole = rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", partial)
    lines = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    # Killed in the midst of the third row.
    partial.write_text("".join([*lines[:2], lines[2][:20]]), encoding="utf-8")
    done = {json.loads(line)["fname"] for line in lines[:2]}
    asked: list[str] = []
    parts = likelihood._parts

    def listened(each: likelihood.Asked) -> list[likelihood.Asked]:
        asked.append(DIALOGUES[each.row].fname)
        return parts(each)

    monkeypatch.setattr(likelihood, "_parts", listened)
    assert values(rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", partial)) == pytest.approx(values(whole), rel=1e-6)
    assert not done & set(asked)


@pytest.mark.parametrize("family", [llama32, bart], ids=lambda family: family.__name__)
def test_fewer_tokens_at_once_from_where_memory_runs_out(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = twin_of(family, tmp_path)
    expected = values(rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", tmp_path / "all.jsonl"))
    longest = max(
        len(loaded.prompt_tokenizer.encode_prompt(prompt).ids) + len(loaded.prompt_tokenizer.encode_summary(text))
        for prompt, of_row in zip(DIALOGUES, TEXTS, strict=True)
        for text in of_row
    )
    choose = likelihood._pass_of

    def bounded(most: int) -> Any:
        def choose_bounded(loaded: Loaded) -> likelihood.Pass:
            run = choose(loaded)

            def within(batch: Sequence[likelihood.Asked]) -> list[list[float]]:
                if sum(each.tokens for each in batch) > most:
                    raise MemoryError
                return run(batch)

            return within

        return choose_bounded

    monkeypatch.setattr(likelihood, "_pass_of", bounded(longest))
    found = values(rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", tmp_path / "few.jsonl"))
    assert found == pytest.approx(expected, rel=1e-6)
    assert "out of memory" in capsys.readouterr().out
    monkeypatch.setattr(likelihood, "_pass_of", bounded(longest - 1))
    with pytest.raises(UserError, match=r"a single dialogue and summary of \d+ tokens do not fit into the memory"):
        rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", tmp_path / "none.jsonl")


def test_many_summaries_are_parted_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = twin_of(llama32, tmp_path)
    texts = [[f"{number}번째 이야기입니다." * (1 + number % 3) for number in range(9)]]
    whole = values(rescore_rows(loaded, DIALOGUES[:1], texts, "twin dev", tmp_path / "all.jsonl"))
    monkeypatch.setattr(likelihood, "ANSWER_TOKENS", 20)
    parted = values(rescore_rows(loaded, DIALOGUES[:1], texts, "twin dev", tmp_path / "parted.jsonl"))
    assert parted == pytest.approx(whole, rel=1e-6)


def test_what_is_no_number_is_refused(tmp_path: Path) -> None:
    loaded = twin_of(llama32, tmp_path)
    loaded.model.get_output_embeddings().weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"twin dev, train_.: the model computes what is no number"):
        rescore_rows(loaded, DIALOGUES, TEXTS, "twin dev", tmp_path / "dev.jsonl")
