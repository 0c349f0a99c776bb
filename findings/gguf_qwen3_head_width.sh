#!/usr/bin/env bash
# A GGUF file of a Qwen3 model says how wide its heads are (qwen3.attention.key_length). transformers does not read it:
# the configuration it makes of the file has its class's own 128, and the weights of a model with other heads do not
# fit into it. Of Gemma 3's file it reads the same key. A `config` given to `from_pretrained` helps.
# Seen: transformers 5.23.0, gguf 0.19.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 gguf==0.19.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/read.py" <<'PYTHON'
import sys
from pathlib import Path

import gguf
import numpy as np
import transformers

folder = Path(sys.argv[1])


def head_width(architecture):
    """As transformers reads it from a file whose heads are 16 wide."""
    writer = gguf.GGUFWriter(folder / f"{architecture}.gguf", architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_key_length(16)
    writer.add_value_length(16)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(8)
    writer.add_tensor("token_embd.weight", np.zeros((8, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return transformers.AutoConfig.from_pretrained(folder, gguf_file=f"{architecture}.gguf").head_dim


qwen3, gemma3 = head_width("qwen3"), head_width("gemma3")
print(f"transformers {transformers.__version__}: heads of 16 in the file: qwen3 {qwen3}, gemma3 {gemma3}")
sys.exit(0 if (qwen3, gemma3) == (128, 16) else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
