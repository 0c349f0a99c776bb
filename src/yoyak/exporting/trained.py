"""The trained model that is exported: where it lies, and how it is loaded."""

from pathlib import Path
from typing import Any, NamedTuple

from yoyak.core import gpu
from yoyak.core.errors import UserError, quoted
from yoyak.core.params import PARAMS
from yoyak.core.run import entry_of
from yoyak.inference.loading import load_for_inference, load_mean
from yoyak.inference.merging import merge
from yoyak.inference.params import InferenceConfig, read_config
from yoyak.modeling import weights as weights_of
from yoyak.modeling.loading import Loaded, pretrained
from yoyak.modeling.precision import TORCH_DTYPES
from yoyak.modeling.spec import DType, ModelSpec
from yoyak.preflight.params import Params

HOW_TO_GET = "`dvc pull` brings what was pushed, `dvc repro` trains"


class Trained(NamedTuple):
    """One trained model, or the mean of the weights of several."""

    name: str
    config: InferenceConfig
    folders: list[Path]
    """Of its adapters, or its weights; of a mean those of its members."""

    @property
    def spec(self) -> ModelSpec:
        """That of a mean's members is one and the same."""
        return next(iter(self.config.members_of(self.name).values())).model

    @property
    def is_mean(self) -> bool:
        return len(self.folders) > 1

    @property
    def has_adapters(self) -> bool:
        return self.spec.method == "lora"


def find(params: Params, name: str) -> Trained:
    """The model `name` of the project in the working folder, whole."""
    if entry_of(name) not in params.models:
        raise UserError(f"no model {quoted(name)!r} in params.yaml; there are {', '.join(params.models)}")
    resolved = Path(f"data/resolved/{name}/generation.yaml")
    if not resolved.is_file():
        raise UserError(f"{name} is not here ({resolved} is missing); {_how_to_get(params, name)}")
    config = read_config(resolved)
    if config.in_memory(name) != [name]:
        raise UserError(
            f"{name}: the mean of its members' logits is no model of its own; export its members: "
            f"{', '.join(config.in_memory(name))}"
        )
    folders = [Path(f"models/{member}") for member in config.members_of(name)]
    found = Trained(name, config, folders)
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{name} is not here ({folder} is missing); {_how_to_get(params, name)}")
        if fault := weights_of.fault_of(folder, "adapter_config.json" if found.has_adapters else "config.json"):
            raise UserError(f"{folder}: {fault}; `dvc checkout --force {folder}` brings it back")
    return found


def _how_to_get(params: Params, name: str) -> str:
    return HOW_TO_GET if name in params.run.scored else f"put it into `run` of {PARAMS}, then {HOW_TO_GET}"


def load(trained: Trained, dtype: DType) -> Loaded:
    """It in memory, adapters merged in; `dtype` is as precision.choose has it on this machine."""
    spec = trained.spec.model_copy(update={"dtype": dtype})
    fewer = "set CUDA_VISIBLE_DEVICES= to export on the CPU"
    with gpu.oom_in_one_line(trained.name, fewer, fewer):
        if trained.is_mean:
            return load_mean(spec, trained.folders)
        return load_for_inference(spec, trained.folders[0])


def weights(trained: Trained) -> Any:
    """The model as the pipeline has it where 16 bits are fast, on the CPU, to be saved: adapters merged in."""
    spec = trained.spec
    source = weights_of.fetch(spec.weights, spec.pin) if trained.has_adapters else trained.folders[0]
    model = pretrained(source, dtype=TORCH_DTYPES[spec.dtype])
    return merge(model, trained.folders) if trained.has_adapters else model
