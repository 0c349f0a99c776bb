"""The frozen base weights of one model, spread over ranks: each holds its part, and a layer is whole while it computes.

By PyTorch's `fully_shard`, each decoder layer by itself. Adapters come later and stay whole on each rank, and so do
optimiser, checkpoints and what is saved: as where each rank has a copy of the model. The collectives are in the forward
and the backward pass: all ranks must run equally many passes, see `steps`.
"""

from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers.modeling_layers import GradientCheckpointingLayer

from yoyak.core.environment import device
from yoyak.core.errors import UserError
from yoyak.modeling.loading import check_finite, pretrained
from yoyak.modeling.precision import Precision
from yoyak.modeling.spec import QuantizationParams

STORAGE = torch.float32
"""Of packed values, which are whole numbers by their bits. PyTorch 2.11's `fully_shard` takes floating point alone; and
in 16 bits a GPU, as it puts a layer together, makes all bits that are no number the same ones (bitsandbytes' issue
1945): on an H200 losses differed by up to 0.3 % so."""


def load_part(chosen: Precision, quantization: QuantizationParams, folder: Path, what: str) -> Any:
    """The model in `folder`, of whose base weights this rank has its part; in 4 bits where that is asked for.

    To be called on all ranks, once they are together. No rank ever has more than a layer whole on its GPU. In the
    host's memory are pages of the files, which all ranks share, where the files have the dtype that is asked for; where
    not, a copy on each rank. `what` names it in the error that a weight which is no number raises.
    """
    # On the CPU, tensors are the mapped files: each layer is read as it is moved.
    model = pretrained(folder, dtype=chosen.torch_dtype)
    if getattr(model, "hf_quantizer", None) is not None:
        raise UserError(f"{folder}: its weights are quantised already, and limits.sharded needs them in 16 or 32 bits")
    whole = model.base_model
    layers = [layer for layer in whole.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise UserError(
            f"{folder}: {type(model).__name__} has no layers that transformers marks as such to shard; "
            "set limits.sharded: false"
        )
    model.requires_grad_(False)
    mesh = init_device_mesh(device(), (distributed.get_world_size(),))
    # Where one is within another, it comes first, and is left out of the other's part.
    for layer in reversed(layers):
        layer.to(device())
        if quantization.load_in_4bit:
            # Afterwards it cannot be seen.
            check_finite(layer, what)
            _put_in_4_bits(layer, quantization, chosen.torch_dtype)
        fully_shard(layer, mesh=mesh)
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    # Tied ones are one weight in two places, which stays whole.
    tied = ends[0].weight is ends[1].weight
    for end in [] if tied else ends:
        # The last is no part of the root below: it would stay whole after its forward pass if it were not told.
        fully_shard(end.to(device()), mesh=mesh, reshard_after_forward=True)
    model.to(device())
    # What is left, such as the last norm, is small. It is the root, by which layers know of each other.
    fully_shard(whole, mesh=mesh, ignored_params=set(whole.parameters()))
    return model


def shards_of(model: Any) -> int:
    """Ranks that hold a part of it each; 1 where it is whole."""
    sharded = any(isinstance(module, FSDPModule) for module in model.modules())
    return distributed.get_world_size() if sharded else 1


def _put_in_4_bits(layer: Any, quantization: QuantizationParams, dtype: torch.dtype) -> None:
    """All linear layers within it, as transformers does it: packed on the device, with their values of 16 bits gone."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for parent in list(layer.modules()):
        for name, linear in list(parent.named_children()):
            if type(linear) is not torch.nn.Linear:
                continue
            with torch.device("meta"):
                packed = Linear4bit(
                    linear.in_features,
                    linear.out_features,
                    bias=linear.bias is not None,
                    compute_dtype=dtype,
                    compress_statistics=quantization.double,
                    quant_type=quantization.type,
                    quant_storage=STORAGE,
                )
            weight = Params4bit(
                linear.weight.data,
                requires_grad=False,
                compress_statistics=quantization.double,
                quant_type=quantization.type,
                quant_storage=STORAGE,
                module=packed,
            ).to(device())
            # Its scales stay whole on each rank, in `packed.quant_state`: an eighth to half a bit a value.
            packed.weight = torch.nn.Parameter(weight.data, requires_grad=False)
            packed.bias = linear.bias
            # Without gradients, a CPU with these instructions would repack the weight, for good.
            packed.support_avx512bf16_for_cpu = False
            setattr(parent, name, packed)
