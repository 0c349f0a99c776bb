#!/usr/bin/env bash
# `add_weighted_adapter(..., combination_type="cat")` puts LoRA adapters side by side, which is exact: the new adapter
# adds the weighted sum of what they add. Adapters that were loaded over a bf16 model are kept in fp32. But the new one
# is made in the model's bf16, so its factors are rounded before anything is merged, and a merge of it is off by more
# than the one rounding that a bf16 weight costs. `get_delta_weight` of each adapter is fp32, and their mean, added once,
# is exact up to that one rounding.
# Seen: peft 0.21.2 with torch 2.13.0: over a fp32 model nothing is lost; over a bf16 model the loaded adapters are
# float32, the one from "cat" is bfloat16, and 47 % of the merged weights are not the bf16 number nearest to the mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 peft==0.21.2 transformers==5.23.0 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

torch.manual_seed(0)
NAMES = ["one", "two", "three"]


def base(dtype):
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(256, 256, bias=False)).to(dtype)


def saved(folder):
    """Three adapters, each trained on a model in fp32, say."""
    for name in NAMES:
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["0"], init_lora_weights=False)
        get_peft_model(base(torch.float32), config).save_pretrained(folder / name)


def merged_by_cat(folder, dtype):
    """The merged weight, what it should be before it is rounded to `dtype`, and the dtypes of the adapters' factors."""
    model = PeftModel.from_pretrained(base(dtype), folder / "one", adapter_name="one")
    for name in NAMES[1:]:
        model.load_adapter(folder / name, name)
    layer = model.base_model.model[0]
    weight = layer.get_base_layer().weight.data.clone()
    exact = weight.double() + sum(layer.get_delta_weight(name).double() for name in NAMES) / len(NAMES)
    by_hand = weight + (sum(layer.get_delta_weight(name) for name in NAMES) / len(NAMES))
    model.add_weighted_adapter(NAMES, [1 / len(NAMES)] * len(NAMES), "mean", combination_type="cat")
    model.set_adapter("mean")
    dtypes = [str(layer.lora_A[name].weight.dtype) for name in ("one", "mean")]
    return model.merge_and_unload()[0].weight.data, exact, by_hand.to(dtype), dtypes


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    saved(folder)
    whole, exact, _, _ = merged_by_cat(folder, torch.float32)
    off = (whole.double() - exact).abs().max().item()
    print(f"over fp32: at most {off:.1e} from the mean of the three")
    assert off < 1e-6, "cat over fp32 is no exact mean any more"
    merged, exact, by_hand, dtypes = merged_by_cat(folder, torch.bfloat16)
    nearest = exact.to(torch.bfloat16)
    shares = [(found != nearest).float().mean().item() for found in (merged, by_hand)]
    print(f"over bf16: a loaded adapter is {dtypes[0]}, the one from cat {dtypes[1]}")
    print(f"merged weights that are not the nearest bf16 number: {shares[0]:.1%} by cat, {shares[1]:.1%} by the deltas")
    if dtypes != ["torch.float32", "torch.bfloat16"] or shares[0] < 0.05 or shares[1] > 0.005:
        sys.exit("the behaviour has changed")
PYTHON
"$folder/venv/bin/python" "$folder/measure.py" 2>/dev/null
