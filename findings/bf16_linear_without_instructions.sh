#!/usr/bin/env bash
# PyTorch multiplies bf16 through oneDNN where the CPU has instructions for it, and through its own plain loops where it
# has none. Those are slow in the forward pass, and much slower in the backward pass to the input, whose matrix is not
# transposed: a training in bf16 is not twice as slow there, it does not end.
# Seen: torch 2.13.0 on x86_64 with AVX2: forward 6 times, backward to the input 19 times as long as in fp32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys
import time

import torch

torch.set_num_threads(1)
has = torch.cpu.get_capabilities()
if any(has.get(feature) for feature in ("avx512_bf16", "amx_bf16", "bf16")):
    sys.exit(print("this CPU has instructions for bf16: the finding is of one without"))


def seconds(multiply):
    took = []
    for _ in range(4):
        started = time.process_time()
        multiply()
        took.append(time.process_time() - started)
    return min(took[1:])


inputs, weights, gradients = (torch.randn(shape) for shape in ((128, 512), (256, 512), (128, 256)))
ratios = {}
for name, one, other in (("forward", inputs, weights.T), ("backward to the input", gradients, weights)):
    fp32 = seconds(lambda: one @ other)
    one, other = one.bfloat16(), weights.bfloat16().T if name == "forward" else other.bfloat16()
    ratios[name] = seconds(lambda: one @ other) / fp32
    print(f"torch 2.13.0, {torch.backends.cpu.get_cpu_capability()}: {name}: bf16 takes {ratios[name]:.0f} times fp32's time")
sys.exit(0 if ratios["forward"] > 2 and ratios["backward to the input"] > 8 else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/measure.py"
