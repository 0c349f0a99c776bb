"""The best submission by a deadline: successive halving on held-out rows of train, then the best on all of train.

The deadline decides on everything else: how much each round's trials see, how many finalists are trained, and whether
there is time to tune them. What trials took corrects what they were expected to take.
"""

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from yoyak.core.errors import UserError
from yoyak.core.files import sha256
from yoyak.core.limits import check_disk
from yoyak.core.params import write_yaml
from yoyak.core.records import Floats, read_json, write_json
from yoyak.preflight.params import Params
from yoyak.reporting import chance
from yoyak.sweeps import candidates, check, competition, costs, data_folder, folds, halving, recipe, trials
from yoyak.sweeps.collect import MBR
from yoyak.sweeps.competition import Asked
from yoyak.sweeps.costs import Rows
from yoyak.sweeps.experiments import Run, read_list, runs
from yoyak.sweeps.halving import LEVELS, PARTS, Level
from yoyak.sweeps.lock import only_one
from yoyak.sweeps.options import Options
from yoyak.sweeps.rates import Rates, Span
from yoyak.sweeps.recipe import Recipe
from yoyak.sweeps.run import run_list, slots

WORK = Path(".cache/search")
STATE = WORK / "state.json"
"""What has been decided: read again after a kill."""
CHECKED_SECONDS = 120.0
"""That the ensemble and the submission's checks are expected to take where no run has been measured."""
SAFETY = 1.3
"""Times what something is expected to take, where the submission depends on it."""


@dataclass
class Clock:
    """Time until the deadline."""

    hours: float
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds; below 0 behind the deadline."""
        return self.started + 3600 * self.hours - time.monotonic()


@dataclass
class Pace:
    """What work takes here: as measured runs say, and corrected by what this search has seen."""

    params: Params
    """With an entry for each candidate."""
    known: Rates
    rows: Rows
    """Of train, dev and test."""
    ratios: list[float] = field(default_factory=list)
    """Of finished trials: seconds that they took, of those that were expected."""

    def trial(self, name: str, level: Level) -> float | None:
        """Seconds of a candidate at a level; None where nothing tells."""
        return self._corrected(self._of_trial(name, level))

    def final(self, name: str, tuned: bool = False) -> float | None:
        """Seconds of a candidate on all of train, dev and test summarised; tuned as well."""
        return self._corrected(self._all(name, self.rows, tuned))

    @property
    def ensemble(self) -> float:
        """Seconds of the last run."""
        return self.known.rest.high if self.known.rest else CHECKED_SECONDS

    def saw(self, name: str, fold_level: Level, seconds: float) -> None:
        """Learn from a trial on one fold."""
        expected = self._of_trial(name, replace(fold_level, folds=1))
        if expected is not None:
            self.ratios.append(seconds / (sum(expected) / 2))

    def _of_trial(self, name: str, level: Level) -> Span | None:
        held_out = self.rows.train // PARTS
        seen = round((self.rows.train - held_out) * level.share)
        rows = replace(self.rows, train=seen, dev=held_out, test=data_folder.TEST_ROWS)
        each = self._all(name, rows, tuned=False)
        return each.times(level.folds) if each else None

    def _all(self, name: str, rows: Rows, tuned: bool) -> Span | None:
        run = self.params.run.model_copy(update={"models": [name], "tuned": [name] if tuned else []})
        steps = costs.work(self.params.model_copy(update={"run": run}), rows, self.known, set())
        return None if costs.names_of(steps) else costs.total(steps, 1)

    def _corrected(self, expected: Span | None) -> float | None:
        if expected is None:
            return None
        return SAFETY * median(self.ratios) * sum(expected) / 2 if self.ratios else expected.high


@dataclass(frozen=True)
class Search:
    """What is searched, and where."""

    asked: Asked
    clock: Clock
    base: Recipe
    entries: dict[str, dict[str, Any]]
    """Of `models`, by the name of the candidate."""
    pace: Pace
    tunes: bool
    """Whether finalists that can be are tuned."""

    @property
    def at_once(self) -> int:
        return len(slots(self.options("search")))

    def options(self, name: str) -> Options:
        """Of the list `name`."""
        return Options(
            WORK / f"{name}.yaml", WORK / "data", WORK / name, WORK / "copies", self.asked.gpus, self.asked.per_gpu
        )

    @property
    def params(self) -> dict[str, Any]:
        """Merged into `params.yaml`."""
        return {**self.base.params, "models": {**self.base.params.get("models", {}), **self.entries}}

    def write_list(self, name: str, data: list[str], experiments: Mapping[str, list[str]]) -> Options:
        """Write a list of experiments."""
        options = self.options(name)
        setting = [*self.base.set, *recipe.ALONE]
        write_yaml(
            options.experiments,
            {"params": self.params, "set": setting, "data": data, "experiments": dict(experiments)},
        )
        return options


def search_and_submit(asked: Asked, hours: float, plan_alone: bool = False) -> None:
    """Write `submission/final.csv` within so many hours, and its checklist; print the plan first.

    Called again after a kill it goes on with what was decided, and has as many hours again. Raises a `UserError` where
    nothing at all could be trained.
    """
    if not 0 < hours < math.inf:
        raise UserError(f"HOURS={hours:g}: a number above 0 is expected")
    clock = Clock(hours)
    trials.require_git()
    with only_one(WORK, waits=not plan_alone):
        search = _prepare(asked, clock)
        _print_plan(search)
        if plan_alone:
            return
        _forget_another(search)
        competition.fetch_packages(search.pace.params)
        finalists = _halve(search)
        _finish(search, finalists)


def _prepare(asked: Asked, clock: Clock) -> Search:
    listed = candidates.read_search()
    gpu = slots(Options(Path(), Path(), Path(), Path(), asked.gpus, asked.per_gpu))[0]
    has_gpu = gpu != ""
    if asked.tune not in (None, [recipe.NONE]):
        raise UserError("TUNE: a search tunes the finalists that can be, or with TUNE=none nothing")
    base = recipe.choose(asked.models, None, has_gpu)
    if not has_gpu:
        print("no GPU is used, and tuning needs one: the finalists are not tuned", flush=True)
    if asked.weights:
        competition.link_weights(asked.weights.resolve())
    _write_data(asked)
    models = list(base.models) if asked.models else listed.models
    probe = recipe.params_with(base, models)
    entries = candidates.entries(probe, models, listed.settings)
    params = probe.model_copy(
        update={
            "models": {**probe.models, **entries},
            "run": probe.run.model_copy(update={"models": list(entries)}),
        }
    )
    known = competition.rates_here(params, gpu)
    pace = Pace(params, known, costs.rows_in(WORK / "data" / recipe.DATA))
    tunes = has_gpu and asked.tune != [recipe.NONE]
    return Search(asked, clock, base, entries, pace, tunes)


def _write_data(asked: Asked) -> None:
    """All of train with dev and test; folds of train; and parts of the first of them."""
    whole = WORK / "data" / recipe.DATA
    competition.write_data(asked.data, asked.predict, whole)
    folds.write_folds(whole, WORK / "data/folds", PARTS)
    for part in range(PARTS):
        folder = WORK / "data" / f"f{part}"
        shutil.rmtree(folder, ignore_errors=True)
        (WORK / "data/folds" / f"f{part}").rename(folder)
    for level in LEVELS:
        if level.share < 1:
            data_folder.write_share(WORK / "data/f0", level.share, WORK / "data" / level.data[0])


def _forget_another(search: Search) -> None:
    """What another search, on other rows or of other candidates, has decided and measured."""
    params = search.pace.params.model_dump(mode="json", exclude={"run"})
    made_of = check.digest([params, search.base.set, sha256(WORK / "data" / recipe.DATA / "train.csv")])
    if _state().get("made_of") != made_of:
        for name in ("search", "final"):
            shutil.rmtree(WORK / name, ignore_errors=True)
        write_json(STATE, {"made_of": made_of, "rounds": []})


def _state() -> dict[str, Any]:
    return dict(read_json(STATE)) if STATE.exists() else {}


def _print_plan(search: Search) -> None:
    clock, pace = search.clock, search.pace
    count = len(search.entries)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("candidate", "first round", "on all of train", "tuned"):
        table.add_column(column, justify="left" if column == "candidate" else "right", no_wrap=True)
    for name in search.entries:
        first, final = pace.trial(name, LEVELS[0]), pace.final(name)
        tuned = pace.final(name, tuned=True) if _can_be_tuned(search, name) else None
        table.add_row(name, *(costs.told(value) for value in (first, final)), costs.told(tuned) if tuned else "")
    print(f"candidates: {count}; rounds: {halving.rounds(count)}; finalists: {min(halving.FINALISTS, count)}")
    console = Console(highlight=False, markup=False)
    console.print(table)
    reserve = _reserve(search)
    steps = costs.plan(pace.params, pace.rows, pace.known, set())
    disk_gb = costs.disk_gb(steps, search.at_once)
    if reserve < clock.left:
        shared = f"{costs.told(clock.left - reserve)} for the search, {costs.told(reserve)} kept for the finalists"
    else:
        shared = f"no time for the search; {costs.told(reserve)} are expected for all finalists, so not all may be done"
    print(f"{clock.hours:g} h: {shared}", flush=True)
    print(f"{sum(step.download_gb for step in steps):.1f} GB to download, {disk_gb:.1f} GB of disk", flush=True)
    check_disk(pace.params.limits, disk_gb, "the search")


def _can_be_tuned(search: Search, name: str) -> bool:
    return search.tunes and recipe.is_tuned_by_default(search.pace.params, name)


def _reserve(search: Search) -> float:
    """Seconds that the finalists need, should they be those that take longest, with as many of them tuned as there is
    time for: settings of one model differ by less than what tuning gains (docs/results.md, docs/tuning.md)."""
    pace, count = search.pace, halving.FINALISTS
    plain = sorted((pace.final(name) or 0 for name in search.entries), reverse=True)[:count]
    tunings = sorted((_tuning(search, name) for name in search.entries if _can_be_tuned(search, name)), reverse=True)
    needs = [
        _side_by_side(search, [*plain, *tunings[:tuned]]) + SAFETY * pace.ensemble * (2 if tuned else 1)
        for tuned in range(min(count, len(tunings)) + 1)
    ]
    return max((seconds for seconds in needs if seconds < search.clock.left), default=needs[0])


def _tuning(search: Search, name: str) -> float:
    """Seconds of tuning a finalist that is trained, and of its summaries."""
    return (search.pace.final(name, tuned=True) or 0) - (search.pace.final(name) or 0)


def _side_by_side(search: Search, seconds: list[float]) -> float:
    return max(max(seconds), sum(seconds) / search.at_once)


# Rounds


def _halve(search: Search) -> list[str]:
    """The finalists, the best first."""
    names, done = list(search.entries), _state()["rounds"]
    above = None
    total = halving.rounds(len(names))
    for number in range(total):
        left = total - number
        budget = search.clock.left - _reserve(search)
        found = done[number] if number < len(done) else None
        if found:
            level: Level | None = LEVELS[found["level"]]
        else:
            # An even share of the time; where that is too little for any round, all of it.
            level = _level(search, names, budget / left, above) or _level(search, names, budget, above)
        if level is None:
            why = "all of train has been seen" if above == LEVELS[-1] else "no time for more"
            print(f"round {number + 1}: {why}; the order so far stays", flush=True)
            break
        if not found:
            found = {"level": LEVELS.index(level), "kept": None}
            write_json(STATE, {**_state(), "rounds": [*done, found]})
        if found["kept"] is None:
            print(f"round {number + 1}: {len(names)} candidates on {level.told}", flush=True)
            found["kept"] = _round(search, names, level, left)
            done = [*done[:number], found]
            write_json(STATE, {**_state(), "rounds": done})
        names, above = found["kept"], level
    return names


def _level(search: Search, names: list[str], budget: float, above: Level | None) -> Level | None:
    def all_of(level: Level) -> float | None:
        each = [search.pace.trial(name, level) for name in names]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) / search.at_once if len(known) == len(each) else None

    return halving.level([all_of(level) for level in LEVELS], budget, above)


def _round(search: Search, names: list[str], level: Level, rounds_left: int) -> list[str]:
    """Run a round's trials, keep each as an experiment of DVC, and return who goes on, the best first."""
    experiments = {name: [f"run.models=[{name}]", "run.tuned=[]"] for name in names}
    options = search.write_list("search", level.data, experiments)
    ends = search.clock.left - _reserve(search)
    run_list(replace(options, minutes=ends / 60, seconds=ends))
    listed = runs(read_list(options.experiments))
    for run in listed:
        _keep(options, run)
    _learn_pace(search, options, listed, level)
    scores = _scores(options, listed, names)
    order = halving.ranked(scores)
    _print_round(scores, order)
    # Whose trials did not come to their end is judged by the round before.
    return [*order, *(name for name in names if name not in scores)][: halving.kept(len(names), rounds_left)]


def _keep(options: Options, run: Run) -> None:
    """As an experiment, unless it did not end. One of that name, which another search may have left, is replaced."""
    if options.result(run).exists():
        trials.record(options.copy(run).resolve(), run.name.replace(".", "-"), options.log(run).resolve())


def _learn_pace(search: Search, options: Options, listed: list[Run], level: Level) -> None:
    search.pace.ratios.clear()
    for run in listed:
        if options.result(run).exists() and (seconds := _seconds(read_json(options.result(run)), run.experiment)):
            search.pace.saw(run.experiment, level, seconds)


def _seconds(result: Mapping[str, Any], name: str) -> float | None:
    """That a trial takes; None where a part of it was done before a kill.

    What came from DVC's cache took seconds, and its stages tell what they took when they ran.
    """
    train, infer = result["train"][name], result["infer"][name]
    if train["resumed_at_step"]:
        return None
    of_stages = [train["seconds"], *(infer[split]["seconds"] for split in ("dev", "test"))]
    return max(60 * float(result["minutes"]), float(sum(of_stages)))


def _scores(options: Options, listed: list[Run], names: list[str]) -> dict[str, Floats]:
    """Of each candidate whose trials all ended: mean ROUGE of what MBR chooses, of each held-out row, in percent."""
    found = {}
    for name in names:
        results = [options.result(run) for run in listed if run.experiment == name]
        if all(result.exists() for result in results):
            found[name] = np.concatenate([read_json(result)["rows"][MBR] for result in results])
    return found


def _print_round(scores: Mapping[str, Floats], order: list[str]) -> None:
    for name in order:
        print(f"  {name}: {scores[name].mean():.2f} on {len(scores[name])} held-out rows")
    if lead := halving.lead(scores):
        print(f"  {lead.told}; the best of {len(order)} equally good ones would seem {chance.luck(scores):.2f} better")


# Finalists


def _finish(search: Search, names: list[str]) -> None:
    """Train as many of the best as there is time for, on all of train, and submit their ensemble; then tune them."""
    finals = {name: search.pace.final(name) or 0 for name in names[: halving.FINALISTS]}
    # The first in any case.
    chosen = _as_many_as_fit(search, finals) or names[:1]
    print(f"finalists, on all of train: {', '.join(chosen)}", flush=True)
    alone = {name: [f"run.models=[{name}]", "run.tuned=[]"] for name in chosen}
    options = search.write_list("final", [recipe.DATA], alone)
    shutil.rmtree(options.out, ignore_errors=True)
    ends = search.clock.left - SAFETY * search.pace.ensemble
    run_list(replace(options, minutes=ends / 60, seconds=ends))
    trained = [run.experiment for run in runs(read_list(options.experiments)) if options.result(run).exists()]
    if not trained:
        _submit_a_trial(search, names)
        return
    _submit(search, trained, [])
    tunings = {name: _tuning(search, name) for name in trained if _can_be_tuned(search, name)}
    chosen = _as_many_as_fit(search, tunings)
    if chosen and (done := _tune(search, chosen)):
        _submit(search, trained, done)


def _as_many_as_fit(search: Search, seconds: Mapping[str, float]) -> list[str]:
    """The first of the names whose work is done before the last ensemble must begin."""
    ends = search.clock.left - SAFETY * search.pace.ensemble
    names = list(seconds)
    fitting = [
        count for count in range(1, len(names) + 1) if _side_by_side(search, list(seconds.values())[:count]) <= ends
    ]
    return names[: max(fitting, default=0)]


def _tune(search: Search, names: list[str]) -> list[str]:
    """Those of the models that were tuned in time."""
    ends = search.clock.left - SAFETY * search.pace.ensemble
    experiments = {f"tune_{name}": [f"run.models=[{name}]", f"run.tuned=[{name}]"] for name in names}
    options = search.write_list("tune", [recipe.DATA], experiments)
    shutil.rmtree(options.out, ignore_errors=True)
    run_list(replace(options, minutes=ends / 60, seconds=ends))
    listed = runs(read_list(options.experiments))
    return [name for name, run in zip(names, listed, strict=True) if options.result(run).exists()]


def _submit(search: Search, models: list[str], tuned: list[str]) -> None:
    together = recipe.together(models, tuned)
    options = search.write_list("together", [recipe.DATA], {recipe.ENSEMBLE: together})
    competition.train_and_submit(options)


def _submit_a_trial(search: Search, names: list[str]) -> None:
    """Where no finalist was done in time: the summaries of the best model that has been trained at all."""
    for number in range(len(_state()["rounds"]) - 1, -1, -1):
        level = LEVELS[_state()["rounds"][number]["level"]]
        for name in names:
            for data in level.data:
                trial = search.options("search").out / f"{name}.{data}.s42.json"
                if trial.exists():
                    print(f"no finalist was done in time: {name} of round {number + 1} is submitted", flush=True)
                    print("what is called dev below are rows of train that it did not see", flush=True)
                    _submit_on(search, name, data)
                    return
    raise UserError("nothing was trained in time; give more HOURS: what was begun goes on")


def _submit_on(search: Search, name: str, data: str) -> None:
    """The summaries of a trial's model: on its rows of train, with the test file in place of a few rows of dev."""
    folder = WORK / "data" / f"{data}_test"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(WORK / "data" / recipe.DATA, folder)
    for split in ("train", "dev"):
        shutil.copyfile(WORK / "data" / data / f"{split}.csv", folder / f"{split}.csv")
    alone = [f"run.models=[{name}]", "run.tuned=[]", "ensemble.members=null"]
    competition.train_and_submit(search.write_list("together", [folder.name], {recipe.ENSEMBLE: alone}))
