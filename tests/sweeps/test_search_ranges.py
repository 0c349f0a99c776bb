"""A search in ranges: what may be drawn, what a kill costs, which trials stop, and what is told of them."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from dvc.utils.hydra import apply_overrides
from hypothesis import given
from hypothesis import strategies as st
from project import ROOT, Project, new_project
from ruamel.yaml import YAML
from twins import qwen25, save_twin
from virtual_environment import virtual_environment

from yoyak.core.errors import UserError
from yoyak.core.params import check
from yoyak.sweeps import ranges
from yoyak.sweeps.experiments import ExperimentList, read_list
from yoyak.sweeps.ranges import Range, Value

# Behind the environment's own packages; `make .cache/optuna/ready` brings it.
sys.path.append(str(ROOT / ".cache/optuna"))

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from yoyak.sweeps import check as check_of_runs
from yoyak.sweeps import data_folder, run, study, study_report, trials
from yoyak.sweeps.options import Options
from yoyak.sweeps.study_report import Climb

OPTUNA = ROOT / ".cache/optuna"
RAY = ROOT / ".cache/ray"
YOYAK = ("-c", "from yoyak.cli import main; main()")
SEARCHED: dict[str, Any] = {
    "training.learning_rate": {"log": [1e-4, 1e-1]},
    "lora.dropout": {"uniform": [0, 0.1]},
    "+models.llama32_3b.persons": {"choice": ["tags", "speakers"]},
    "generation.candidates": {"int": [1, 3]},
}
LIST: dict[str, Any] = {"data": ["sample"], "rungs": [0.5, 1.0], "search": SEARCHED}
TRIALS = 3
SEED = 1
"""By which the first trial is of values that cannot be together."""


# Ranges

numbers = st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t\"'\\$={}[],:#"), max_size=12)
values = st.none() | st.booleans() | numbers | texts.filter(lambda text: "${" not in text)


@given(value=values)
def test_what_is_drawn_is_what_the_parameter_becomes(value: Value, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "params.yaml"
    path.write_text("lora:\n  r: 16\n")
    (override,) = ranges.overrides({"lora.r": value})
    apply_overrides(path, [override])
    found = YAML(typ="safe").load(path.read_text())["lora"]["r"]
    assert (found, type(found)) == (value, type(value))


@given(low=numbers, high=numbers, kind=st.sampled_from(["uniform", "log", "int"]))
def test_a_range_grows_and_a_logarithm_has_numbers_above_0(low: float, high: float, kind: str) -> None:
    integers = isinstance(low, int) and isinstance(high, int)
    is_range = low < high and (kind != "log" or low > 0) and (kind != "int" or integers)
    if is_range:
        assert check(Range, {kind: [low, high]}, "search.x").ends == [low, high]
    else:
        with pytest.raises(UserError, match=r"^search\.x"):
            check(Range, {kind: [low, high]}, "search.x")


@given(found=st.lists(values, max_size=6))
def test_choices_are_two_or_more_that_differ(found: list[Value]) -> None:
    differ = all(one != other for place, one in enumerate(found) for other in found[:place])
    if differ and len(found) > 1:
        assert check(Range, {"choice": found}, "search.x").ends == found
    else:
        with pytest.raises(UserError, match=r"^search\.x"):
            check(Range, {"choice": found}, "search.x")


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.integers(), min_size=2, unique=True), min_size=1))
def test_each_end_is_checked_once_at_least(choices: dict[str, list[int]]) -> None:
    searched = {key: Range(choice=each) for key, each in choices.items()}
    points = ranges.end_points(searched)
    assert {(key, value) for point in points for key, value in point.items()} == {
        (key, value) for key, each in choices.items() for value in each
    }
    assert all(point.keys() == choices.keys() for point in points)


@pytest.mark.parametrize(
    ("search", "says"),
    [
        ("{lora.r: {chioce: [8, 16]}}", r"search\.lora\.r\.chioce: unknown key; did you mean 'choice'\?"),
        ("{lora.r: {}}", r"search\.lora\.r: one of uniform, log, int, choice is expected; this has none"),
        ("{lora.r: {int: [1, 2], log: [1, 2]}}", r"search\.lora\.r: one of .* is expected; this has log and int"),
        ("{lora.r: {int: [8, 2.5]}}", r"search\.lora\.r\.int\.1: .*integer.*2\.5"),
        (
            "{lora.dropout: {uniform: [0.1, 0]}}",
            r"dropout: uniform: the first, 0\.1, must be below the second, 0",
        ),
        ("{lora.dropout: {log: [0, 0.1]}}", r"lora\.dropout: log: 0\.0 has no logarithm; both must be above 0"),
        (
            "{lora.r: {choice: [8, [16]]}}",
            r"lora\.r: choice: \[16\]: a number, a text, true, .*expected",
        ),
        ("{lora.r: {choice: [1, true]}}", r"lora\.r: choice: a value stands twice"),
        ("{lora.r: {choice: ['${a}', b]}}", r"lora\.r: choice: '\$\{a\}': `-S` takes \$\{ for a reference"),
        ("{}", r"list\.yaml: a list has either experiments or search"),
        ("{lora.r: {int: [1, 2]}}\nexperiments: {a: []}", r"list\.yaml: a list has either experiments or search"),
        ("{lora.r: {int: [1, 2]}}\nseeds: [1, 2]", r"list\.yaml: a search has one folder in data, and one of seeds"),
        ("{lora.r: {int: [1, 2]}}\nrungs: [0.5, 0.25, 1]", r"list\.yaml: rungs: shares that grow"),
        ("{lora.r: {int: [1, 2]}}\nrungs: [0.5]", r"list\.yaml: rungs: shares that grow"),
    ],
)
def test_a_list_that_cannot_be_searched(tmp_path: Path, search: str, says: str) -> None:
    (tmp_path / "list.yaml").write_text(f"data: [f0]\nsearch: {search}\n")
    with pytest.raises(UserError, match=says):
        read_list(tmp_path / "list.yaml")


def test_what_kind_of_list_it_is_and_what_is_asked_of_it(tmp_path: Path) -> None:
    written = {"ranges": "search: {lora.r: {choice: [8, 16]}}", "experiments": "experiments: {a: []}"}
    for name, content in written.items():
        (tmp_path / f"{name}.yaml").write_text(f"data: [f0]\n{content}\n")
    of = {name: Options(tmp_path / f"{name}.yaml", tmp_path, tmp_path / "out", tmp_path / "work") for name in written}
    with pytest.raises(UserError, match=r"ranges\.yaml: it has ranges; `yoyak sweep LIST --search optuna` draws"):
        run.prepare(of["ranges"])
    with pytest.raises(UserError, match=r"experiments\.yaml: it has no ranges for --search; give it `search` for"):
        study.search(of["experiments"], 1)
    with pytest.raises(UserError, match=r"^--trials 0: at least 1$"):
        study.search(of["ranges"], 0)
    with pytest.raises(UserError, match=r"^--only: a search has no experiments to choose from$"):
        study.search(replace(of["ranges"], only=("a",)), 1)
    with pytest.raises(UserError, match=r"ranges\.yaml: search: no folder .*/f0"):
        study.search(of["ranges"], 1)


def test_rungs_are_of_a_search_alone(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("data: [f0]\nexperiments: {a: []}\nrungs: [1]\n")
    with pytest.raises(UserError, match=r"list\.yaml: rungs: only a search has them"):
        read_list(tmp_path / "list.yaml")


def test_the_list_of_ranges_is_of_parameters_that_are_there() -> None:
    listed = read_list(ROOT / "sweeps/ranges.yaml")
    for values in ranges.end_points(listed.search):
        overrides = study.run_of(listed, "any", values, level=0).overrides
        params = check_of_runs.params_of(listed.params, overrides, ROOT / "data/sample", "ranges.yaml")
        assert params.training.learning_rate == values["training.learning_rate"]


# The study

RANGES = check(ExperimentList, LIST, "list").search


def drawn(number: int, seed: int = 42) -> dict[str, Value]:
    """The first parameters of a study are drawn at random, whatever has been seen."""
    alone = optuna.create_study(sampler=study.sampler(seed, number))
    return study.draw(alone.ask(), RANGES)


def test_a_trial_has_its_own_random_numbers() -> None:
    first = [drawn(number) for number in range(TRIALS)]
    assert first == [drawn(number) for number in range(TRIALS)]
    assert len({each["training.learning_rate"] for each in first}) == TRIALS
    assert drawn(0, seed=43) != first[0]


def asked(opened: optuna.Study, number: int) -> dict[str, Value]:
    opened.sampler = study.sampler(42, number)
    return study.draw(opened.ask(), RANGES)


def test_what_a_kill_has_cut_off_of_the_journal_stops_no_later_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / study.JOURNAL
    asked(study.open_study(journal, {}), 0)
    with journal.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id":"ab')
    # As a kill within a write leaves it: Optuna waits half a minute for it.
    (tmp_path / f"{study.JOURNAL}.lock").symlink_to(journal)
    opened = study.open_study(journal, {})
    assert f"{journal}: dropped its last line, which a kill had cut off\n" in capsys.readouterr().out
    assert asked(opened, 1) == drawn(1)
    again = study.open_study(journal, {})
    assert [trial.params for trial in again.trials] == [drawn(0), drawn(1)]


def test_a_trial_that_was_killed_while_it_was_drawn_gets_the_rest(tmp_path: Path) -> None:
    journal = tmp_path / study.JOURNAL
    asked(study.open_study(journal, {}), 0)
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-2]))
    listed = check(ExperimentList, LIST, "list")
    opened = study.open_study(journal, {})
    (left,) = study.left_behind(opened, listed)
    found = study.draw(left, RANGES)
    before = drawn(0)
    assert list(found) == sorted(SEARCHED)
    assert [found[key] for key in sorted(SEARCHED)[:2]] == [before[key] for key in sorted(SEARCHED)[:2]]
    assert len(study.open_study(journal, {}).trials) == 1


def test_a_study_of_something_else_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / study.JOURNAL
    study.open_study(journal, {"data": ["f0"], "rungs": [1.0]})
    study.open_study(journal, {"data": ["f0"], "rungs": [1.0]})
    with pytest.raises(UserError, match=r"study\.journal: is a search of something else \(rungs\); empty its folder"):
        study.open_study(journal, {"data": ["f0"], "rungs": [0.5, 1.0]})
    journal.write_text("no journal\n" * 3)
    with pytest.raises(UserError, match=r"study\.journal: not what Optuna writes .*; remove it"):
        study.open_study(journal, {})


# What is told

NOISE = np.random.default_rng(0).normal(0, 5, (40, 4))
CLIMBS = [
    Climb("a", {"training.learning_rate": 1e-3, "lora.r": 8}, [30 + NOISE[:, 0], 33 + NOISE[:, 1]], ""),
    Climb("b", {"training.learning_rate": 2e-3, "lora.r": 16}, [29 + NOISE[:, 2]], ""),
    Climb("c", {"training.learning_rate": 2e-4}, [], "failed"),
    Climb("d", {"training.learning_rate": 4e-4, "lora.r": 8}, [30 + NOISE[:, 0], 38 + NOISE[:, 1]], ""),
]
OF_CLIMBS = check(
    ExperimentList,
    {
        "data": ["f0"],
        "rungs": [0.25, 1],
        "search": {"training.learning_rate": {"log": [1e-4, 1e-2]}, "lora.r": {"choice": [8, 16]}},
    },
    "list",
)


def test_the_table_has_the_best_first_and_differences_of_the_same_rung(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study_report.tell(CLIMBS, OF_CLIMBS, "by which rule", tmp_path / "study.png")
    lines = [re.sub(" {2,}", " | ", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "trial | of train | ROUGE | to the first | parameters"
    best, second, stopped, failed = lines[1:5]
    assert re.fullmatch(r"d \| 100 % \| 3\d\.\d\d \[.*\] \| learning_rate 0\.0004, r 8", best)
    # Row by row as good, less 5.
    assert re.fullmatch(r"a \| 100 % \| .*\] \| -5\.00 \[-5\.00, -5\.00\] \| learning_rate 0\.001, r 8", second)
    difference = CLIMBS[1].rungs[0] - CLIMBS[3].rungs[0]
    assert f"b | 25 % | {study_report.told(CLIMBS[1].rungs[0])} | {study_report.told(difference, '+')} |" in stopped
    assert failed == "c | failed | learning_rate 0.0002"
    assert "by which rule" in lines[5]
    with_chance = [line for line in lines if "were all equally good" in line]
    assert [line.split(" of train: ")[0] for line in with_chance] == ["25 %", "100 %"]
    assert "d, the best of 2, is 2.50 above their mean; were all equally good, it would seem 0.00" in with_chance[1]
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_chance_alone_puts_the_best_of_many_above_that_of_few() -> None:
    rows = np.random.default_rng(1).normal(30, 5, (100, 20))
    found = [
        study_report.chance([Climb(str(number), {}, [rows[:, number]], "") for number in range(count)], 0)
        for count in (1, 2, 20)
    ]
    assert found[0] is None
    assert found[1]
    assert found[2]
    assert 0 < found[1].luck < found[2].luck
    # Of 20 normal means the largest is expected 1.87 standard errors above.
    assert found[2].luck == pytest.approx(1.87 * 5 / math.sqrt(100), rel=0.2)


def test_a_parameter_has_as_short_a_name_as_tells_it_from_others() -> None:
    keys = ["lora.r", "models.a.lora.r", "+models.b.persons", "training.epochs", "epochs"]
    assert list(study_report.short_names(keys).values()) == [
        "lora.r",
        "a.lora.r",
        "persons",
        "training.epochs",
        "epochs",
    ]


# The whole, shrunk


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A twin, a list of ranges, and a virtual environment whose stages are warm."""
    folder = tmp_path_factory.mktemp("search")
    project = new_project(folder / "project", {"train": 8, "dev": 6, "test": 4})
    twin = save_twin(qwen25, folder / "twin")
    virtual_environment(folder / ".venv")

    def shrink(params: Any) -> None:
        params["run"].update(models=["llama32_3b"], untuned=[])
        params["training"].update(epochs=1)
        params["generation"].update(max_new_tokens=12, candidates=2)
        params["limits"].update(free_gb=0.1, empty_percent=100)
        params["models"]["llama32_3b"].update(weights=str(twin), dtype="fp32")

    project.edit(shrink)
    (project.root / "lists").mkdir()
    with (project.root / "lists/tiny.yaml").open("w") as file:
        YAML(typ="safe").dump(LIST, file)
    project.commit()
    return project


def searching(project: Project, *more: str, extras: Sequence[Path] = (OPTUNA,), **of_ray: str) -> subprocess.Popen[str]:
    """The command, begun, with what is installed beside the environment."""
    python = project.root.parent / ".venv/bin/python3"
    inherited = project.environment()
    own = {
        "PATH": f"{python.parent}:{inherited['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, [project.root / "src", *extras])),
        "CUDA_VISIBLE_DEVICES": "",
        **of_ray,
    }
    command = [python, *YOYAK, "sweep", "lists/tiny.yaml", "--data", "data", "--out", "out", "--work", "work", *more]
    return subprocess.Popen(
        [*map(str, command)],
        cwd=project.root,
        env=inherited | own,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize(
    ("more", "extras", "says"),
    [
        (["--search", "optuna"], [], "--search optuna: Optuna is not installed; `pip install -e '.[optuna]'`"),
        (["--trials", "3"], [OPTUNA], "--trials: of a search alone; give it `--search optuna`"),
    ],
)
def test_what_is_asked_wrongly_is_told(project: Project, more: list[str], extras: list[Path], says: str) -> None:
    called = searching(project, *more, extras=extras)
    _, errors = called.communicate()
    assert (called.returncode, errors) == (1, f"error: {says}\n")


@pytest.fixture(scope="module")
def searched(project: Project) -> tuple[Project, str]:
    """What was begun by processes of this machine, and killed after a rung, Ray's tasks have gone on with."""
    more = ("--search", "optuna", "--trials", str(TRIALS), "--gpus", "0")
    begun = searching(project, *more)
    journal = project.root / "out" / study.JOURNAL
    while not (journal.exists() and "intermediate_value" in journal.read_text()):
        assert begun.poll() is None, begun.communicate()
        time.sleep(0.05)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    with journal.open("ab") as file:
        file.write(b'{"op_code":')
    # Paths of Ray's sockets must be short.
    with TemporaryDirectory(prefix="ray", dir="/tmp") as short:
        called = searching(project, *more, extras=(OPTUNA, RAY), RAY_TMPDIR=short)
        said, errors = called.communicate()
    assert called.returncode == 0, said + errors
    return project, said


Searched = tuple[Project, str]


def trials_of(project: Project) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(project.root / "out" / study.JOURNAL)))
    return optuna.load_study(study_name=study.NAME, storage=storage).trials


def results(project: Project, number: int) -> list[Path]:
    """Of a trial, rung by rung."""
    found = [project.root / f"out/tiny-{number}.{data}.s42.json" for data in ("sample_50", "sample")]
    return [result for result in found if result.exists()]


def test_a_search_that_is_killed_goes_on_to_the_same_trials(searched: Searched) -> None:
    project, said = searched
    assert f"{TRIALS} of {TRIALS} trials to run" in said
    assert "on Ray: this machine, 1 node\n" in said
    found = trials_of(project)
    assert [trial.params for trial in found] == [drawn(number) for number in range(TRIALS)]
    for trial in found:
        scores = [study_report.scores(result).mean() for result in results(project, trial.number)]
        assert list(trial.intermediate_values.values()) == pytest.approx(scores)
        figures = [json.loads(result.read_text()) for result in results(project, trial.number)]
        assert [each["data"]["train"]["rows"] for each in figures] == [4, 8][: len(figures)]
        assert {each["train"]["llama32_3b"]["seed"] for each in figures} == {42}


def test_the_better_half_of_a_rung_goes_on(searched: Searched) -> None:
    first: list[float] = []
    for trial in trials_of(searched[0]):
        first.append(trial.intermediate_values[1])
        # Asynchronous: of those that were there before it; of two or three the best.
        goes_on = first[-1] >= sorted(first)[-max(1, len(first) // 2)]
        assert trial.state == (TrialState.COMPLETE if goes_on else TrialState.PRUNED)
        assert list(trial.intermediate_values) == [1, 2][: 1 + goes_on]


def test_each_trial_is_an_experiment_of_dvc(searched: Searched) -> None:
    project, said = searched
    shown = project.run("dvc", "exp", "show", "--csv", "--no-pager").stdout
    for trial in trials_of(project):
        (line,) = [line for line in shown.splitlines() if line.startswith(f"tiny-{trial.number},")]
        assert str(trial.params["training.learning_rate"]) in line
        assert re.search(
            rf"^tiny-{trial.number} +\d+ %  .* persons {trial.params['+models.llama32_3b.persons']}", said, re.M
        )
        # Of the last rung.
        kept = project.run("git", "show", f"refs/exps/{commit(project)}/tiny-{trial.number}:metrics/data.json").stdout
        assert json.loads(kept) == json.loads(results(project, trial.number)[-1].read_text())["data"]
    assert (project.root / "out/study.png").read_bytes().startswith(b"\x89PNG")
    assert "no experiment of DVC" not in said


def commit(project: Project) -> str:
    """As DVC's references have it."""
    head = project.run("git", "rev-parse", "HEAD").stdout.strip()
    return f"{head[:2]}/{head[2:]}"


def test_experiments_are_looked_for_in_a_repository_of_its_own(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = searched
    monkeypatch.chdir(project.root)
    assert trials.missing(["tiny-0", "tiny-9"]) == ["tiny-9"]
    assert [trials.are_kept(folder) for folder in (project.root, project.root / "data", tmp_path)] == [
        True,
        False,
        False,
    ]


def test_a_larger_share_has_the_rows_of_a_smaller_one(tmp_path: Path) -> None:
    seen = []
    for share in (0.25, 0.5):
        data_folder.write_share(ROOT / "data/sample", share, tmp_path / str(share))
        train, dev = data_folder.read_train_and_dev(tmp_path / str(share))
        seen.append(train)
        assert dev.equals(data_folder.read_train_and_dev(ROOT / "data/sample")[1])
    whole, _ = data_folder.read_train_and_dev(ROOT / "data/sample")
    assert [len(train) for train in seen] == [round(len(whole) * share) for share in (0.25, 0.5)]
    assert set(seen[0]["fname"]) < set(seen[1]["fname"]) < set(whole["fname"])


def test_other_parameters_are_another_search(
    searched: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = searched
    monkeypatch.chdir(project.root)
    options = Options(Path("lists/tiny.yaml"), Path("data"), Path("out"), tmp_path, gpus=0)
    before = Path("params.yaml").read_text()
    project.edit(lambda params: params["scoring"].update(seed=7))
    with pytest.raises(UserError, match=r"^out/study\.journal: is a search of something else \(params\.yaml\); empty"):
        study.search(options, TRIALS)
    Path("params.yaml").write_text(before)
    shutil.copyfile("lists/tiny.yaml", "lists/a tiny list.yaml")
    with pytest.raises(UserError, match=r"^lists/a tiny list\.yaml: trials have its name: letters, digits"):
        study.search(replace(options, experiments=Path("lists/a tiny list.yaml")), TRIALS)


def test_values_that_cannot_be_together_end_a_trial_and_not_the_search(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is good with the first of the other: greedy search has one candidate."""
    monkeypatch.chdir(project.root)
    searched = {"generation.search": {"choice": ["sample", "greedy"]}, "generation.candidates": {"choice": [1, 2]}}
    with (tmp_path / "both.yaml").open("w") as file:
        YAML(typ="safe").dump(LIST | {"search": searched, "seeds": [SEED]}, file)
    options = Options(tmp_path / "both.yaml", Path("data"), tmp_path / "out", tmp_path / "work", gpus=0, minutes=0)
    assert study.search(options, TRIALS)
    said = capsys.readouterr().out
    assert re.search(r"^both-0: candidates 2, search greedy\nboth-0: params\.yaml: ", said, re.MULTILINE)
    assert "no time for more; trials left at work for later: 1" in said
    assert re.search(r"^both-0 +failed", said, re.MULTILINE)
