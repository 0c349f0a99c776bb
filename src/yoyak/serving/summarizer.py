"""Summaries of any dialogues by the trained models of this project."""

import gc
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from yoyak.core import gpu
from yoyak.core.errors import UserError
from yoyak.core.params import PARAMS
from yoyak.core.records import Dialogue, Prediction, Prompt
from yoyak.core.run import entry_of, tuned
from yoyak.data.dialogues import clean
from yoyak.data.prompts import build
from yoyak.ensembling import postprocessing, weighting
from yoyak.ensembling.weighting import ENSEMBLE, PLAN, Plan
from yoyak.inference.averaging import assemble
from yoyak.inference.generate import faults_of, generate
from yoyak.inference.loading import load_for_inference, load_mean
from yoyak.inference.params import InferenceConfig, Member, read_config
from yoyak.modeling import weights
from yoyak.modeling.loading import Loaded
from yoyak.preflight.check import read_params
from yoyak.preflight.params import Params

HOW_TO_GET = "`dvc pull` brings what was pushed, `dvc repro` trains"

Load = Callable[[str], Loaded]
"""From a model's name to the model in memory."""


class Summaries(NamedTuple):
    """A model's, or the ensemble's, summaries of the dialogues."""

    model: str
    predictions: list[Prediction]
    """A prediction a dialogue, in their order; `faults` are those of the chosen summary, in the ensemble's too."""
    shortened: int
    """Number of dialogues that lost turns to fit the model's token budget; of the ensemble, its worst member's."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the summaries should know, a line each."""
        lost = f"{self.model}: {self.shortened} of {len(self.predictions)} dialogues lost turns to max_prompt_tokens"
        return [lost] * bool(self.shortened) + [
            f"{row.fname}: the summary is faulty after a second search, too: {', '.join(row.faults)}"
            for row in self.predictions
            if row.faults
        ]


def open_project() -> Params:
    """The parameters of the project in the working folder; from here on this process keeps to its limits."""
    params = read_params(PARAMS)
    gpu.use_one()
    gpu.limit(params.limits)
    return params


def trained_models(params: Params) -> list[str]:
    """Names of the trained models that are here, at least one; the models of the run come first."""
    known = dict.fromkeys([*params.run.scored, *params.models, *map(tuned, params.models)])
    names = [name for name in known if _is_here(params, name)]
    if not names:
        raise UserError(f"no trained model is here; {HOW_TO_GET}")
    return names


def offered(params: Params) -> list[str]:
    """Names that `summarize` can be asked for: the trained models, and the ensemble where each member is here."""
    names = trained_models(params)
    joins = PLAN.exists() and len(names) > 1 and set(weighting.read_plan().weights) <= set(names)
    return [*names, ENSEMBLE] if joins else names


def default(params: Params) -> str:
    """Name of the ensemble where it was made of several models, else of the only model."""
    names = trained_models(params)
    of_run = [name for name in names if name in params.run.scored]
    if len(of_run) > 1 and PLAN.exists():
        return ENSEMBLE
    chosen = of_run or names
    if len(chosen) > 1:
        raise UserError(f"several models are here, and no ensemble of them; choose with --model: {', '.join(chosen)}")
    return chosen[0]


def check_name(params: Params, name: str) -> None:
    """Stop before any work where `name` is no trained model of this project, nor its ensemble."""
    if name != ENSEMBLE and entry_of(name) not in params.models:
        known = ", ".join([*trained_models(params), ENSEMBLE])
        raise UserError(f"no model {name!r} in params.yaml; trained and here: {known}")
    for model in weighting.read_plan().weights if name == ENSEMBLE else [name]:
        if missing := _missing(params, model):
            of = f"the ensemble's member {model}" if name == ENSEMBLE else model
            how = HOW_TO_GET if model in params.run.scored else f"put it into `run` of {PARAMS}, then {HOW_TO_GET}"
            raise UserError(f"{of} is not here ({missing} is missing); {how}")
        for member, config in _job(model).members_of(model).items():
            # To read a tokenizer twice takes as long as to load a small model: see `load`.
            _check_whole(member, config, unread=(weights.TOKENIZER,))


def _check_whole(name: str, config: Member, unread: Collection[str] = ()) -> None:
    """Stop where a trained model's files are not whole; those in `unread` are not read."""
    folder, of_adapters = Path(f"models/{name}"), config.model.method == "lora"
    if fault := weights.fault_of(folder, "adapter_config.json" if of_adapters else "config.json", unread):
        raise UserError(f"{folder}: {fault}; `dvc checkout --force {folder}` brings it back")


def summarize(params: Params, names: Sequence[str], dialogues: Sequence[Dialogue], load: Load) -> Iterator[Summaries]:
    """The summaries of each of `names` as soon as they are made, the ensemble's last.

    Models run one after another; where `load` keeps none, memory holds one at a time, or an average's members.
    """
    for name in names:
        check_name(params, name)
    plan = weighting.read_plan() if ENSEMBLE in names else None
    members = list(plan.weights) if plan else []
    prompts = [build(clean(row), params.prompts, for_training=False) for row in dialogues]
    made: dict[str, Summaries] = {}
    for name in dict.fromkeys([*names, *members]):
        if name == ENSEMBLE:
            continue
        made[name] = _summarize(name, prompts, load)
        if name in names:
            yield made[name]
    if plan:
        yield _combined(params, [made[name] for name in members], plan, prompts)


def load(name: str) -> Loaded:
    """The trained model, or the mean of the weights of several, in memory: on the GPU where there is one."""
    members = _job(name).members_of(name)
    folders, first = [Path(f"models/{member}") for member in members], next(iter(members.values()))
    with _damage_told(members), gpu.oom_in_one_line(name, "ask for fewer models", "ask for fewer models"):
        if name in members:
            return load_for_inference(first.model, folders[0], first.quantization)
        return load_mean(first.model, folders)


@contextmanager
def _damage_told(members: Mapping[str, Member]) -> Iterator[None]:
    """One line of what is raised where a file of trained models cannot be read. Any library may raise it: tokenizers
    has no class of errors of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception:
        for name, config in members.items():
            _check_whole(name, config)
        raise


def _summarize(name: str, prompts: list[Prompt], load: Load) -> Summaries:
    # What is left of the model before this one would take memory beside it.
    gc.collect()
    config = _job(name)
    with tempfile.TemporaryDirectory() as kept:
        loaded = assemble(name, {each: load(each) for each in config.in_memory(name)})
        generated = generate(loaded, prompts, config, name, Path(kept))
    return Summaries(name, generated.predictions, generated.shortened_prompts)


def _combined(params: Params, members: list[Summaries], plan: Plan, prompts: list[Prompt]) -> Summaries:
    """The members' candidates, joined and repaired as the stage `ensemble` does it."""
    rows = weighting.combine({member.model: member.predictions for member in members}, plan)
    rows = postprocessing.apply(params.postprocessing, rows)
    judged = [_with_faults(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
    return Summaries(ENSEMBLE, judged, max(member.shortened for member in members))


def _with_faults(row: Prediction, prompt: Prompt) -> Prediction:
    """The ensemble's prediction with its faults, found as a model's are."""
    faults = faults_of(row.candidates[0], "\n".join(prompt.turns)) if row.candidates else ("empty",)
    return row.model_copy(update={"faults": faults or None})


def _job(name: str) -> InferenceConfig:
    return read_config(_resolved(name))


def _resolved(name: str) -> Path:
    return Path(f"data/resolved/{name}/generation.yaml")


def _missing(params: Params, name: str) -> Path | None:
    """The first that is not here of what makes a trained model, or an average of such."""
    members = params.models.get(name, {}).get("members", [name])
    needed = [Path(f"models/{member}") for member in members] + [_resolved(each) for each in (*members, name)]
    return next((path for path in needed if not path.exists()), None)


def _is_here(params: Params, name: str) -> bool:
    return _missing(params, name) is None
