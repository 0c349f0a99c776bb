#!/usr/bin/env bash
# T5 1.1 (mT5's and pko-T5's kind) has an output layer of its own and does not scale what goes into it; its configuration
# says both by `tie_word_embeddings: false`. transformers 5 reads such a model rightly, but saves it with
# `tie_word_embeddings: true` and a key that transformers 4 does not know, `scale_decoder_outputs`. Read by transformers 4,
# the saved model drops its output layer for the embeddings, scales, and computes other logits. No error is raised. The
# warning that transformers 5 prints advises `tie_word_embeddings=False`, which it overwrites.
# Seen: transformers 5.23.0 and 4.57.6 with torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --target "$folder/old" transformers==4.57.6
"$folder/venv/bin/pip" install --quiet --target "$folder/new" transformers==5.23.0
cat > "$folder/logits.py" <<'PYTHON'
import json
import sys

import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

model, out, *saved = sys.argv[1:]
transformers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
if model == "made":
    shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 100}
    config = T5Config(**shape, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    t5 = T5ForConditionalGeneration(config)
else:
    t5 = T5ForConditionalGeneration.from_pretrained(model)
with torch.no_grad():
    ids = torch.arange(2, 20)[None]
    logits = t5.eval()(input_ids=ids, decoder_input_ids=ids).logits
torch.save(logits, out)
for folder in saved:
    t5.save_pretrained(folder)
    said = json.load(open(f"{folder}/config.json"))
    keys = ("tie_word_embeddings", "scale_decoder_outputs")
    print(f"saved by transformers {transformers.__version__}:", {key: said[key] for key in keys if key in said})
PYTHON
cd "$folder"
with() { PYTHONPATH="$folder/$1" "$folder/venv/bin/python" logits.py "${@:2}" 2>/dev/null; }
with old made made.pt by_old
with new by_old new.pt by_new
with old by_new old_again.pt
with new by_new new_again.pt
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch

made, new, old_again, new_again = (torch.load(f"{name}.pt") for name in ("made", "new", "old_again", "new_again"))


def furthest(one, other):
    return (one - other).abs().max().item()


print(f"logits up to {made.abs().max():.2f}; read by 5.23.0 they differ by {furthest(made, new):.1e}")
print(f"saved by 5.23.0 and read by 5.23.0: {furthest(made, new_again):.1e}; read by 4.57.6: {furthest(made, old_again):.2f}")
sys.exit(0 if furthest(made, new) < 1e-4 > furthest(made, new_again) and furthest(made, old_again) > 0.1 else "no longer so")
PYTHON
