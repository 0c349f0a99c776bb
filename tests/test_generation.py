"""What is asked of a search is what predictions hold; a killed inference goes on where it was."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from project import Project
from trainers import PROMPTS
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from twins import bart, llama32, save_twin

from yoyak import generation, hf_decoding, weights
from yoyak.hf_decoding import of_answers
from yoyak.models import Loaded, load_for_inference
from yoyak.records import Prediction, read_json, read_records
from yoyak.search import GenerationJob, GenerationParams, likeliest, processors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_twin(llama32, tmp_path_factory.mktemp("llama") / "twin")


def job_of(folder: Path, method: str = "lora", **params: Any) -> GenerationJob:
    model = {"weights": str(folder), "pin": weights.pin(str(folder), "twin"), "method": method, "dtype": "fp32"}
    search = {"search": "sample", "candidates": 3, "max_new_tokens": 12, "batch_size": 5, **params}
    form = "structured" if method == "lora" else "dialogue"
    return GenerationJob.model_validate({"model": {**model, "prompt": form}, "generation": search})


def load(job: GenerationJob) -> Loaded:
    return load_for_inference(job.model, None)


def texts(predictions: list[Prediction]) -> list[list[str]]:
    return [[candidate.text for candidate in prediction.candidates] for prediction in predictions]


def test_the_same_parameters_give_the_same_candidates(folder: Path, tmp_path: Path) -> None:
    runs = []
    for number, changes in enumerate(({}, {}, {"seed": 1})):
        job = job_of(folder, **changes)
        runs.append(generation.generate(load(job), PROMPTS, job, "twin", tmp_path / str(number)).predictions)
    assert runs[0] == runs[1]
    assert texts(runs[0]) != texts(runs[2])
    for prediction in runs[0]:
        values = [candidate.log_probability for candidate in prediction.candidates]
        assert values == sorted(values, reverse=True)
        assert len(set(texts(runs[0])[0])) == 3


@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_other_models_go_through_transformers_to_the_same_greedy_summaries(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    job = job_of(folder, search=search, candidates=1 if search == "greedy" else 3)
    ours = generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "ours").predictions
    monkeypatch.setattr(generation, "has_plain_attention", lambda model: False)
    theirs = generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "theirs").predictions
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


@pytest.mark.parametrize(
    ("params", "so_far", "chosen"),
    [
        ({}, [5, 6, 5], 6),
        # 6 has been said: half of 3 is less than 2.
        ({"repetition_penalty": 2.0}, [5, 6, 5], 4),
        # "5 6" has been said.
        ({"no_repeat_ngram_size": 2}, [5, 6, 5], 4),
        ({"no_repeat_ngram_size": 2}, [6, 4, 5], 6),
    ],
)
@pytest.mark.parametrize("prompt", [[], [6, 6, 5, 6]])
def test_penalties_look_at_the_summary_alone(
    folder: Path, params: dict[str, Any], so_far: list[int], chosen: int, prompt: list[int]
) -> None:
    job = job_of(folder, search="greedy", candidates=1, **params)
    logits = torch.zeros(1, 1, 10)
    logits[..., 6], logits[..., 4] = 3.0, 2.0
    choose = generation.search.chooser(job.generation, [9], "cpu", 0)
    assert choose(logits, torch.tensor([[so_far]]), torch.arange(1)).item() == chosen
    scores = logits[0]
    for process in of_answers(processors(job.generation, [9]), len(prompt), None):
        scores = process(torch.tensor([prompt + so_far]), scores)
    assert scores.argmax() == chosen


def test_no_summary_ends_too_early(folder: Path) -> None:
    job = job_of(folder, search="greedy", candidates=1, min_new_tokens=4)
    chosen = generation.search.chooser(job.generation, [7, 8], "cpu", 0)
    logits = torch.zeros(2, 1, 10)
    logits[..., 7], logits[..., 8], logits[..., 3] = 3.0, 2.0, 1.0
    for steps in range(6):
        so_far = torch.zeros(2, 1, steps, dtype=torch.long)
        assert chosen(logits, so_far, torch.arange(2)).tolist() == [[3 if steps < 4 else 7]] * 2


def test_a_run_that_goes_on_writes_what_one_that_was_not_killed_writes(folder: Path, tmp_path: Path) -> None:
    job = job_of(folder)
    whole = generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "whole")
    first, *_, cut = (tmp_path / "whole/first.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed/first.jsonl").write_text(first + cut[: len(cut) // 2])
    resumed = generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "killed")
    assert (whole.done_before, resumed.done_before) == (0, 5)
    assert resumed.predictions == whole.predictions


def test_a_killed_inference_goes_on(project: Project) -> None:
    """Through the stage itself, with a model from scratch and beams."""
    project.edit(lambda params: params["models"]["bart_mini"]["generation"].update(batch_size=1))
    for stage in (["prepare_prompts"], ["train", "bart_mini"], ["infer", "bart_mini"]):
        project.stage(*stage)
    expected = [(project.root / f"predictions/bart_mini/{split}.jsonl").read_bytes() for split in ("dev", "test")]

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
    assert not list((project.root / ".cache/predictions").glob("*/"))
    assert read_records(project.root / "predictions/bart_mini/dev.jsonl", Prediction)


def test_more_likely_tokens_than_the_vocabulary_has_are_all(folder: Path, tmp_path: Path) -> None:
    job = job_of(folder, top_k=1_000_000)
    assert generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "kept").predictions


def test_an_encoder_decoder_samples_too(tmp_path: Path) -> None:
    job = job_of(save_twin(bart, tmp_path / "twin"), method="full")
    runs = [generation.generate(load(job), PROMPTS, job, "twin", tmp_path / name).predictions for name in "ab"]
    assert runs[0] == runs[1]
    assert [len(row.candidates) for row in runs[0]] == [3] * len(PROMPTS)


def test_diverse_groups_of_one_beam_are_greedy_with_a_penalty(folder: Path, tmp_path: Path) -> None:
    """Held to the paper's own order: at each step one group after the other."""
    params = {"search": "diverse_beam", "num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 0.3}
    job = job_of(folder, **params)
    loaded = load(job)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            weight.mul_(6 if "proj" in name else 1)
    prompts = [loaded.encoder.prompt(prompt).ids for prompt in PROMPTS[:4]]
    found = hf_decoding.decode(loaded, prompts, job, [loaded.encoder.end_id]).ids
    for prompt, answers in zip(prompts, found, strict=True):
        expected = diverse_greedy(loaded.model, prompt, loaded.encoder.end_id, groups=3, penalty=0.3, most=12)
        # The last one before the limit is not held against anybody.
        assert [answer[:11] for answer in answers] == [answer[:11] for answer in expected]
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
        generation.generate(load(job), PROMPTS, job, "twin", tmp_path / job.generation.search).predictions
        for job in (
            job_of(folder, search="diverse_beam", **diverse),
            job_of(folder, search="beam", num_beams=2, candidates=2),
        )
    ]
    for row, plain in zip(*map(texts, runs), strict=True):
        assert sorted(row) == sorted(plain * 2)


def test_as_many_diverse_candidates_as_are_asked_for(folder: Path, tmp_path: Path) -> None:
    """The best of each group before the second of any."""
    params = {"search": "diverse_beam", "num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 5.0}
    job = job_of(folder, candidates=3, **params)
    for row in generation.generate(load(job), PROMPTS, job, "twin", tmp_path).predictions:
        assert len({candidate.text for candidate in row.candidates}) == 3


def test_a_summary_with_a_fault_is_searched_for_again(folder: Path, tmp_path: Path) -> None:
    """This model never ends by itself, until it must not repeat itself."""
    job = job_of(folder, search="greedy", candidates=1, max_new_tokens=30, script_guard=False)
    loaded = load(job)
    end, other = loaded.encoder.end_id, loaded.tokenizer("요", add_special_tokens=False).input_ids[-1]
    liked = torch.zeros(loaded.model.config.vocab_size)
    # Its favourite token again and again; of the others the end comes next.
    liked[other], liked[end] = 1000.0, 990.0
    loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 0 + liked)
    generated = generation.generate(loaded, PROMPTS, job, "twin", tmp_path / "kept")
    assert generated.generated_again == len(PROMPTS)
    assert not generated.faults
    for row in generated.predictions:
        assert [candidate.finished for candidate in row.candidates] == [True]
        assert row.faults is None


def test_one_sound_candidate_is_enough(folder: Path, tmp_path: Path) -> None:
    job = job_of(folder, search="sample", candidates=6, max_new_tokens=3, script_guard=False)
    loaded = load(job)
    # As likely as all other tokens together.
    liked = torch.zeros(loaded.model.config.vocab_size)
    liked[loaded.encoder.end_id] = 7.0
    loaded.model.get_output_embeddings().register_forward_hook(lambda _, __, logits: logits * 0 + liked)
    generated = generation.generate(loaded, PROMPTS, job, "twin", tmp_path / "kept")
    sound = [[not generation.faults_of(one, "") for one in row.candidates] for row in generated.predictions]
    assert any(True in row and False in row for row in sound)
    assert all(row == sorted(row, reverse=True) for row in sound)
    assert generated.generated_again < len(PROMPTS)


def test_a_fault_that_stays_is_told(folder: Path, tmp_path: Path) -> None:
    job = job_of(folder, search="greedy", candidates=1, max_new_tokens=5)
    generated = generation.generate(load(job), PROMPTS, job, "twin", tmp_path / "kept")
    assert generated.faults["unfinished"] == generated.generated_again == len(PROMPTS)
    assert all(row.faults and "unfinished" in row.faults for row in generated.predictions)
    assert all(row.text == row.candidates[0].text for row in generated.predictions)
