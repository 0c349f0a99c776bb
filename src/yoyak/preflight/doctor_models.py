"""What `yoyak doctor` looks at with PyTorch: what this machine computes on, and what the run's models need."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import psutil
import torch

from yoyak.core import environment
from yoyak.core.errors import UserError
from yoyak.core.gpu import GIB
from yoyak.core.limits import check_disk
from yoyak.core.repository import repository_root
from yoyak.metrics import encoder, morphemes
from yoyak.modeling import hub, precision, weights
from yoyak.modeling.spec import is_folder
from yoyak.preflight.finding import Finding, within_patience
from yoyak.preflight.params import Params
from yoyak.preflight.resolve import ResolvedModel, resolve
from yoyak.tuning.params import told_without_gpu

LITTLE_MEMORY_GIB = 4
"""The default run of a fresh clone takes up to 6 GB, some of which it can do without."""


def _processor() -> Iterator[Finding]:
    yield Finding("ok", "CPU", environment.describe_cpu())


def _gpu() -> Iterator[Finding]:
    seen = _seen_by_the_driver()
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        memory = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
        mark, more = ("ok", "") if free > total / 2 else ("warning", "; see with `nvidia-smi` who else uses it")
        yield Finding(mark, "GPU", f"{seen or torch.cuda.get_device_name()}, {memory}{more}")  # type: ignore[arg-type]
    elif seen:
        told = f"{seen}, but PyTorch {torch.__version__} does not see it: a newer driver, or CUDA_VISIBLE_DEVICES"
        yield Finding("problem", "GPU", told)
    else:
        yield Finding("ok", "GPU", "none: models are trained on the CPU")


def _seen_by_the_driver() -> str | None:
    """The first GPU and its driver, as NVIDIA's tool names them."""
    if shutil.which("nvidia-smi") is None:
        return None
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    return ", driver ".join(done.stdout.splitlines()[0].split(", ")) if done.returncode == 0 and done.stdout else None


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available / GIB
    if free < LITTLE_MEMORY_GIB:
        yield Finding("warning", "memory", f"{free:.1f} GiB are free, which is little: end what else runs")
    else:
        yield Finding("ok", "memory", f"{free:.1f} GiB are free")


OF_MACHINE: dict[str, Callable[[], Iterator[Finding]]] = {"CPU": _processor, "GPU": _gpu, "memory": _memory}


def _computing(params: Params) -> Iterator[Finding]:
    """What the models of the run compute in, which may not be what they ask for."""
    asked = {model.training.model.dtype for model in _resolved(params).values()}
    chosen = {dtype: precision.choose(dtype) for dtype in sorted(asked)}
    told = [f"{dtype} in {taken.dtype} ({taken.why})" for dtype, taken in chosen.items()]
    yield Finding("ok", "computes", "; ".join(told))
    configs = {name: model.tuning for name, model in _resolved(params).items() if name in params.run.tuned}
    for name, config in configs.items() if environment.device() == "cpu" else ():
        if config:
            yield Finding("warning", "tuning", told_without_gpu(name, config.tuning))


def _four_bits(params: Params) -> Iterator[Finding]:
    """Whether bitsandbytes packs and unpacks a tensor on this device."""
    needed = [name for name, model in _resolved(params).items() if _in_4bit(model)]
    try:
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit

        packed, state = quantize_4bit(torch.ones(64, 64, device=environment.device()), quant_type="nf4")
        dequantize_4bit(packed, state)
    except (ImportError, OSError, RuntimeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        told = f"bitsandbytes does not work on this device ({reason})"
        if needed:
            mend = "set load_in_4bit false, or `make setup` brings its version"
            yield Finding("problem", "4 bits", f"{told}, and {', '.join(needed)} asks for it: {mend}")
        else:
            yield Finding("warning", "4 bits", f"{told}; no model of the run asks for it")
    else:
        yield Finding("ok", "4 bits", f"bitsandbytes works; {', '.join(needed) or 'no model of the run'} asks for it")


def _in_4bit(model: ResolvedModel) -> bool:
    of_training, of_generation = model.training.quantization, model.generation.quantization
    return bool((of_training and of_training.load_in_4bit) or of_generation)


def _resolved(params: Params) -> dict[str, ResolvedModel]:
    return {name: resolve(params, name, pin=None) for name in dict.fromkeys([*params.run.models, *params.run.untuned])}


def _analyser(params: Params) -> Iterator[Finding]:
    morphemes.require(params.scoring.tokenizer)
    yield Finding("ok", "morphemes", " ".join(morphemes.describe(params.scoring.tokenizer).values()))
    if params.scoring.encoder:
        encoder.require(params.scoring.encoder)
        yield Finding("ok", "encoder", encoder.describe(params.scoring.encoder)["encoder_version"])


def _extras(params: Params) -> Iterator[Finding]:
    """Packages that not every run needs."""
    if params.tracking.wandb and find_spec("wandb") is None:
        yield Finding("problem", "extras", "tracking.wandb needs the package wandb: `pip install wandb`")
    elif find_spec("gradio") is None:
        yield Finding("warning", "extras", "gradio is missing, which `yoyak serve` alone needs: `make extra-serve`")
    else:
        yield Finding("ok", "extras", "what the parameters and `yoyak serve` need is here")


def _weights(params: Params) -> Iterator[Finding]:
    """Where the base weights of each model are, and whether the disk has room for what is still to be written."""
    sources: dict[str, list[str]] = {}
    for name, model in _resolved(params).items():
        sources.setdefault(model.training.model.weights, []).append(name)
    offline = hub.offline() if any(map(_of_hub, sources)) else None
    away, to_write = [], 0.0
    for source, names in sources.items():
        what = f"weights of {', '.join(names)}"
        if _of_hub(source) and offline and not weights.is_here(source):
            away += names
            continue
        try:
            gb = within_patience(partial(weights.still_to_write_gb, source, f"models.{names[0]}.weights"), source)
        except UserError as error:
            yield Finding("problem", what, str(error))
            continue
        to_write += gb
        place = "from scratch" if source == "scratch" else f"{source}, here"
        yield Finding("ok", what, f"{source}, {gb:.1f} GB still to be written" if gb else place)
    if away:
        told = f"the Hugging Face Hub is out of reach ({offline}), and has the weights of {', '.join(away)}"
        yield Finding("problem", "weights", f"{told}: check the network, or set `weights` to a local folder")
    yield from _room(params, to_write)


def _of_hub(source: str) -> bool:
    return source != "scratch" and not is_folder(source) and not source.startswith("package:")


def _room(params: Params, to_write_gb: float) -> Iterator[Finding]:
    check_disk(params.limits, 1 + to_write_gb, "the run, with weights that are still to be downloaded or converted,")
    free = shutil.disk_usage(repository_root()).free / 1e9
    yield Finding("ok", "disk", f"{free:.1f} GB are free, and the run writes {1 + to_write_gb:.1f} GB beside models")


OF_RUN: dict[str, Callable[[Params], Iterator[Finding]]] = {
    "computes": _computing,
    "4 bits": _four_bits,
    "morphemes": _analyser,
    "extras": _extras,
    "weights and disk": _weights,
}
