#!/usr/bin/env bash
# transformers 5.17 has GgufConfig, with which it reads the weights of GGUF files as later versions do, but makes
# tokenizers of them in its old way. Of Gemma's vocabulary it makes a unigram model, where Gemma's is BPE, and puts no
# begin token before a text, though the file asks for one. Of Llama's sentencepiece kind it gives the begin token out as
# the end token. From 5.18 on all three are right.
# Seen: transformers 5.17.0, gguf 0.19.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.17.0 gguf==0.19.0 torch==2.13.0 numpy==2.4.6
cat > "$folder/read.py" <<'PYTHON'
import sys
from pathlib import Path

import gguf
import numpy as np
import transformers

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
folder, Kind = Path(sys.argv[1]), gguf.TokenType
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", *BYTES, "ab", "abc", "bc", "▁a", "▁", "a", "b", "c"]
KINDS = [Kind.CONTROL] * 3 + [Kind.UNKNOWN] + [Kind.BYTE] * 256 + [Kind.NORMAL] * 8


def tokenizer(architecture):
    """Of a small file with all that a tokenizer is made of."""
    writer = gguf.GGUFWriter(folder / f"{architecture}.gguf", architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_head_count_kv(1)
    writer.add_key_length(8)
    writer.add_value_length(8)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_sliding_window(32)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_types(KINDS)
    writer.add_token_scores([0.0] * 260 + [-float(place) for place in range(8)])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_tensor("token_embd.weight", np.zeros((len(TOKENS), 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return transformers.AutoTokenizer.from_pretrained(folder, gguf_file=f"{architecture}.gguf")


gemma, llama = tokenizer("gemma3"), tokenizer("llama")
kind, tokens = type(gemma.backend_tokenizer.model).__name__, gemma.convert_ids_to_tokens(gemma("abc")["input_ids"])
print(f"transformers {transformers.__version__}: gemma3: a {kind} model; 'abc' as {tokens}, the file adding <bos>")
print(f"transformers {transformers.__version__}: llama: end token {llama.eos_token}, in the file <eos>")
seen = kind == "Unigram" and "<bos>" not in tokens and llama.eos_token == "<bos>"
sys.exit(0 if seen else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/read.py" "$folder"
