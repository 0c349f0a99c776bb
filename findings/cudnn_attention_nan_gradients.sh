#!/usr/bin/env bash
# cuDNN's attention, one of the kernels that PyTorch's scaled_dot_product_attention chooses among, gives gradients that
# are not numbers for a Qwen2 in bf16 whose batch is padded. The loss is a number. With the other kernels all gradients
# are numbers.
# Takes the torch and transformers that are installed; where they are not, torch 2.11.0 and transformers 5.17.0.
set -euo pipefail
if ! command -v nvidia-smi > /dev/null; then
  echo "this machine has no NVIDIA GPU: the finding is of one"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python=python3
if ! python3 -c 'import torch, transformers' 2>/dev/null; then
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet torch==2.11.0 transformers==5.17.0 numpy==2.4.6
  python="$folder/venv/bin/python"
fi
cat > "$folder/measure.py" <<'PYTHON'
import itertools
import sys

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel

if not torch.cuda.is_available():
    sys.exit(print(f"torch {torch.__version__} finds no GPU: the finding is of one"))

SHAPES = {
    "heads of 16": {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4},
    "heads of 64": {"hidden_size": 896, "intermediate_size": 1024, "num_attention_heads": 14},
    "heads of 128": {"hidden_size": 1536, "intermediate_size": 1024, "num_attention_heads": 12},
}
LENGTHS = (96, 61, 17, 8)
OTHERS = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def model_of(shape):
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=1000, num_hidden_layers=2, num_key_value_heads=2, attn_implementation="sdpa", **SHAPES[shape]
    )
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).cuda().train()


def batch(side):
    """Rows of several lengths, padded on one side; labels are of their own tokens."""
    ids = torch.randint(10, 1000, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(0))
    places = torch.arange(max(LENGTHS))
    mask = torch.stack([places < length if side == "right" else places >= max(LENGTHS) - length for length in LENGTHS])
    labels = ids.masked_fill(~mask, -100)
    return {name: each.cuda() for name, each in (("input_ids", ids), ("attention_mask", mask.long()), ("labels", labels))}


def not_numbers(shape, side, kernels):
    """How many parameters have such a gradient, and the loss; None where a kernel does not take this input."""
    model = model_of(shape)
    try:
        with sdpa_kernel(kernels):
            loss = model(**batch(side)).loss
            loss.backward()
    except RuntimeError:
        return None
    return sum(not each.grad.isfinite().all() for each in model.parameters() if each.grad is not None), loss.item()


seen = False
for shape, side in itertools.product(SHAPES, ("right", "left")):
    found, others = not_numbers(shape, side, [SDPBackend.CUDNN_ATTENTION]), not_numbers(shape, side, OTHERS)
    told = [f"{each[0]} (loss {each[1]:.2f})" if each else "not for this input" for each in (found, others)]
    print(f"{shape}, padded on the {side}: parameters with a gradient that is no number: cuDNN {told[0]}, others {told[1]}")
    seen |= bool(found and found[0] and others and not others[0])
print(f"torch {torch.__version__}, transformers {transformers.__version__}, cuDNN {torch.backends.cudnn.version()}, "
      f"{torch.cuda.get_device_name()}")
sys.exit(0 if seen else "no longer so")
PYTHON
"$python" "$folder/measure.py"
