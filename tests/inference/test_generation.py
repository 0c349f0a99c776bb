"""What is asked of a search is what predictions hold; a killed inference goes on where it was."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from inferences import WithoutTheHost, config_of, load
from project import Project
from trainers import PROMPTS
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from twins import bart, llama32, save_twin

from yoyak.core.errors import UserError
from yoyak.core.records import Prediction, read_json, read_records
from yoyak.inference import generate, hf_decoding
from yoyak.inference.generate import Asked
from yoyak.inference.params import GenerationParams
from yoyak.inference.sampling import drawn, likeliest, penalised
from yoyak.modeling import cuda_graphs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(llama32, tmp_path_factory.mktemp("llama") / "twin")


def texts(predictions: list[Prediction]) -> list[list[str]]:
    return [[candidate.text for candidate in prediction.candidates] for prediction in predictions]


def assert_same(ones: list[Prediction], others: list[Prediction]) -> None:
    """But for the last digits of log-probabilities, which depend on what stood beside a dialogue."""
    assert texts(ones) == texts(others)
    for one, other in zip(ones, others, strict=True):
        expected = [candidate.log_probability for candidate in other.candidates]
        assert [candidate.log_probability for candidate in one.candidates] == pytest.approx(expected, abs=1e-5)


def test_the_same_parameters_give_the_same_candidates(folder: Path, tmp_path: Path) -> None:
    runs = []
    for number, changes in enumerate(({}, {}, {"seed": 1})):
        config = config_of(folder, **changes)
        runs.append(generate.generate(load(config), PROMPTS, config, "twin", tmp_path / str(number)).predictions)
    assert runs[0] == runs[1]
    assert texts(runs[0]) != texts(runs[2])
    for prediction in runs[0]:
        values = [candidate.log_probability for candidate in prediction.candidates]
        assert values == sorted(values, reverse=True)
        assert len({candidate.text for candidate in prediction.candidates}) == 3


@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_other_models_go_through_transformers_to_the_same_greedy_summaries(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    config = config_of(folder, search=search, candidates=1 if search == "greedy" else 3)
    ours = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "ours").predictions
    monkeypatch.setattr(generate, "has_plain_attention", lambda model: False)
    theirs = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "theirs").predictions
    if search == "greedy":
        assert texts(ours) == texts(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert one.candidates[0].log_probability == pytest.approx(other.candidates[0].log_probability, abs=1e-4)
    else:
        assert [len(row.candidates) for row in theirs] == [3] * len(PROMPTS)


@given(
    st.lists(st.lists(st.floats(-8, 8, width=32), min_size=20, max_size=20), min_size=1, max_size=3),
    st.floats(0.2, 3),
    st.integers(1, 20),
    st.floats(0.05, 1),
)
def test_tokens_are_drawn_from_what_transformers_would_draw_from(
    rows: list[list[float]], temperature: float, top_k: int, top_p: float
) -> None:
    # Ties are cut by chance, by them and by us.
    scores = torch.tensor(rows) + torch.arange(20) * 1e-3
    params = GenerationParams(
        search="sample", max_new_tokens=1, batch_size=1, temperature=temperature, top_k=top_k, top_p=top_p
    )
    shares, tokens = likeliest(scores, params)
    ours = torch.zeros_like(scores).scatter(1, tokens, shares / shares.sum(-1, keepdim=True))
    warpers = [TemperatureLogitsWarper(temperature), TopKLogitsWarper(top_k)]
    theirs = LogitsProcessorList([*warpers, TopPLogitsWarper(top_p)] if top_p < 1 else warpers)
    expected = theirs(None, scores).softmax(-1)
    # What lies on the border of top_p to a rounding may fall to either side.
    if not (expected - ours).abs().max() < 1e-4:
        cumulated = (scores / temperature).topk(top_k).values.softmax(-1).cumsum(-1)
        assert (cumulated - top_p).abs().min() < 1e-5


TOKENS = st.lists(st.integers(0, 6), max_size=9)


@given(st.lists(TOKENS, min_size=1, max_size=3), st.sampled_from([1.0, 0.5, 1.7]), st.integers(0, 4), st.integers(0, 4))
def test_penalties_are_those_of_transformers(
    said: list[list[int]], repetition_penalty: float, no_repeat_ngram_size: int, min_new_tokens: int
) -> None:
    """Whose lines have all said as much: so line by line."""
    params = GenerationParams(
        search="greedy",
        max_new_tokens=9,
        batch_size=1,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        min_new_tokens=min_new_tokens,
    )
    scores = torch.linspace(-2, 2, 7).expand(len(said), -1)
    # What stands behind the last token must not matter.
    tokens = torch.tensor([line + [3] * (9 - len(line)) for line in said])
    ours = penalised(scores, tokens, torch.tensor([len(line) for line in said]), params, torch.tensor([4, 6]))
    for line, found in zip(said, ours, strict=True):
        theirs = LogitsProcessorList()
        if repetition_penalty != 1.0:
            theirs.append(RepetitionPenaltyLogitsProcessor(repetition_penalty))
        if no_repeat_ngram_size:
            theirs.append(NoRepeatNGramLogitsProcessor(no_repeat_ngram_size))
        theirs.append(MinNewTokensLengthLogitsProcessor(0, min_new_tokens, torch.tensor([4, 6])))
        ids = torch.tensor([line], dtype=torch.long)
        assert torch.equal(found, theirs(ids, scores[:1])[0])


@pytest.mark.parametrize(("search", "candidates"), [("greedy", 1), ("sample", 3)])
def test_a_step_can_be_recorded(
    folder: Path, search: str, candidates: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all penalties, as in the second search."""
    penalties = {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2, "min_new_tokens": 4}
    config = config_of(folder, search=search, candidates=candidates, **penalties)
    step, steps = cuda_graphs.GraphedStep.__call__, []

    def checked(recorded: cuda_graphs.GraphedStep, next_tokens: Callable[[], torch.Tensor]) -> torch.Tensor:
        steps.append(None)
        with WithoutTheHost():
            return step(recorded, next_tokens)

    monkeypatch.setattr(cuda_graphs.GraphedStep, "__call__", checked)
    generate.generate(load(config), PROMPTS[:3], config, "twin", tmp_path)
    assert len(steps) > 4


def test_what_the_dialogue_says_is_no_repetition(folder: Path, tmp_path: Path) -> None:
    """Nor in the penalties that `generate` of transformers is given."""
    config = config_of(folder, search="beam", num_beams=2, candidates=1, repetition_penalty=1.5, no_repeat_ngram_size=2)
    penalties = hf_decoding._penalties(config.generation, [9])
    (process,) = hf_decoding.for_candidates([penalties], 4, None)
    scores = torch.arange(10.0)[None]
    assert torch.equal(process(torch.tensor([[1, 2, 1, 2]]), scores), scores)
    assert process(torch.tensor([[1, 2, 1, 2, 5]]), scores)[0, 5] == pytest.approx(5 / 1.5)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_tokens_are_drawn_as_often_as_they_are_likely(seed: int) -> None:
    params = GenerationParams(search="sample", max_new_tokens=1, batch_size=1, temperature=1.3, top_k=4, top_p=0.95)
    scores = torch.randn(6, generator=torch.Generator().manual_seed(seed)) * 2
    shares, tokens = likeliest(scores[None], params)
    draws = (torch.arange(20_000) + 0.5) / 20_000
    found = drawn(scores.expand(len(draws), -1), draws, params).bincount(minlength=6) / len(draws)
    expected = torch.zeros(6).scatter(0, tokens[0], shares[0] / shares.sum())
    assert found == pytest.approx(expected, abs=1e-3)
    assert drawn(scores[None], torch.tensor([1 - 2**-24]), params) == tokens[0, shares[0] > 0][-1]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_where_none_is_left_out_all_tokens_are_drawn_as_often_as_they_are_likely(seed: int) -> None:
    """Without sorting them; never one that is forbidden, be the draw next to 1."""
    params = GenerationParams(search="sample", max_new_tokens=1, batch_size=1, temperature=0.7, top_k=0)
    scores = torch.randn(6, generator=torch.Generator().manual_seed(seed))
    scores[[2, 5]] = -torch.inf
    draws = (torch.arange(20_000) + 0.5) / 20_000
    found = drawn(scores.expand(len(draws), -1), draws, params).bincount(minlength=6) / len(draws)
    assert found == pytest.approx((scores / 0.7).softmax(-1), abs=1e-3)
    assert drawn(scores[None], torch.tensor([1 - 2**-24]), params) == 4


def test_a_run_that_goes_on_writes_what_one_that_was_not_killed_writes(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder)
    whole = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "whole")
    *lines, cut = (tmp_path / "whole/first.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == len(PROMPTS) - 1
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/first.jsonl").write_text("".join(lines[:5]) + cut[: len(cut) // 2])
    resumed = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "killed")
    assert (whole.done_before, resumed.done_before) == (0, 5)
    assert_same(resumed.predictions, whole.predictions)
    again = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "killed")
    assert again.done_before == len(PROMPTS)
    assert again.predictions == resumed.predictions


@pytest.mark.parametrize("looks_behind", [False, True])
def test_how_many_stand_together_changes_no_text(
    folder: Path, tmp_path: Path, looks_behind: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32; each dialogue has draws of its own. Nor does a host that sees a step's end when the next one runs."""
    monkeypatch.setattr(generate.decoding.Slots, "_looks_behind", looks_behind)
    runs = []
    for together in (1, 5, 100):
        config = config_of(folder, batch_size=together)
        runs.append(
            texts(generate.generate(load(config), PROMPTS, config, "twin", tmp_path / str(together)).predictions)
        )
    assert runs[0] == runs[1] == runs[2]


def _on_a_gpu() -> None:
    raise torch.cuda.OutOfMemoryError("out of memory")


def _on_the_cpu() -> None:
    torch.empty(2**50, dtype=torch.uint8)


@pytest.mark.parametrize(("run_out", "of"), [(_on_a_gpu, "GPU memory"), (_on_the_cpu, "memory")])
def test_half_as_many_where_memory_runs_out(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    run_out: Callable[[], None],
    of: str,
) -> None:
    """As if it were full once the third dialogue is done."""
    config = config_of(folder)
    expected = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "whole").predictions
    decode, sizes = generate.decoding.decode, []

    def scarce(model: Any, prompts: Any, together: int, request: Any) -> Any:
        sizes.append(together)
        for number, answers in enumerate(decode(model, prompts, together, request)):
            if together > 2 and number == 3:
                run_out()
            yield answers

    monkeypatch.setattr(generate.decoding, "decode", scarce)
    found = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "scarce").predictions
    assert sizes == [5, 2, *sizes[2:]]
    assert_same(found, expected)
    assert f"out of {of}: 2 dialogues together from here" in capsys.readouterr().out


def test_a_dialogue_that_never_fits_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(folder)
    for run_out, of in ((_on_a_gpu, "GPU memory"), (_on_the_cpu, "memory")):
        monkeypatch.setattr(generate.decoding, "decode", lambda *_, run_out=run_out: run_out())
        asked = [Asked(row, [[1, 2]], "") for row in range(3)]
        with pytest.raises(UserError, match=f"^a single dialogue does not fit into the {of}; lower generation"):
            list(generate.within_memory(load(config), asked, config))


def test_a_killed_inference_goes_on(project: Project) -> None:
    """Through the stage itself, with a model from scratch and beams."""
    project.edit(lambda params: params["models"]["bart_mini"]["generation"].update(batch_size=1))
    for stage in (["prepare_prompts"], ["train", "bart_mini"], ["infer", "bart_mini"]):
        project.stage(*stage)
    expected = [(project.root / f"predictions/bart_mini/{split}.jsonl").read_bytes() for split in ("dev", "test")]

    shutil.rmtree(project.root / ".cache/predictions")
    command = ["python", "stages/infer.py", "bart_mini"]
    running = subprocess.Popen(
        command, cwd=project.root, env=project.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not any(path.stat().st_size for path in (project.root / ".cache/predictions").glob("*/dev/first.jsonl")):
        assert running.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.wait()
    project.stage("infer", "bart_mini")

    assert read_json(project.root / "metrics/infer/bart_mini.json")["dev"]["resumed_at_row"] > 0
    again = [(project.root / f"predictions/bart_mini/{split}.jsonl").read_bytes() for split in ("dev", "test")]
    assert again == expected
    assert read_records(project.root / "predictions/bart_mini/dev.jsonl", Prediction)


def test_more_likely_tokens_than_the_vocabulary_has_are_all(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, top_k=1_000_000)
    assert generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "kept").predictions


def test_an_encoder_decoder_samples_too(tmp_path: Path) -> None:
    config = config_of(save_twin(bart, tmp_path / "twin"), method="full")
    runs = [generate.generate(load(config), PROMPTS, config, "twin", tmp_path / name).predictions for name in "ab"]
    assert runs[0] == runs[1]
    assert [len(row.candidates) for row in runs[0]] == [3] * len(PROMPTS)


def test_diverse_groups_of_one_beam_are_greedy_with_a_penalty(folder: Path, tmp_path: Path) -> None:
    """Held to the paper's own order: at each step one group after the other."""
    params = {"search": "diverse_beam", "num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 0.3}
    config = config_of(folder, **params)
    loaded = load(config)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            weight.mul_(6 if "proj" in name else 1)
    prompts = [loaded.prompt_tokenizer.encode_prompt(prompt).ids for prompt in PROMPTS[:4]]
    found = hf_decoding.decode([loaded], [prompts], config.generation)
    for prompt, row in zip(prompts, found, strict=True):
        expected = diverse_greedy(loaded.model, prompt, loaded.prompt_tokenizer.end_id, groups=3, penalty=0.3, most=12)
        # The last one before the limit is not held against anybody.
        assert [answer[:11] for answer in row.ids] == [answer[:11] for answer in expected]
        assert len(set(map(tuple, expected))) == 3


def diverse_greedy(
    model: Any, prompt: list[int], end_id: int, groups: int, penalty: float, most: int
) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(groups)]
    for step in range(most):
        for number, answer in enumerate(answers):
            if answer[-1:] == [end_id]:
                continue
            with torch.no_grad():
                scores = model(input_ids=torch.tensor([prompt + answer])).logits[0, -1].log_softmax(-1)
            for earlier in answers[:number]:
                if len(earlier) > step and earlier[step] != end_id:
                    scores[earlier[step]] -= penalty
            answer.append(int(scores.argmax()))
    return answers


def test_each_group_of_beams_is_a_beam_search(folder: Path, tmp_path: Path) -> None:
    """With next to no penalty."""
    diverse = {"num_beams": 4, "num_beam_groups": 2, "candidates": 4, "diversity_penalty": 1e-9}
    runs = [
        generate.generate(load(config), PROMPTS, config, "twin", tmp_path / config.generation.search).predictions
        for config in (
            config_of(folder, search="diverse_beam", **diverse),
            config_of(folder, search="beam", num_beams=2, candidates=2),
        )
    ]
    for row, plain in zip(*map(texts, runs), strict=True):
        assert sorted(row) == sorted(plain * 2)


def test_as_many_diverse_candidates_as_are_asked_for(folder: Path, tmp_path: Path) -> None:
    """The best of each group before the second of any."""
    params = {"search": "diverse_beam", "num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 5.0}
    config = config_of(folder, candidates=3, **params)
    for row in generate.generate(load(config), PROMPTS, config, "twin", tmp_path).predictions:
        assert len({candidate.text for candidate in row.candidates}) == 3


def test_a_summary_with_a_fault_is_searched_for_again(folder: Path, tmp_path: Path) -> None:
    """This model never ends by itself, until it must not repeat itself."""
    config = config_of(folder, search="greedy", candidates=1, max_new_tokens=30, script_guard=False)
    loaded = load(config)
    end, other = loaded.prompt_tokenizer.end_id, loaded.tokenizer("요", add_special_tokens=False).input_ids[-1]
    liked = torch.zeros(loaded.model.config.vocab_size)
    # Its favourite token again and again; of the others the end comes next.
    liked[other], liked[end] = 1000.0, 990.0
    loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 0 + liked)
    generated = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "kept")
    assert generated.generated_again == len(PROMPTS)
    assert not generated.faults
    for row in generated.predictions:
        assert [candidate.finished for candidate in row.candidates] == [True]
        assert row.faults is None


def test_one_sound_candidate_is_enough(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, search="sample", candidates=6, max_new_tokens=3, script_guard=False)
    loaded = load(config)
    # As likely as all other tokens together.
    liked = torch.zeros(loaded.model.config.vocab_size)
    liked[loaded.prompt_tokenizer.end_id] = 7.0
    loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 0 + liked)
    generated = generate.generate(loaded, PROMPTS, config, "twin", tmp_path / "kept")
    sound = [[not generate.faults_of(one, "") for one in row.candidates] for row in generated.predictions]
    assert any(True in row and False in row for row in sound)
    assert all(row == sorted(row, reverse=True) for row in sound)
    assert generated.generated_again < len(PROMPTS)


def test_a_second_search_is_never_freer_than_the_first(folder: Path) -> None:
    strict = config_of(
        folder, max_new_tokens=32, min_new_tokens=20, repetition_penalty=1.5, script_guard=False
    ).generation
    assert generate._less_freely(strict) == strict
    short = config_of(folder, max_new_tokens=3).generation
    again = generate._less_freely(short)
    assert (again.min_new_tokens, again.repetition_penalty) == (3, generate.REPETITION_PENALTY)
    assert GenerationParams.model_validate(again.model_dump()) == again


def test_a_baseline_is_searched_for_once(folder: Path, tmp_path: Path) -> None:
    """What untuned weights say is not repaired: the faults are told, and stay."""
    config = config_of(folder, search="greedy", candidates=1, max_new_tokens=5)
    generated = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "kept", repaired=False)
    assert generated.generated_again == 0
    assert generated.faults["truncated"] == len(PROMPTS)


def test_a_fault_that_stays_is_told(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, search="greedy", candidates=1, max_new_tokens=5)
    generated = generate.generate(load(config), PROMPTS, config, "twin", tmp_path / "kept")
    assert generated.faults["truncated"] == generated.generated_again == len(PROMPTS)
    assert all(row.faults and "truncated" in row.faults for row in generated.predictions)
    assert all(row.text == row.candidates[0].text for row in generated.predictions)
