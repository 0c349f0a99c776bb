#!/usr/bin/env bash
# On a CPU with AVX512-BF16, a bitsandbytes Linear4bit packs its weights anew at the first forward pass without gradients
# in eval(). There is no way back from it: in train() the layer goes on with a kernel that has no backward pass, and
# passes no gradient to what lies before it. One evaluation between two epochs, and adapters below the layer stop to
# learn. No error is raised; PyTorch warns, once a process.
# Seen: bitsandbytes 0.50.2 with torch 2.13.0 on x86_64 with AVX512-BF16: the gradient of the layer's input is exact
# before an evaluation, and None after it.
set -euo pipefail
if ! grep --quiet avx512_bf16 /proc/cpuinfo; then
  echo "this CPU has no AVX512-BF16: the finding is of one with"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 bitsandbytes==0.50.2 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys
import warnings

import bitsandbytes
import torch

warnings.simplefilter("ignore")
if not bitsandbytes.functional.has_avx512bf16():
    sys.exit(print("bitsandbytes finds no AVX512-BF16 here: the finding is of a CPU with"))

torch.manual_seed(0)
layer = bitsandbytes.nn.Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
layer.weight = bitsandbytes.nn.Params4bit(torch.randn(64, 128), requires_grad=False, quant_type="nf4")
layer.to("cpu")
weights = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
inputs, factors = torch.randn(4, 128), torch.randn(4, 64)


def gradient():
    given = inputs.clone().requires_grad_()
    (layer.train()(given) * factors).sum().backward()
    return given.grad


before = gradient()
with torch.no_grad():
    layer.eval()(inputs)
after = gradient()
exact = torch.allclose(before, factors @ weights)
print(f"bitsandbytes {bitsandbytes.__version__}: gradient of the input in train(): {'exact' if exact else 'wrong'} before")
print(f"a forward pass in eval() without gradients, {'none at all' if after is None else 'there'} after it")
sys.exit(0 if exact and after is None else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/measure.py"
