#!/usr/bin/env bash
# Triton's interpreter runs kernels on a CPU, for tests. Triton 3.6.0, which PyTorch 2.11 asks for, turns a loop's bound
# that is an argument of the kernel into a Python number by way of an array with one element, which numpy refuses from
# 2.4 on: no kernel with such a loop can be interpreted, though each compiles. With numpy 2.3 the same kernel runs, and so
# it does with Triton 3.9.0.
# Seen: triton 3.6.0 and numpy 2.4.6: TypeError "only 0-dimensional arrays can be converted to Python scalars".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0
for package in triton==3.6.0 triton==3.9.0 numpy==2.3.5 numpy==2.4.6; do
  "$folder/venv/bin/pip" install --quiet --no-deps --target "$folder/$package" "$package"
done
cat > "$folder/sum.py" <<'PYTHON'
import torch
import triton
import triton.language as tl


@triton.jit
def add_up(numbers, output, count, block: tl.constexpr):
    total = tl.zeros([block], tl.float32)
    for start in range(0, count, block):
        at = start + tl.arange(0, block)
        total += tl.load(numbers + at, mask=at < count, other=0.0)
    tl.store(output, tl.sum(total))


output = torch.zeros(1)
add_up[1,](torch.ones(100), output, 100, block=32)
print(f"sum of 100 ones: {output.item():g}")
PYTHON
interpret() { # interpret TRITON NUMPY
  TRITON_INTERPRET=1 PYTHONPATH="$folder/numpy==$2:$folder/triton==$1" "$folder/venv/bin/python" "$folder/sum.py" 2>&1 | tail -n 1 || true
}
for versions in "3.6.0 2.3.5" "3.6.0 2.4.6" "3.9.0 2.4.6"; do
  read -r triton numpy <<<"$versions"
  said=$(interpret "$triton" "$numpy")
  echo "triton $triton, numpy $numpy: $said"
  case $versions in
    "3.6.0 2.4.6") grep -q "0-dimensional arrays" <<<"$said" ;;
    *) grep -q "sum of 100 ones: 100" <<<"$said" ;;
  esac
done
echo "as told"
