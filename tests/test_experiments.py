"""Experiments side by side: what is shared is done once, what fails is told, the document says what was measured."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from project import ROOT
from ruamel.yaml import YAML
from twins import qwen25, save_twin

from yoyak.dialogues import turns
from yoyak.errors import UserError

sys.path.append(str(ROOT / "experiments"))

import copies
import document
import final
import fold_data
import plan

LISTS = sorted((ROOT / "experiments").glob("*.yaml"))
FEW: dict[str, Any] = {
    "set": ["run.models=[twin]", "run.untuned=[]", "training.epochs=1", "generation.max_new_tokens=24"],
    "data": ["few"],
    "experiments": {
        "base": ["generation.candidates=2"],
        "more": ["generation.candidates=3"],
        # 64 tokens hold no dialogue of the sample.
        "fails": ["+models.twin.max_prompt_tokens=64"],
    },
}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of a few rows."""
    folder = tmp_path_factory.mktemp("data")
    table = pd.read_csv(ROOT / "data/sample/train.csv", dtype=str, keep_default_na=False)
    fold_data.write(folder / "few", table.head(8), table.iloc[8:12])
    return folder


def run_list(tmp_path: Path, data: Path, content: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "list.yaml"
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)
    folders = ["--data", data, "--out", tmp_path / "out", "--work", tmp_path / "work"]
    command = [sys.executable, "experiments/run.py", path, *folders, "--gpus", "0", *more]
    return subprocess.run([*map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    tmp_path = tmp_path_factory.mktemp("experiments")
    save_twin(qwen25, tmp_path / "twin")
    limits = {"free_gb": 0.1, "empty_percent": 100}
    entry = {"weights": str(tmp_path / "twin"), "method": "lora", "dtype": "fp32", "prompt": "structured"}
    content = FEW | {"params": {"limits": limits, "models": {"twin": entry}}}
    return tmp_path, run_list(tmp_path, sample, content, "--per-gpu", "2", "--commit", "abc")


Ran = tuple[Path, subprocess.CompletedProcess[str]]


def test_one_that_fails_is_told_and_the_rest_go_on(ran: Ran) -> None:
    tmp_path, done = ran
    assert done.returncode == 1, done.stderr
    assert "2 done, 1 failed, 0 left" in done.stdout
    assert re.search(r"fails\.few\.s42: failed .*\n(.*\n)*.*nothing of it fits into 64 tokens", done.stdout)
    assert {path.name for path in (tmp_path / "out").glob("*.json")} == {"base.few.s42.json", "more.few.s42.json"}


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


def test_what_is_there_is_not_run_again(ran: Ran, sample: Path) -> None:
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    content["experiments"].pop("fails")
    done = run_list(ran[0], sample, content)
    assert (done.returncode, "0 of 2 experiments to run" in done.stdout) == (0, True), done.stdout + done.stderr


def test_a_fault_in_one_is_told_before_any_runs(ran: Ran, sample: Path, tmp_path: Path) -> None:
    content = YAML(typ="safe").load((ran[0] / "list.yaml").read_text())
    content["experiments"]["fails"] = ["lora.rank=3"]
    done = run_list(tmp_path, sample, content)
    assert done.returncode == 1
    assert "fails: " in done.stderr
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
    text = document.document(tmp_path)
    assert "| base | lr 0.0002, 1 epochs, 8 rows a step; r 16, alpha 32, dropout 0.05; NF4 base; " in text
    mean = sum(results["more"]["rows"]["twin"]) / 4
    assert re.search(rf"\| more \| .* \| few \| {mean:.2f} \|", text)
    assert re.search(r"\| more \| .*`generation.candidates=3` \| the base \| \+?[\d.−]+ \|", text)
    assert "## True sizes" not in text


def test_the_document_is_of_the_results_that_are_committed() -> None:
    assert document.DOCUMENT.read_text(encoding="utf-8") == document.document(document.RESULTS)


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
    assert {name for name in waiting if plan.may_start(name, needs, done, failed)} == starts


@pytest.mark.parametrize("path", [path for path in LISTS if path.name != "anchors.yaml"], ids=lambda path: path.stem)
def test_each_list_is_of_parameters_that_are_there(path: Path, sample: Path, tmp_path: Path) -> None:
    listed = plan.read_list(path)
    runs = plan.runs(listed)
    assert len({run.name for run in runs}) == len(runs)
    for run in {run.experiment: run for run in runs}.values():
        copies.make(tmp_path / "copy", tmp_path / "cache", sample / "few", listed.params, list(run.overrides))
        assert plan.work(tmp_path / "copy", run.data)


def test_the_final_models_have_experiments_of_their_own() -> None:
    listed = plan.read_list(final.LIST)
    (run,) = [run for run in plan.runs(listed) if run.experiment == final.ENSEMBLE]
    for name in final.members(run):
        (own,) = [run for run in plan.runs(listed) if run.experiment == name]
        assert final.members(own) == [name]


def test_each_row_of_train_is_held_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fold_data.py", str(ROOT / "data/sample"), str(tmp_path), "--parts", "3"])
    fold_data.main()
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


def test_an_unknown_key_of_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("data: [f0]\nexperiments: {a: {sets: [lora.r=3]}}\n")
    with pytest.raises(UserError, match=r"list\.yaml: experiments\.a\.sets: unknown key; did you mean 'set'"):
        plan.read_list(tmp_path / "list.yaml")
