#!/usr/bin/env bash
# Qwen's tokenizer joins decomposed letters (NFC) before it looks a text up. Read from a GGUF file by transformers, it
# does not: a GGUF file has no key for a normalizer, and transformers puts none in by the name of the pre-tokenizer, which
# it knows. Korean as macOS writes it in file names, each syllable in its parts, becomes other tokens, and more of them.
# Seen: transformers 5.23.0, gguf 0.19.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 gguf==0.19.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/read.py" <<'PYTHON'
import sys
import unicodedata
from pathlib import Path

import gguf
import numpy as np
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

folder, Kind = Path(sys.argv[1]), gguf.TokenType
TOKENS = [*bytes_to_unicode().values(), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
writer = gguf.GGUFWriter(folder / "model.gguf", "qwen2")
writer.add_context_length(64)
writer.add_embedding_length(8)
writer.add_block_count(1)
writer.add_feed_forward_length(8)
writer.add_head_count(1)
writer.add_head_count_kv(1)
writer.add_layer_norm_rms_eps(1e-6)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("qwen2")
writer.add_token_list(TOKENS)
writer.add_token_types([Kind.NORMAL] * 257 + [Kind.CONTROL] * 3)
writer.add_token_merges(["a b"])
writer.add_eos_token_id(259)
writer.add_pad_token_id(257)
writer.add_tensor("token_embd.weight", np.zeros((len(TOKENS), 8), dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = transformers.Qwen2Tokenizer.from_pretrained(folder, gguf_file="model.gguf")
own = transformers.Qwen2Tokenizer(vocab={token: place for place, token in enumerate(TOKENS)}, merges=[("a", "b")])
whole, parted = "가", unicodedata.normalize("NFD", "가")
counts = {name: [len(of(text)["input_ids"]) for text in (whole, parted)] for name, of in (("own", own), ("read", read))}
print(f"transformers {transformers.__version__}: tokens of 가 whole and in parts: Qwen's class {counts['own']}, from GGUF {counts['read']}")
sys.exit(0 if counts == {"own": [3, 3], "read": [3, 6]} else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
