"""A search of parameters in the ranges of a list: Optuna draws them and stops trials, the stages train and score them.

A trial climbs rungs, shares of the rows of train, and is stopped at the first where it is not among the better half of
those that have been there: asynchronous successive halving (Li et al. 2020), as Optuna has it. Why rows grow and not
epochs: see `halving`.

Ray Tune, which has both an Optuna and an ASHA of its own, is not used: its trials report from within one process, where
ours are runs of the pipeline that Ray's tasks do as well, and what it needs to go on it keeps as pickles of its own.
"""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from yoyak.core.errors import UserError
from yoyak.core.files import write_whole
from yoyak.core.records import read_json
from yoyak.evaluation.leaderboard import what_was_counted
from yoyak.sweeps import check, data_folder, ranges, run, study_report, trials
from yoyak.sweeps.check import CheckedRun
from yoyak.sweeps.execution import Outcome
from yoyak.sweeps.experiments import NAME as NAME_OF_FILE
from yoyak.sweeps.experiments import ExperimentList, Run, read_list
from yoyak.sweeps.jobs import Job, Place
from yoyak.sweeps.lock import only_one
from yoyak.sweeps.options import Options
from yoyak.sweeps.ranges import Range, Value

JOURNAL = "study.journal"
"""In `--out`: Optuna's own, and all that is kept of a search beside the JSONs."""
MADE_OF = "made_of"
PARAMETERS = "params.yaml"
PICTURE = "study.png"
NAME = "search"
FACTOR = 2
"""One of so many goes on to the next rung."""
STATES = {TrialState.FAIL: "failed", TrialState.RUNNING: "at work"}
"""Of trials that have not ended."""


@dataclass(frozen=True)
class Search:
    """What is searched, and where it is kept."""

    options: Options
    listed: ExperimentList
    remote: str
    commit: str
    study: optuna.Study
    kept: bool
    """Whether trials are experiments of DVC."""

    def trial_name(self, number: int) -> str:
        """Of its experiment of DVC, and the beginning of its files' names."""
        return f"{self.options.experiments.stem}-{number}"


@dataclass(frozen=True)
class Rung:
    """A trial's run on a share of the rows that has no result yet."""

    trial: Trial
    job: Job


def search(options: Options, wanted: int) -> bool:
    """Search until so many trials have ended, and print and draw what they came to; whether one of them failed.

    Called again it goes on: with trials that were at work at the last rung that they had not ended, and then with
    further ones. Raises a `UserError` for a fault of the list, and for a study that was made of another one.
    """
    devices = run.slots(options)
    run.check_folders(options)
    listed = _read(options, wanted)
    remote = run.remote_of(options)
    with only_one(options.out):
        made_of = _check_ends(options, listed)
        study = open_study(options.out / JOURNAL, made_of)
        kept = trials.are_kept(Path.cwd())
        if not kept:
            print("trials are no experiments of DVC: the project is not the root of a git repository", flush=True)
        found = Search(options, listed, remote, run.commit_of(options), study, kept)
        failed, there = _failures(study), study.get_trials(deepcopy=False)
        left = wanted - sum(trial.state.is_finished() for trial in there)
        print(f"{max(0, left)} of {wanted} trials to run", flush=True)
        if left > 0:
            with run.place_of(options, devices, several=left > 1) as place:
                _run(found, place, wanted)
        _tell(found)
        return _failures(study) > failed


def _read(options: Options, wanted: int) -> ExperimentList:
    if wanted < 1:
        raise UserError(f"--trials {wanted}: at least 1")
    if options.only:
        raise UserError("--only: a search has no experiments to choose from")
    listed = read_list(options.experiments)
    if not listed.search:
        raise UserError(f"{options.experiments}: it has no ranges for --search; give it `search` for `experiments`")
    if not NAME_OF_FILE.fullmatch(options.experiments.stem):
        raise UserError(f"{options.experiments}: trials have its name: letters, digits, _ and - alone")
    return listed


def run_of(listed: ExperimentList, name: str, values: dict[str, Value], level: int) -> Run:
    """A trial's run at a rung."""
    (data,), (seed,) = listed.data, listed.seeds
    seeds = f"run.seed={seed}", f"generation.seed={seed}"
    folder = data_folder.share_name(data, listed.rungs[level])
    return Run(name, folder, seed, (*listed.set, *ranges.overrides(values), *seeds))


def folder_of(options: Options, listed: ExperimentList, level: int) -> Path:
    """The data folder of a rung: the list's own, or one with a share of its rows."""
    (data,), share = listed.data, listed.rungs[level]
    if share == 1:
        return options.data / data
    return options.work / f"{options.experiments.stem}.data" / data_folder.share_name(data, share)


def _check_ends(options: Options, listed: ExperimentList) -> dict[str, Any]:
    """Check each bound as a parameter, and fetch all weights; what the study is made of."""
    last, whole = len(listed.rungs) - 1, folder_of(options, listed, -1)
    checked = [
        check.check_run(listed, run_of(listed, NAME, values, last), whole, f"{options.experiments}: search")
        for values in ranges.end_points(listed.search)
    ]
    for level, share in enumerate(listed.rungs[:-1]):
        data_folder.write_share(whole, share, folder_of(options, listed, level))
    check.fetch_weights({source: key for each in checked for source, key in each.weights.items()})
    return {
        **listed.model_dump(mode="json", include={"search", "rungs", "data", "seeds"}),
        "rows_sha256": checked[0].made_of["rows_sha256"],
        PARAMETERS: _parameters(options, listed),
    }


def _parameters(options: Options, listed: ExperimentList) -> str:
    """A hash of what trials have in common of `params.yaml`, the list's changes with it."""
    first = run_of(listed, NAME, ranges.end_points(listed.search)[0], 0).overrides
    where = f"{options.experiments}: search"
    found = check.params_of(listed.params, first, folder_of(options, listed, -1), where)
    return check.digest(found.model_dump(mode="json", exclude={"limits"}))


# The study


def open_study(journal: Path, made_of: dict[str, Any]) -> optuna.Study:
    """The study in a journal, new where there is none; a `UserError` where it is of something else, or no study."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(journal)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
        study = optuna.create_study(
            storage=storage, study_name=NAME, direction="maximize", load_if_exists=True, pruner=pruner
        )
    except ValueError as error:
        raise UserError(f"{journal}: not what Optuna writes ({error}); remove it, and a new search begins") from None
    before = study.user_attrs.get(MADE_OF)
    if before is None:
        study.set_user_attr(MADE_OF, made_of)
        return study
    for key, value in made_of.items():
        if before.get(key) != value:
            raise UserError(
                f"{journal}: is a search of something else ({key}); empty its folder, or give another --out"
            )
    return study


def _mend(journal: Path) -> None:
    """Drop what a kill has left of a line, and of Optuna's lock, which nobody holds while we hold ours.

    Optuna 5.0 reads past half a line, but writes the next one behind it, and can never open the file again. For a lock
    it waits half a minute.
    """
    (journal.parent / f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_whole(journal, whole.decode())
        print(f"{journal}: dropped its last line, which a kill had cut off", flush=True)


def draw(trial: Trial, searched: dict[str, Range]) -> dict[str, Value]:
    """The trial's parameters, whatever the order of the list's keys; those that it has already stay."""
    return {key: _drawn(trial, key, searched[key]) for key in sorted(searched)}


def _drawn(trial: Trial, key: str, found: Range) -> Any:
    if found.choice is not None:
        return trial.suggest_categorical(key, found.choice)
    if found.int is not None:
        return trial.suggest_int(key, *found.int)
    low, high = found.uniform or found.log or (0, 0)
    return trial.suggest_float(key, low, high, log=found.log is not None)


def sampler(seed: int, number: int) -> TPESampler:
    """For the trial of that number. One sampler for all would begin its random numbers anew after a kill, and draw the
    first trials' parameters again."""
    (own,) = np.random.SeedSequence([seed % 2**32, number]).generate_state(1)
    return TPESampler(seed=int(own))


# Trials


def _run(search: Search, place: Place, wanted: int) -> None:
    """Run until so many trials have ended, or the deadline lets none start."""
    study = search.study
    waiting = [rung for trial in left_behind(study, search.listed) if (rung := _next(search, trial))]
    running: dict[Future[Outcome], Rung] = {}
    late = 0
    while True:
        while not late and len(waiting) + len(running) < max(1, place.room()) and _number(study) < wanted:
            trial = _ask(search)
            print(f"{search.trial_name(trial.number)}: {study_report.of_trial(trial.params)}", flush=True)
            if rung := _next(search, trial):
                waiting.append(rung)
        for rung in [] if late else list(_startable(waiting, running)):
            waiting.remove(rung)
            running[place.ready(rung.job)()] = rung
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            rung, outcome = running.pop(future), future.result()
            if outcome.well is None:
                late += 1
            elif following := _ended(search, rung, outcome):
                waiting.append(following)
    if late:
        print(f"no time for more; trials left at work for later: {late + len(waiting)}", flush=True)


def _number(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False))


def _failures(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,)))


def left_behind(study: optuna.Study, listed: ExperimentList) -> Iterator[Trial]:
    """Trials that a call before this one has begun and not ended. Optuna has them as running for ever."""
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.sampler = sampler(listed.seeds[0], frozen.number)
        # As `Study.ask` makes a trial; there is no public way to one that is there.
        yield Trial(study, frozen._trial_id)


def _ask(search: Search) -> Trial:
    search.study.sampler = sampler(search.listed.seeds[0], _number(search.study))
    trial = search.study.ask()
    draw(trial, search.listed.search)
    return trial


def _startable(waiting: list[Rung], running: dict[Future[Outcome], Rung]) -> Iterator[Rung]:
    """Those that train nothing that another trains meanwhile: afterwards they find it in DVC's cache."""
    busy = {need for rung in running.values() for need in rung.job.needs}
    for rung in waiting:
        if not busy & rung.job.needs:
            busy |= rung.job.needs
            yield rung


def _next(search: Search, trial: Trial) -> Rung | None:
    """The first of a trial's rungs that has no result; None where it has ended, as Optuna is told."""
    if _parameters(search.options, search.listed) != search.study.user_attrs[MADE_OF][PARAMETERS]:
        raise UserError("params.yaml was changed while the search was at work; change it back, and call it again")
    values = draw(trial, search.listed.search)
    # The last that was reported, too: it may not have been decided on.
    first = max(0, len(_frozen(search, trial).intermediate_values) - 1)
    for level in range(first, len(search.listed.rungs)):
        run_ = run_of(search.listed, search.trial_name(trial.number), values, level)
        data = folder_of(search.options, search.listed, level)
        try:
            checked = check.check_run(search.listed, run_, data, run_.experiment)
        except UserError as error:
            # All else is as it was: each bound is good by itself, and these values cannot be together.
            print(error, flush=True)
            search.study.tell(trial, state=TrialState.FAIL)
            return None
        if not check.has_run(search.options.result(run_), checked.made_of):
            return Rung(trial, _job(search, run_, checked, data))
        if _is_over(search, trial, run_, level):
            return None
    raise AssertionError("the last rung ends a trial")


def _frozen(search: Search, trial: Trial) -> FrozenTrial:
    return search.study.get_trials(deepcopy=False)[trial.number]


def _job(search: Search, run_: Run, checked: CheckedRun, data: Path) -> Job:
    job = run.job_of(search.options, search.listed, run_, checked, data, search.commit, search.remote)
    # One copy for all rungs: each trains anew, and what one has trained stays in DVC's cache.
    copy = (search.options.work / run_.experiment).resolve()
    return replace(job, copy=copy, kept_as=run_.experiment if search.kept else None)


def _is_over(search: Search, trial: Trial, run_: Run, level: int) -> bool:
    """Whether a trial ends with a rung that has its result; Optuna and the user are told."""
    study, step = search.study, FACTOR**level
    rows = study_report.scores(search.options.result(run_))
    score = float(rows.mean())
    is_new = step not in _frozen(search, trial).intermediate_values
    if is_new:
        trial.report(score, step)
    if level == len(search.listed.rungs) - 1:
        study.tell(trial, score)
        verdict = "has seen all"
    # Asked again, after a kill just before it is told, Optuna lets the trial go on: one rung too many, and none lost.
    elif trial.should_prune():
        study.tell(trial, state=TrialState.PRUNED)
        verdict = "stops"
    else:
        verdict = "goes on"
    is_over = verdict != "goes on"
    if is_new or is_over:
        share = study_report.percent(search.listed.rungs[level])
        print(f"{run_.experiment} on {share} of train: {study_report.told(rows)}; {verdict}", flush=True)
    return is_over


def _ended(search: Search, rung: Rung, outcome: Outcome) -> Rung | None:
    """What follows a rung."""
    run.write_files(rung.job, outcome)
    if outcome.well:
        return _next(search, rung.trial)
    run.tell_failure(rung.job, outcome)
    search.study.tell(rung.trial, state=TrialState.FAIL)
    return None


# What came of it


def _tell(search: Search) -> None:
    """Print the table, and draw the picture."""
    found = [_climb(search, frozen) for frozen in search.study.get_trials(deepcopy=False)]
    if search.kept and (lost := trials.missing(climb.name for climb in found if climb.rungs)):
        print(f"no experiment of DVC, for on their machine the project is in no git: {', '.join(lost)}", flush=True)
    study_report.tell(found, search.listed, _scoring(search, found), search.options.out / PICTURE)


def _scoring(search: Search, climbs: list[study_report.Climb]) -> str:
    """What was counted, as the first rung of all tells it; empty where none has ended."""
    for climb in climbs:
        if climb.rungs:
            first = run_of(search.listed, climb.name, dict(climb.values), 0)
            return what_was_counted(read_json(search.options.result(first))["scores"]["scoring"])
    return ""


def _climb(search: Search, frozen: FrozenTrial) -> study_report.Climb:
    name = search.trial_name(frozen.number)
    rungs = []
    for level in range(len(frozen.intermediate_values)):
        result = search.options.result(run_of(search.listed, name, frozen.params, level))
        rungs.append(study_report.scores(result))
    return study_report.Climb(name, frozen.params, rungs, STATES.get(frozen.state, ""))
