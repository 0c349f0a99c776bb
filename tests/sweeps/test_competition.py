"""The competition's command: which models, at what cost, by which deadline; killed and resumed in a real repository."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from project import ROOT, Project, new_project
from ruamel.yaml import YAML
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from twins import qwen25, save_twin

from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS
from yoyak.modeling.spec import DType, ModelSpec
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import resolve
from yoyak.reporting import chance
from yoyak.sweeps import candidates, competition, copies, costs, halving, rates, recipe, run, search, sizes
from yoyak.sweeps.cli import main
from yoyak.sweeps.halving import LEVELS, Level
from yoyak.sweeps.lock import only_one
from yoyak.sweeps.options import Options
from yoyak.sweeps.rates import Rates, Span
from yoyak.sweeps.sizes import KNOWN
from yoyak.sweeps.true_size import SHAPES

THE_COMPETITION = costs.Rows(train=2500, dev=250, test=499, dialogue=284.5, summary=60.2)
ON_H200: dict[DType, float] = {"bf16": rates.MATRIX_RATES["NVIDIA H200"]}


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# Which models


def test_the_ensemble_alone_has_what_else_its_experiment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = YAML(typ="safe").load(recipe.LIST.read_text(encoding="utf-8"))
    content["experiments"][recipe.RECIPE].append("ensemble.members=[q15_a_tuned]")
    with (tmp_path / "final.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)
    monkeypatch.setattr(recipe, "LIST", tmp_path / "final.yaml")
    experiments = recipe.choose(None, None, has_gpu=True).experiments()["experiments"]
    having = [name for name, overrides in experiments.items() if "ensemble.members=[q15_a_tuned]" in overrides]
    assert having == [recipe.ENSEMBLE]


def test_where_all_are_tuned_what_is_not_is_no_member() -> None:
    listed = recipe.choose(None, None, has_gpu=True)
    assert f"ensemble.members=[{','.join(f'{name}_tuned' for name in listed.tuned)}]" in listed.last
    assert recipe.choose(None, [*listed.tuned], has_gpu=True) == listed
    assert recipe.choose(None, [*reversed(listed.tuned)], has_gpu=True) == listed
    for tune in ("none", listed.tuned[0]):
        assert recipe.choose(None, [tune], has_gpu=True).last == ("ensemble.members=null",)
    named = {names: recipe.choose([*names], None, has_gpu=True).last for names in (("qwen3_4b",), ("qwen3_4b", "kot5"))}
    assert named == {
        ("qwen3_4b",): ("ensemble.members=[qwen3_4b_tuned]",),
        ("qwen3_4b", "kot5"): ("ensemble.members=null",),
    }


def test_the_recipe_tunes_where_there_is_a_gpu() -> None:
    tuned, plain = (recipe.choose(None, None, has_gpu) for has_gpu in (True, False))
    assert tuned.tuned
    assert set(tuned.tuned) <= set(tuned.models)
    assert not tuned.told
    assert not plain.tuned
    assert plain.told.startswith("no GPU is used, and tuning needs one: ")
    for chosen in (tuned, plain):
        experiments = chosen.experiments()["experiments"]
        assert list(experiments) == [*chosen.models, recipe.ENSEMBLE]
        assert experiments[recipe.ENSEMBLE][0] == f"run.models=[{','.join(chosen.models)}]"


def test_adapters_of_families_that_tuning_knows_are_tuned_by_default() -> None:
    """All models of the card: not full fine-tunes, not fp16, and nothing that a 24 GB card has no room to tune."""
    eight = ["kobart", "kot5", "llama32_3b", "llama32_3b_fp16", "qwen3_4b", "qwen25_3b", "qwen25_7b", "llama3_8b"]
    assert recipe.choose(eight, None, has_gpu=True).tuned == ("llama32_3b", "qwen3_4b", "qwen25_3b")
    assert recipe.choose(eight, ["qwen25_7b"], has_gpu=True).tuned == ("qwen25_7b",)
    assert recipe.choose(eight, ["none"], has_gpu=True).tuned == ()
    assert ": llama32_3b, qwen3_4b, qwen25_3b not tuned" in recipe.choose(eight, None, has_gpu=False).told


@pytest.mark.parametrize(
    ("models", "tune", "says"),
    [
        (["qwen3_4b", "kobrt"], None, r"^MODELS: no model 'kobrt'; there are gemma3_270m, .*llama3_8b$"),
        (["kobart", "kobart"], None, "^MODELS: a model is named twice"),
        ([], None, "^MODELS: no model is named; there are gemma3_270m, "),
        (["kobart"], ["qwen3_4b"], r"^TUNE: qwen3_4b is not among the models, kobart$"),
        (["qwen3_4b"], ["qwen3_4b"], "^TUNE: tuning needs a GPU, and none is used; TUNE=none trains without it$"),
    ],
)
def test_names_that_cannot_be_chosen(models: list[str], tune: list[str] | None, says: str) -> None:
    with pytest.raises(UserError, match=says):
        recipe.choose(models, tune, has_gpu=False)


@pytest.mark.parametrize("hours", [-1, 0, float("nan"), float("inf")])
def test_a_deadline_is_a_number_above_0(hours: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^HOURS=\S+: a number above 0 is expected$"):
        search.search_and_submit(competition.Asked(tmp_path), hours)


@pytest.mark.parametrize("name", ["nowhere", "train.csv"])
def test_data_that_is_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    with pytest.raises(UserError, match=rf"/{name}: no such folder; name the one that train\.csv and dev\.csv are in$"):
        competition.write_data(tmp_path / name, None, tmp_path / "out")


@pytest.mark.parametrize("how", [(), ("--hours", "1")])
def test_a_number_of_gpus_that_cannot_be_is_told(
    how: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(competition, "WORK", tmp_path)
    monkeypatch.setattr(search, "WORK", tmp_path)
    monkeypatch.setattr("sys.argv", ["yoyak.sweeps", "competition", "data/sample", "--plan", "--per-gpu", "0", *how])
    with pytest.raises(SystemExit, match=r"^1$"):
        main()
    assert capsys.readouterr().err == "error: --per-gpu 0: at least 1\n"


# What it costs


def test_sizes_that_are_known_are_those_of_their_shapes(tmp_path: Path) -> None:
    params = read_params(PARAMS)
    for name, shape in SHAPES.items():
        config = AutoConfig.for_model(**shape)
        of_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        with torch.device("meta"):
            model = of_class.from_config(config)
        counted = sizes.of_shapes({key: list(weight.shape) for key, weight in model.named_parameters()})
        if name == "kot5":
            # The repository's last layer has weights of its own; transformers ties that of a T5 made anew.
            counted = counted._replace(embeddings=2 * counted.embeddings)
        known = KNOWN[params.models[name]["weights"]]
        assert known.family == shape["model_type"]
        assert known.size == pytest.approx(counted, rel=0.002)
        bytes_each = 4 if config.is_encoder_decoder else 2
        assert known.download_gb == pytest.approx(bytes_each * counted.parameters / 1e9, rel=0.005)


def test_a_size_on_disk_is_counted_and_its_family_read(tmp_path: Path) -> None:
    twin = save_twin(qwen25, tmp_path / "twin")
    model = AutoModelForCausalLM.from_pretrained(twin)
    size = sizes.size_of(ModelSpec(weights=str(twin), method="lora", dtype="bf16", prompt="structured"))
    assert size is not None
    embeddings = sum(weight.numel() for name, weight in model.named_parameters() if "embed" in name or "head" in name)
    vectors = sum(weight.numel() for weight in model.parameters() if weight.ndim == 1)
    assert (size.embeddings, size.parameters) == (embeddings, model.num_parameters() - vectors)
    adapted = get_peft_model(model, LoraConfig(r=3, target_modules="all-linear", task_type="CAUSAL_LM"))
    learned = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert 3 * size.per_rank == learned
    assert sizes.family_of(str(twin)) == "qwen2"


def test_a_size_is_known_once_the_weights_are_here(tmp_path: Path) -> None:
    spec = ModelSpec(weights=str(tmp_path / "twin"), method="lora", dtype="bf16", prompt="structured")
    assert sizes.size_of(spec) is None
    save_twin(qwen25, tmp_path / "twin")
    assert sizes.size_of(spec)


def test_a_trained_token_takes_four_operations_a_parameter_or_six() -> None:
    """Of a frozen base nothing but what goes through it has a gradient; counted by PyTorch on a shape of 8 layers."""
    config, _ = qwen25()
    config.update({"num_hidden_layers": 8, "vocab_size": 8, "layer_types": ["full_attention"] * 8})
    model = AutoModelForCausalLM.from_config(config)
    size = sizes.of_shapes({name: list(weight.shape) for name, weight in model.named_parameters()})
    ids = torch.zeros((2, 16), dtype=torch.long)
    params = read_params(PARAMS)
    full, lora = (resolve(params, name, pin=None).training for name in ("kobart", "qwen3_4b"))

    def counted(trained: Any) -> float:
        with FlopCounterMode(display=False) as counter:
            trained(input_ids=ids, labels=ids).loss.backward()
        return float(counter.get_total_flops() / ids.numel())

    assert counted(model) == pytest.approx(rates.training_operations(full, size), rel=0.1)
    adapted = get_peft_model(model, LoraConfig(r=1, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert counted(adapted) == pytest.approx(rates.training_operations(lora, size), rel=0.15)


def of_list(name: str) -> Params:
    """`params.yaml` as this experiment of the final list has it."""
    chosen = recipe.choose(None, None, has_gpu=name == recipe.RECIPE)
    params = recipe.params_with(chosen, list(chosen.models))
    return params.model_copy(update={"run": params.run.model_copy(update={"tuned": list(chosen.tuned)})})


def test_the_estimate_holds_what_known_runs_took() -> None:
    """The five models on an NVIDIA H200, two at once, took 756 s with their ensemble; a tuning 361 s."""
    samples, rest = rates.measured()
    known = Rates(samples, ON_H200, rest)
    steps = costs.plan(of_list(recipe.UNTUNED), THE_COMPETITION, known, set())
    spent = costs.total(steps, 2)
    assert spent.low < 756 < spent.high
    assert 0.6 < sum(spent) / 2 / 756 < 1.6
    fewer = replace(THE_COMPETITION, train=1994)
    tunings = [
        step for step in costs.plan(of_list(recipe.RECIPE), fewer, known, set()) if step.name.startswith("tune ")
    ]
    assert len(tunings) == len(of_list(recipe.RECIPE).run.tuned)
    assert all(step.seconds and step.seconds.low < 361 < step.seconds.high for step in tunings)


def test_what_is_done_costs_nothing() -> None:
    samples, rest = rates.measured()
    known, params = Rates(samples, ON_H200, rest), of_list(recipe.UNTUNED)
    first = params.run.models[0]
    stages = {f"train@{first}", f"infer@{first}"}
    before, after = (costs.plan(params, THE_COMPETITION, known, done) for done in (set(), stages))
    of_first = [step.name for step in before if step.name.endswith(first) and "weights" not in step.name]
    assert [step.name for step in after if step.note == "is done"] == of_first
    gone = [step for step in before if step.name in of_first]
    assert costs.total(before, 1).low - costs.total(gone, 1).low == pytest.approx(costs.total(after, 1).low)


def test_nothing_is_said_of_what_nobody_has_measured(tmp_path: Path) -> None:
    samples, rest = rates.measured(tmp_path)
    params = of_list(recipe.UNTUNED)
    steps = costs.plan(params, THE_COMPETITION, Rates((samples[0],), ON_H200, rest), set())
    assert costs.total(steps, 1) == Span(0, 0)
    assert len(costs.names_of(steps)) == 3 * len(params.run.models) + 1


def test_a_small_model_is_like_small_ones() -> None:
    samples = [rates.Sample(layers, "train", share) for layers, share in ((1e8, 0.02), (3e9, 0.1), (4e9, 0.2))]
    assert rates.alike(samples, 1.2e8) == [0.02]
    assert rates.alike(samples, 3.5e9) == [0.1, 0.2]
    assert rates.alike(samples, 1e12) == [0.2]


def test_the_matrix_rate_is_one() -> None:
    assert 1e8 < rates.matrix_rate("fp32") < 1e14


# Halving


@given(st.integers(1, 200))
def test_candidates_are_halved_down_to_the_finalists(count: int) -> None:
    left = count
    for number in range(halving.rounds(count), 0, -1):
        assert left > halving.FINALISTS
        left = halving.kept(left, number)
    assert left == min(count, halving.FINALISTS)


@given(
    st.lists(st.floats(1, 1e4), min_size=len(LEVELS), max_size=len(LEVELS)).map(sorted),
    st.floats(0, 2e4),
    st.sampled_from([None, *LEVELS]),
)
def test_a_round_sees_as_much_as_there_is_time_for(seconds: list[float], budget: float, above: Level | None) -> None:
    found = halving.level(list(seconds), budget, above)
    first = LEVELS.index(above) + 1 if above else 0
    if found is None:
        assert first == len(LEVELS) or seconds[first] > budget
        return
    at = LEVELS.index(found)
    assert at >= first
    assert seconds[at] <= budget
    assert at + 1 == len(LEVELS) or seconds[at + 1] > budget


def test_what_nobody_knows_the_time_of_begins_with_the_least() -> None:
    assert halving.level([None] * len(LEVELS), 1e9, None) == LEVELS[0]


def test_a_lead_is_told_with_what_is_chance() -> None:
    draw = np.random.default_rng(0)
    rows = draw.normal(40, 15, 500)
    scores = {"a": rows, "b": rows + draw.normal(0.2, 5, 500) + 0.3, "c": rows + 3}
    lead = halving.lead(scores)
    assert lead is not None
    assert (lead.best, lead.next) == ("c", "b")
    assert "may be chance" not in lead.told
    close = halving.lead({name: scores[name] for name in ("a", "b")})
    assert close is not None
    assert close.low < 0 < close.high
    assert close.told.endswith("]: may be chance")
    # The largest of 8 independent means with a standard error of 15 / sqrt(500) is 1.42 of these above theirs.
    equal = {str(name): draw.normal(40, 15, 500) for name in range(8)}
    assert chance.luck(equal) == pytest.approx(1.42 * 15 / 500**0.5, rel=0.15)


def test_a_candidate_differs_from_its_entry_by_its_setting() -> None:
    params, before = read_params(PARAMS), read_params(PARAMS)
    settings = {
        "same": {},
        "twice": {"learning_rate_times": 2},
        "rank16": {"lora": {"r": 16, "alpha": 32}},
        "bits16": {"quantization": {"load_in_4bit": False}},
    }
    found = candidates.entries(params, ["qwen3_4b", "kobart"], settings)
    # Rank 16 is what the entry has; a full fine-tune has neither a rank nor 4 bits.
    assert list(found) == ["qwen3_4b_same", "kobart_same", "qwen3_4b_twice", "kobart_twice", "qwen3_4b_bits16"]
    assert found["qwen3_4b_twice"]["training"]["learning_rate"] == pytest.approx(0.0004)
    assert found["kobart_twice"]["training"] == {"epochs": 20, "learning_rate": pytest.approx(0.0001)}
    assert params == before


@pytest.mark.parametrize(
    ("models", "settings", "says"),
    [
        (["qwen3_4b"], {"twice": {"learning_rate_times": "2"}}, "learning_rate_times: '2': a number above 0"),
        (["qwen3_4b"], {"none": {"learning_rate_times": 0}}, "learning_rate_times: 0: a number above 0"),
        (["kobart", "kot5"], {"rank8": {"lora": {"r": 8}}}, "settings: none is for kobart, kot5; `as_it_is: {}` is"),
    ],
)
def test_settings_that_cannot_be(models: list[str], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"^sweeps/search.yaml: {re.escape(says)}"):
        candidates.entries(read_params(PARAMS), models, settings)


def test_a_fault_of_the_list_is_told_in_a_search_too() -> None:
    wrong = replace(recipe.choose(None, None, has_gpu=True), set=("limits.gpu_gb=23",))
    with pytest.raises(UserError, match=r"^sweeps/final.yaml: Could not override 'limits.gpu_gb'"):
        recipe.params_with(wrong, ["q15_a"])


def test_without_a_search_the_recipe_is_trained() -> None:
    chosen, listed = recipe.choose(None, None, has_gpu=True), candidates.read_search()
    params = recipe.params_with(chosen, listed.models)
    found = candidates.entries(params, listed.models, listed.settings)
    first = list(found)[: halving.FINALISTS]
    both = params.model_copy(update={"models": {**params.models, **found}})
    trained = [[resolve(both, name, pin=None).training for name in names] for names in (first, chosen.models)]
    assert trained[0] == trained[1]


# Time, and what is left of a killed run


def test_a_trial_takes_what_its_stages_took() -> None:
    """Also where DVC's cache had them; what went on after a kill tells nothing."""

    def result(minutes: float, resumed_at_step: int) -> dict[str, Any]:
        infer = {"dev": {"seconds": 20}, "test": {"seconds": 2}}
        train = {"resumed_at_step": resumed_at_step, "seconds": 100}
        return {"minutes": minutes, "train": {"a": train}, "infer": {"a": infer}}

    assert search._seconds(result(3, 0), "a") == 180
    assert search._seconds(result(0.5, 0), "a") == 122
    assert search._seconds(result(3, 12), "a") is None


def test_what_is_out_of_time_is_killed_with_all_it_started(tmp_path: Path) -> None:
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); sys.stdin.read()"
    waits = f"{script.removesuffix('sys.stdin.read()')}import time; time.sleep(60)"
    assert not copies.python(["-c", waits], tmp_path / "log", {}, tmp_path, seconds=1)
    pid, told = (tmp_path / "log").read_text().splitlines()
    assert told == "killed: its time was up"
    status = Path(f"/proc/{pid}/status")
    assert not status.exists() or "zombie" in status.read_text()


def test_what_a_killed_run_has_left_at_work_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with only_one(tmp_path):
        left = subprocess.Popen(["sleep", "0.5"], close_fds=False)
    with only_one(tmp_path):
        assert left.poll() is not None or left.wait(0.1) == 0
    assert "is at work; waiting" in capsys.readouterr().out


@pytest.mark.parametrize("hours", [(), ("--hours", "1")], ids=["recipe", "search"])
def test_a_plan_beside_a_run_tells_who_is_at_work(
    hours: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would write what the run reads; and nobody is to wait hours for it."""
    monkeypatch.setattr(competition, "WORK", tmp_path)
    monkeypatch.setattr(search, "WORK", tmp_path)
    monkeypatch.setattr("sys.argv", ["yoyak.sweeps", "competition", "data/sample", "--plan", *hours])
    with only_one(tmp_path), pytest.raises(SystemExit, match=r"^1$"):
        main()
    said = f"error: {tmp_path}: another run (process {os.getpid()}) is at work, and its own first lines have its plan; "
    assert capsys.readouterr().err == f"{said}ask again when it has ended\n"
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


# The whole, shrunk

SHRUNK = "from yoyak.sweeps import halving; halving.FINALISTS = 1; halving.LEVELS[:] = halving.LEVELS[2:3]"
"""Of two candidates one is left, and a trial sees half of the rows of one fold."""
CALL = ("competition", "data/sample", "--models", "llama32_3b", "--hours", "1", "--gpus", "0")
AT_ONCE = ("--per-gpu", str(os.cpu_count()))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A twin, trained for six short epochs with either of two learning rates."""
    project = new_project(tmp_path / "project", {"train": 40, "dev": 6, "test": 4})
    (project.root / "sweeps").mkdir()
    shutil.copyfile(ROOT / recipe.LIST, project.root / recipe.LIST)
    with (project.root / candidates.SEARCH).open("w") as file:
        settings = {"as_it_is": {}, "twice_the_rate": {"learning_rate_times": 2}}
        YAML(typ="safe").dump({"models": ["q15_a"], "settings": settings}, file)
    twin = save_twin(qwen25, tmp_path / "twin")
    project.edit(lambda params: _shrink(params, twin))
    project.commit()
    return project


def _shrink(params: Any, twin: Path) -> None:
    params["training"].update(epochs=6, early_stopping_patience=6)
    params["generation"].update(max_new_tokens=12, candidates=2)
    params["limits"].update(free_gb=0.1, empty_percent=100)
    params["models"]["llama32_3b"].update(weights=str(twin), dtype="fp32")


def test_a_search_that_is_killed_goes_on_to_a_submission(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = project.root / search.WORK
    _kill_at_a_checkpoint(project, tmp_path / "log", work)
    head = project.run("git", "rev-parse", "HEAD").stdout.strip()
    for_another = f"refs/exps/{head[:2]}/{head[2:]}/llama32_3b_as_it_is-f0_50-s42"
    project.run("git", "update-ref", for_another, "HEAD")
    # As a kill while a trial is kept may leave it.
    for copy in work.glob("copies/llama*"):
        (copy / ".git").mkdir()
        (copy / ".git/index.lock").touch()
    said = _called(project, monkeypatch, capsys)
    # A submission with its checks.
    assert "submission/final.csv: written; used: " in said
    written = pd.read_csv(project.root / "submission/final.csv")
    assert list(written["fname"]) == list(pd.read_csv(project.root / "data/sample/test.csv")["fname"])
    assert json.loads((project.root / "submission/final.json").read_text())["made_by"]
    # One trial went on where it was; none saw dev.
    names = ["llama32_3b_as_it_is", "llama32_3b_twice_the_rate"]
    trials = {name: json.loads((work / f"search/{name}.f0_50.s42.json").read_text()) for name in names}
    records = [trial["train"][name] for name, trial in trials.items()]
    assert max(record["resumed_at_step"] for record in records) > 0
    dev = set(pd.read_csv(project.root / "data/sample/dev.csv")["fname"])
    for split in ("train", "dev"):
        assert not dev & set(pd.read_csv(work / f"data/f0_50/{split}.csv")["fname"])
    # The better one by held-out rows is the finalist.
    means = {name: np.mean(trial["rows"]["mbr"]) for name, trial in trials.items()}
    (kept,) = json.loads((work / "state.json").read_text())["rounds"][0]["kept"]
    assert means[kept] == max(means.values())
    assert f"finalists, on all of train: {kept}\n" in said
    assert re.search(r"leads llama32_3b_\w+ by \d\.\d\d \[-?\d\.\d\d, ", said) or len(set(means.values())) == 1
    # Trials are experiments of DVC, with their parameters, and without anybody's rows.
    shown = project.run("dvc", "exp", "show", "--csv", "--no-pager").stdout
    for name in names:
        assert re.search(rf"^{name}-f0_50-s42,.*\['{name}'\]", shown, re.MULTILINE)
        reference = f"refs/exps/*/*/{name}-f0_50-s42"
        (found,) = project.run("git", "for-each-ref", "--format=%(refname)", reference).stdout.split()
        files = project.run("git", "ls-tree", "-r", "--name-only", found).stdout.splitlines()
        assert "metrics/scores.json" in files
        assert for_another != found or project.run("git", "rev-parse", found).stdout.strip() != head
        assert not [file for file in files if file.startswith("data/raw/") and file.endswith(".csv")]


def test_where_no_finalist_is_done_in_time_a_trial_is_submitted(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_time(options: Options) -> set[str]:
        return run.run_list(replace(options, seconds=0) if options.out.name == "final" else options)

    monkeypatch.setattr(search, "run_list", without_time)
    said = _called(project, monkeypatch, capsys)
    (kept,) = json.loads((project.root / search.STATE).read_text())["rounds"][0]["kept"]
    assert f"no finalist was done in time: {kept} of round 1 is submitted\n" in said
    (copy,) = project.root.glob(f"{search.WORK}/copies/ensemble.*")
    trained = json.loads((copy / f"metrics/train/{kept}.json").read_text())
    assert (
        trained == json.loads((project.root / search.WORK / f"search/{kept}.f0_50.s42.json").read_text())["train"][kept]
    )
    written = pd.read_csv(project.root / competition.SUBMISSION)
    assert list(written["fname"]) == list(pd.read_csv(project.root / "data/sample/test.csv")["fname"])


def _called(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the shrunk search says, in this process."""
    monkeypatch.chdir(project.root)
    for key, value in project.environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(halving, "FINALISTS", 1)
    for module in (halving, search):
        monkeypatch.setattr(module, "LEVELS", LEVELS[2:3])
    monkeypatch.setattr("sys.argv", ["yoyak.sweeps", *CALL, *AT_ONCE])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    return capsys.readouterr().out


def _kill_at_a_checkpoint(project: Project, log: Path, work: Path) -> None:
    code = f"{SHRUNK}; import sys; sys.argv[1:] = {[*CALL, *AT_ONCE]}; from yoyak.sweeps.cli import main; main()"
    with log.open("w") as output:
        run = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=project.root,
            env=project.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        while not list(work.glob("copies/*/.cache/checkpoints/*/checkpoint-*/trainer_state.json")):
            assert run.poll() is None, log.read_text()
            time.sleep(0.01)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
