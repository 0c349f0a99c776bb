"""Averaged logits and weights: held to plain loops, and through the pipeline."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from project import Project
from safetensors.torch import load_file
from trainers import PROMPTS
from transformers import AutoModelForCausalLM, AutoTokenizer
from twins import Family, bart, gemma3, llama32, qwen3, save_twin, t5

from yoyak.core.errors import UserError
from yoyak.core.records import Prediction, Prompt, read_json, read_records
from yoyak.inference import generate, hf_decoding
from yoyak.inference.averaging import Averaged, assemble, mean_logits
from yoyak.inference.loading import load_for_inference, load_mean
from yoyak.inference.params import GenerationParams, OneModelConfig
from yoyak.modeling import weights
from yoyak.modeling.loading import Loaded, vocabulary_of
from yoyak.modeling.spec import ModelSpec

SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"candidates": 1},
    "beam": {"num_beams": 3, "candidates": 3},
    "diverse_beam": {"num_beams": 4, "num_beam_groups": 2, "candidates": 4},
    "sample": {"candidates": 3},
}
MOST = 10


def params_of(search: str, **changes: Any) -> GenerationParams:
    """No token twice: such models would say the same one again and again."""
    values = {"search": search, "max_new_tokens": MOST, "batch_size": 5, "no_repeat_ngram_size": 1}
    return GenerationParams.model_validate(values | SEARCHES[search] | changes)


def job_of(folder: Path, family: Family, params: GenerationParams) -> OneModelConfig:
    full = family in (bart, t5)
    model = {
        "weights": str(folder),
        "pin": weights.pin(str(folder), "twin"),
        "method": "full" if full else "lora",
        "dtype": "fp32",
        "prompt": "dialogue" if full else "structured",
    }
    return OneModelConfig.model_validate({"model": model, "generation": params.model_dump()})


def load(folder: Path, family: Family, seed: int) -> Loaded:
    """A twin with weights of its own, so large that the whole prompt matters, and not the last token alone."""
    save_twin(family, folder)
    loaded = load_for_inference(job_of(folder, family, params_of("greedy")).model, None)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if weight.ndim == 2 and not any(part in name for part in ("embed", "shared", "lm_head")):
                weight.add_(torch.randn_like(weight) * 0.2)
    return loaded


@pytest.fixture(params=[bart, t5, llama32, gemma3], scope="module")
def family(request: pytest.FixtureRequest) -> Family:
    chosen: Family = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(family.__name__)


@pytest.fixture(scope="module")
def two(family: Family, folder: Path) -> Averaged:
    members = {name: load(folder / name, family, seed) for seed, name in enumerate(("one", "other"))}
    average = assemble("both", members)
    assert isinstance(average, Averaged)
    return average


def encoded(member: Loaded, prompts: list[Prompt]) -> list[list[int]]:
    return [member.prompt_tokenizer.encode_prompt(prompt).ids for prompt in prompts]


# A model averaged with itself


@pytest.mark.parametrize("search", SEARCHES)
def test_with_itself_it_says_what_it_says_alone(
    two: Averaged, family: Family, folder: Path, tmp_path: Path, search: str
) -> None:
    one = two.members[0]
    config = job_of(folder / "one", family, params_of(search))
    said = [
        generate.generate(loaded, PROMPTS, config, "twin", tmp_path / str(number)).predictions
        for number, loaded in enumerate((one, Averaged((one, one))))
    ]
    assert len({row.text for row in said[0]}) > 3
    for alone, averaged in zip(*said, strict=True):
        assert [candidate.text for candidate in averaged.candidates] == [row.text for row in alone.candidates]
        expected = [candidate.log_probability for candidate in alone.candidates]
        assert [candidate.log_probability for candidate in averaged.candidates] == pytest.approx(expected, abs=1e-5)


# Two models, held to a loop without cache, batch or padding


def plainly(members: tuple[Loaded, ...], prompt: tuple[list[int], ...], answer: list[int]) -> torch.Tensor:
    """Log-probabilities of the next token after `answer`, under the mean of the members' logits."""
    logits = []
    for member, ids in zip(members, prompt, strict=True):
        config = member.model.config
        inputs = {"input_ids": torch.tensor([ids if config.is_encoder_decoder else ids + answer])}
        if config.is_encoder_decoder:
            inputs["decoder_input_ids"] = torch.tensor([[config.decoder_start_token_id, *answer]])
        with torch.no_grad():
            logits.append(member.model(**inputs).logits[0, -1])
    return ((logits[0] + logits[1]) / 2).log_softmax(-1)


def greedy_plainly(members: tuple[Loaded, ...], prompt: tuple[list[int], ...]) -> list[int]:
    answer: list[int] = []
    while len(answer) < MOST and not set(answer) & set(members[0].end_ids):
        following = plainly(members, prompt, answer)
        following[answer] = -torch.inf
        answer.append(int(following.argmax()))
    return answer


def beams_plainly(members: tuple[Loaded, ...], prompt: tuple[list[int], ...], width: int) -> list[list[int]]:
    """Best first; no answer may end before it is `MOST` long, so that all are of one length."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(MOST):
        longer = []
        for score, answer in beams:
            following = plainly(members, prompt, answer)
            following[members[0].end_ids + answer] = -torch.inf
            values, tokens = following.topk(width)
            longer += [
                (score + value, [*answer, token]) for value, token in zip(values.tolist(), tokens.tolist(), strict=True)
            ]
        beams = sorted(longer, reverse=True)[:width]
    return [answer for _, answer in beams]


def mean_log_probability(members: tuple[Loaded, ...], prompt: tuple[list[int], ...], answer: list[int]) -> float:
    values = [float(plainly(members, prompt, answer[:place])[token]) for place, token in enumerate(answer)]
    return sum(values) / len(values)


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_two_models_decide_by_the_mean_of_their_logits(two: Averaged, search: str) -> None:
    """Each reads a prompt of its own, here of another dialogue: so one that took the other's would show."""
    prompts = [encoded(two.members[0], PROMPTS[:5]), encoded(two.members[1], PROMPTS[5:10])]
    params = params_of(search, min_new_tokens=MOST if search == "beam" else 0)
    found = hf_decoding.decode(two.members, prompts, params)
    said = set()
    for row, *prompt in zip(found, *prompts, strict=True):
        pair = (prompt[0], prompt[1])
        width = SEARCHES[search].get("num_beams", 1)
        by_hand = beams_plainly(two.members, pair, width) if search == "beam" else [greedy_plainly(two.members, pair)]
        assert row.ids == by_hand
        expected = [mean_log_probability(two.members, pair, answer) for answer in by_hand]
        assert row.log_probabilities == pytest.approx(expected, abs=1e-4)
        said.update(map(tuple, by_hand))
    assert len(said) > 4
    # It is neither member's own.
    alone = [hf_decoding.decode(two.members[place : place + 1], [prompts[place]], params) for place in (0, 1)]
    assert [row.ids for row in found] not in [[row.ids for row in rows] for rows in alone]


def test_the_mean_is_of_the_tokens_that_all_models_have() -> None:
    one, other = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16), torch.tensor([[0.5, 0.25]])
    assert torch.equal(mean_logits([one, other]), torch.tensor([[0.75, 1.125]]))


@pytest.mark.parametrize("search", SEARCHES)
def test_members_of_different_width(tmp_path: Path, search: str) -> None:
    """Qwen's larger models have more embeddings than its smaller ones, for the same tokens."""

    def wider() -> Any:
        config, tokenizer = qwen3()
        config.vocab_size += 8
        return config, tokenizer

    average = assemble("both", {"one": load(tmp_path / "one", qwen3, 0), "other": load(tmp_path / "other", wider, 1)})
    widths = [vocabulary_of(member.model) for member in average.members]
    assert widths[1] == widths[0] + 8
    config = job_of(tmp_path / "one", qwen3, params_of(search))
    rows = generate.generate(average, PROMPTS[:3], config, "twin", tmp_path / "kept").predictions
    assert all(row.text for row in rows)


def test_different_tokenizers_are_refused(tmp_path: Path) -> None:
    members = {"one": load(tmp_path / "one", llama32, 0), "other": load(tmp_path / "other", qwen3, 0)}
    with pytest.raises(UserError, match=r"^models.both.members: one and other have different tokens, or end with"):
        assemble("both", members)


# The mean of weights


def adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **options))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def added(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight, by the formula."""
    config, factors = read_json(folder / "adapter_config.json"), load_file(folder / "adapter_model.safetensors")
    return {
        key.removeprefix("base_model.model.").replace("lora_A.", ""): factors[key.replace("lora_A", "lora_B")]
        @ factors[key]
        * (config["lora_alpha"] / config["r"])
        for key in factors
        if "lora_A" in key
    }


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("of", [llama32, gemma3])
def test_the_mean_of_weights_is_exact(dtypes_as_asked: None, of: Family, dtype: str, tmp_path: Path) -> None:
    """Of adapters of other ranks, scales and layers; in 16 bits each weight is rounded once."""
    base = save_twin(of, tmp_path / "base")
    folders = [
        adapter(base, tmp_path / "one", 1, r=4, lora_alpha=8, target_modules="all-linear"),
        adapter(base, tmp_path / "two", 2, r=6, lora_alpha=3, target_modules=["q_proj", "down_proj"]),
        adapter(base, tmp_path / "three", 3, r=2, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
    ]
    spec = job_of(base, of, params_of("greedy")).model.model_copy(update={"dtype": dtype})
    plain, means = load_for_inference(spec, None).model.state_dict(), load_mean(spec, folders).model.state_dict()
    changes = [added(folder) for folder in folders]
    assert plain.keys() == means.keys()
    assert len(changes[0]) == 14
    for key, weight in plain.items():
        change = torch.stack([each.get(key, torch.zeros(weight.shape)) for each in changes]).mean(0)
        assert change.any() == (key in changes[0])
        half_of_the_last_place = {"fp32": 1e-6, "bf16": 2**-8}[dtype] * 1.001
        torch.testing.assert_close(means[key].float(), weight.float() + change, rtol=half_of_the_last_place, atol=1e-7)


def test_the_mean_of_weights_is_of_adapters_on_the_same_base(tmp_path: Path) -> None:
    base = save_twin(llama32, tmp_path / "base")
    folders = [adapter(base, tmp_path / name, 1, r=2, target_modules=["q_proj"]) for name in ("one", "two")]
    config = read_json(folders[1] / "adapter_config.json") | {"revision": "another"}
    (folders[1] / "adapter_config.json").write_text(json.dumps(config))
    spec: ModelSpec = job_of(base, llama32, params_of("greedy")).model
    with pytest.raises(UserError, match="two: these adapters were trained on other base weights"):
        load_mean(spec, folders)


# Through the stages

TWO_LLAMAS = ["llama32_3b", "llama_b"]


@pytest.fixture(scope="module")
def averaged(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With a further model of the same base, and the average of both."""
    project = reproduced.copy(tmp_path_factory.mktemp("averaged") / "project")

    def change(params: Any) -> None:
        models = params["models"]
        models["llama_b"] = {**models["llama32_3b"], "training": {"learning_rate": 0.01}}
        beams = {"search": "beam", "num_beams": 2, "candidates": 2}
        models["llama_avg"] = {"members": TWO_LLAMAS, "generation": beams}
        params["run"].update(models=[*TWO_LLAMAS, "bart_mini"], averaged=["llama_avg"])

    project.edit(change)
    # From so few rows no summary is one that could be submitted.
    project.run("dvc", "repro", "ensemble")
    project.commit("an average")
    return project


def test_an_average_is_scored_and_ensembled_like_any_model(averaged: Project) -> None:
    for split in ("dev", "test"):
        prompts = read_records(averaged.root / f"data/prompts/{split}.jsonl", Prompt)
        rows = read_records(averaged.root / f"predictions/llama_avg/{split}.jsonl", Prediction)
        assert [row.fname for row in rows] == [row.fname for row in prompts]
        assert {len(row.candidates) for row in rows} == {2}
    assert "llama_avg" in read_json(averaged.root / "metrics/scores.json")["models"]
    report = read_json(averaged.root / "metrics/ensemble.json")
    assert report["members"] == [*TWO_LLAMAS, "bart_mini", "llama_avg"]
    assert read_json(averaged.root / "metrics/infer/llama_avg.json")["dev"]["rows"] == 4
    assert "llama_avg" in averaged.run("yoyak", "leaderboard").stdout
    assert not (averaged.root / "models/llama_avg").exists()
    averaged.run("yoyak", "report")
    assert "llama_avg" in (averaged.root / "report.html").read_text()


def test_it_is_asked_like_any_model(averaged: Project) -> None:
    printed = averaged.run("yoyak", "summarize", "data/sample/test.csv", "--model", "llama_avg").stdout
    said = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    expected = read_records(averaged.root / "predictions/llama_avg/test.jsonl", Prediction)
    assert [(row["fname"], row["summary"]) for row in said] == [(row.fname, row.text) for row in expected]


def running(output: str) -> set[str]:
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_another_model_s_training_does_not_run_it_again(averaged: Project, tmp_path: Path) -> None:
    project = averaged.copy(tmp_path / "project")
    assert running(project.run("dvc", "repro", "ensemble").stdout) == set()
    project.edit(lambda params: params["models"]["bart_mini"]["training"].update(learning_rate=0.003))
    ran = running(project.run("dvc", "repro", "infer_averaged@llama_avg").stdout)
    assert ran == {"prepare_prompts", "train@bart_mini", "members@llama_avg"}
    project.edit(lambda params: params["models"]["llama_b"]["training"].update(learning_rate=0.02))
    assert running(project.run("dvc", "repro", "infer_averaged@llama_avg").stdout) == {
        "prepare_prompts",
        "train@llama_b",
        "members@llama_avg",
        "infer_averaged@llama_avg",
    }


def test_a_clone_has_nothing_to_run(averaged: Project, tmp_path: Path) -> None:
    """Where a model has left the run, too: the average's members are told from a folder of all."""
    project = averaged.copy(tmp_path / "project")
    project.edit(lambda params: params["run"].update(models=TWO_LLAMAS))
    assert "infer_averaged@llama_avg" not in running(project.run("dvc", "repro", "ensemble").stdout)
    project.commit("without bart_mini")
    clone = project.clone(tmp_path / "clone")
    planned = clone.run("dvc", "repro", "--dry", "--allow-missing", "ensemble").stdout
    assert "Running stage" not in planned
