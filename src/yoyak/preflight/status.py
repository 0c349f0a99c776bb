"""What `dvc repro` would run, and why: nothing is run, fetched or written for the answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from gettext import gettext as _
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from yoyak.core.dvc_lock import written_now
from yoyak.core.dvc_project import in_one_line
from yoyak.core.errors import UserError
from yoyak.core.language import N_
from yoyak.core.params import PARAMS, Section, changes, check, read_section, read_yaml
from yoyak.core.records import read_json
from yoyak.core.repository import cache_folder
from yoyak.core.run import RunParams, entry_of, tuned
from yoyak.preflight.check_entries import check_entries
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import resolve, resolve_average
from yoyak.training.checkpoints import last_checkpoint

FIRST = "prepare_prompts"
PERHAPS = "perhaps "
"""Before a reason where DVC decides when it comes to the stage: what runs before may write the same once more."""
MAY_WRITE_THE_SAME = ("score", "ensemble")
KEY_DIGITS = 16
"""Behind a model's name, in the name of the folder in which its training waits."""
OF_PROMPTS = ("data", "prompts")
"""Sections that decide on prompts and references."""


@dataclass
class State:
    """What is known of a stage."""

    name: str
    why: list[str] = field(default_factory=list)
    """Why it would run: changed parameters (`lora.r: 16 → 32`), files, and stages that run before it."""
    missing: list[str] = field(default_factory=list)
    """Outputs that are not in the working folder."""
    cached: bool = True
    """Whether DVC's cache has all of them."""
    running: bool = False

    @property
    def word(self) -> str:
        if self.running:
            return N_("running")
        if self.why:
            return N_("perhaps") if self.may_be_kept else N_("stale")
        if self.missing:
            return N_("in the cache") if self.cached else N_("not here")
        return N_("up to date")

    @property
    def may_be_kept(self) -> bool:
        return all(reason.startswith(PERHAPS) for reason in self.why)


class Outlook:
    """The stages of a DVC repository, each with what it waits for."""

    def __init__(self, repo: Any) -> None:
        self.stages = {stage.name: stage for stage in repo.index.stages if getattr(stage, "cmd", None)}
        self.outputs = [(out, name) for name, stage in self.stages.items() for out in stage.outs]
        self.writing = written_now(Path(repo.tmp_dir))
        self.states: dict[str, State] = {}

    def state(self, name: str) -> State:
        if name not in self.states:
            self.states[name] = self._look_at(self.stages[name])
        return self.states[name]

    def _look_at(self, stage: Any) -> State:
        state = State(stage.name, running=any(out.fs_path in self.writing for out in stage.outs))
        if not any(entry.hash_info for entry in (*stage.deps, *stage.outs)):
            state.why.append("it has never run")
            return state
        if stage.cmd_changed:
            state.why.append("its command in dvc.yaml")
        for out in stage.outs:
            said = out.workspace_status().get(str(out))
            if said == "deleted":
                state.missing.append(str(out))
                state.cached &= bool(out.use_cache) and not out.changed_cache()
            elif said:
                state.why.append(f"{out} is not as the stage wrote it")
        for dep in stage.deps:
            state.why += self._changes_of(dep)
        certain = [reason for reason in state.why if not reason.startswith(PERHAPS)]
        state.why = list(dict.fromkeys(certain or state.why))
        return state

    def _changes_of(self, dep: Any) -> Iterator[str]:
        if dep.hash_name == "params":
            yield from changes(dep.hash_info.value or {}, dep.read_params())
            return
        before = dict.fromkeys(name for out, name in self.outputs if _overlap(dep.fs_path, out.fs_path))
        lost = False
        for name in before:
            upstream = self.state(name)
            lost |= bool(upstream.missing)
            if name == FIRST:
                yield from self._what_the_first_changes(str(dep))
            elif upstream.why:
                doubt = PERHAPS if upstream.may_be_kept or name in MAY_WRITE_THE_SAME else ""
                yield f"{doubt}after {name}"
        if lost:
            # What is missing is judged by what dvc.lock says of both ends.
            if any(out.fs_path == dep.fs_path and out.hash_info != dep.hash_info for out, _ in self.outputs):
                yield f"{dep}"
        elif dep.workspace_status():
            yield from _inside(dep)

    def _what_the_first_changes(self, path: str) -> list[str]:
        """What of the first stage's own reasons reaches the file, a path that it writes."""
        first = self.state(FIRST)
        if not first.why:
            return []
        if path.startswith("data/resolved/"):
            model, kind = path.split("/")[2:]
            return [line.partition(":")[0] for line in self.resolved.get((model, kind), [])]
        dependency = next(iter(self.stages[FIRST].params), None)
        old, new = (dependency.hash_info.value, dependency.read_params()) if dependency else ({}, {})
        files = {str(read_yaml(PARAMS)["data"]["dir"]), "src/yoyak/data"}
        texts = [line for key in OF_PROMPTS for line in changes((old or {}).get(key), new.get(key), key)]
        # Their values stand beside the first stage already.
        texts = [line.partition(":")[0] for line in texts]
        return [*texts, *(f"{PERHAPS}{line}" for line in first.why if line in files)]

    @cached_property
    def resolved(self) -> dict[tuple[str, str], list[str]]:
        """What the first stage would change in `data/resolved`, by model and file."""
        dependency = next(iter(self.stages[FIRST].params), None)
        new = check(Params, read_yaml(PARAMS), f"{PARAMS}:")
        try:
            old = check(Params, dependency.hash_info.value, "dvc.lock:") if dependency else new
        except UserError:
            return _Unknown()
        return {
            (model, f"{kind}.yaml"): changes(_of(old, model, kind), _of(new, model, kind))
            for model in (*new.run.scored, *new.run.untuned)
            for kind in ("training", "tuning", "generation")
        }


class _Unknown(dict[tuple[str, str], list[str]]):
    """Where the last run's parameters are not of this version's form."""

    def get(self, key: object, default: object = None) -> Any:
        return ["params.yaml of the last run has other keys"]


def _of(params: Params, model: str, kind: str) -> Mapping[str, Any]:
    """What `data/resolved` has of a model; the pin of its weights is found by the first stage."""
    entry = entry_of(model)
    if entry not in params.models:
        return {}
    if "members" in params.models[entry]:
        return resolve_average(params, entry, {}).model_dump(mode="json") if kind == "generation" else {}
    resolved, drawn = resolve(params, entry, None), kind == "generation" and model != entry
    section: Section | None = resolved.tuned_generation if drawn else getattr(resolved, kind)
    return section.model_dump(mode="json") if section else {}


def _overlap(path: str, other: str) -> bool:
    return Path(path).is_relative_to(other) or Path(other).is_relative_to(path)


def _inside(dep: Any) -> list[str]:
    """What has changed in a file of parameters, if DVC's cache has the old one; else its name."""
    if str(dep).endswith(".yaml") and str(dep).startswith("data/resolved/"):
        old = Path(dep.repo.cache.local.oid_to_path(dep.hash_info.value))
        if old.exists() and Path(dep.fs_path).exists():
            found = changes(read_yaml(old), read_yaml(Path(dep.fs_path)))
            return found or [str(dep)]
    return [str(dep)]


def states() -> list[State]:
    """Of each stage of the run, in the order in which `dvc repro` takes them."""
    check_entries(check(Params, read_yaml(PARAMS), f"{PARAMS}:"), PARAMS)
    with in_one_line("workspace"):
        from dvc.repo import Repo

        # Without DVC's lock, which a run in another terminal may hold.
        outlook = Outlook(Repo())
        return [outlook.state(name) for name in outlook.stages]


def tables() -> list[Table | str]:
    """What `yoyak status` prints."""
    found = states()
    return [_by_model({state.name: state for state in found}), *_reasons(found), _what_would_run(found)]


def _by_model(states: Mapping[str, State]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("", _("prepared"), _("trained"), _("inferred"), _("scored")):
        table.add_column(column, no_wrap=True)
    run = read_section(RunParams, "run")
    rows = {name: (f"train@{name}", f"infer@{name}") for name in run.models}
    rows |= {tuned(name): (f"tune@{name}", f"infer_tuned@{name}") for name in run.tuned}
    rows |= {f"untuned_{name}": ("", f"infer_untuned@{name}") for name in run.untuned}
    rows |= {name: ("", f"infer_averaged@{name}") for name in run.averaged}
    for name, stages in rows.items():
        words = [states[stage].word if stage in states else "" for stage in (FIRST, *stages, "score")]
        shown = [_(word) if word else "" for word in words]
        if words[1] in ("stale", "perhaps", "running") and (steps := _steps_kept(name)):
            shown[1] += f", {steps}"
        table.add_row(name, *shown)
    for name in ("ensemble", "submit"):
        table.add_row(name, "", "", "", _(states[name].word))
    return table


def _steps_kept(model: str) -> str | None:
    """`step 5 of 22 kept`, of a training that was stopped: it goes on there where nothing that it depends on has
    changed."""
    folders = (cache_folder() / "checkpoints").glob(f"{model}-{'[0-9a-f]' * KEY_DIGITS}")
    kept = [checkpoint for folder in folders if (checkpoint := last_checkpoint(folder))]
    if not kept:
        return None
    newest = max(kept, key=lambda checkpoint: checkpoint.stat().st_mtime)
    state = read_json(newest / "trainer_state.json")
    return _("step {step} of {steps} kept").format(step=state["global_step"], steps=state["max_steps"])


def _reasons(states: list[State]) -> list[str]:
    return [f"{state.name}: {escape(_told(state.why))}" for state in states if state.why]


def _told(why: list[str]) -> str:
    """`lora.r: 16 → 32; after train@a, train@b`."""
    parts: dict[str, list[str]] = {}
    for reason in why:
        behind, after, stage = reason.partition("after ")
        parts.setdefault(behind + after if after else reason, []).append(stage)
    return "; ".join(part + ", ".join(stages) for part, stages in parts.items())


def _what_would_run(states: list[State]) -> str:
    stale = [state for state in states if state.why]
    perhaps = sum(state.may_be_kept for state in stale)
    told = (
        _("stale: {stale} of {stages} stages, {perhaps} of them perhaps; `dvc repro` runs them")
        if perhaps
        else _("stale: {stale} of {stages} stages; `dvc repro` runs them")
    )
    lines = [told.format(stale=len(stale), stages=len(states), perhaps=perhaps)]
    gone = [state for state in states if state.missing and not state.why]
    if lost := [state.name for state in gone if not state.cached]:
        told = _("not here: outputs of {stages}; `dvc pull` brings what was pushed, `dvc repro` makes the rest")
        lines.append(told.format(stages=", ".join(lost)))
    if cached := [state.name for state in gone if state.cached]:
        told = _("in the cache alone: outputs of {stages}; `dvc checkout` brings them back")
        lines.append(told.format(stages=", ".join(cached)))
    return escape("\n".join(lines))
