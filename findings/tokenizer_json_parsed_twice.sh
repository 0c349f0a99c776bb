#!/usr/bin/env bash
# `PreTrainedTokenizerFast.from_pretrained` reads tokenizer.json in Rust, and then the same file once more with Python's
# `json`, only to look for added tokens in it, although the tokenizer that Rust has made knows them. Of a vocabulary of
# 200,000 tokens that is a large part of the time. A caller who says `added_tokens_decoder={}` is spared it and gets the
# same tokenizer, as long as no other file adds tokens.
# Seen: transformers 5.23.0, tokenizers 0.23.2: one parse of the file in Python, and 1.3 times the CPU time.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.2
cat > "$folder/measure.py" <<'PYTHON'
import json
import sys
import time
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

folder = Path(sys.argv[1])
letters = [chr(code) for code in range(0xAC00, 0xAC00 + 500)]
pairs = [(first, second) for first in letters for second in letters[:400]]
vocabulary = {token: number for number, token in enumerate(letters + [first + second for first, second in pairs])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
tokenizer.add_special_tokens(["<end>"])
PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
config = json.loads((folder / "tokenizer_config.json").read_text())
config.pop("added_tokens_decoder", None)
(folder / "tokenizer_config.json").write_text(json.dumps(config))

load, parsed = json.load, []


def noticed(file, **options):
    parsed.append(Path(file.name).name)
    return load(file, **options)


json.load = noticed


def measure(**options):
    seconds = []
    for _ in range(5):
        parsed.clear()
        started = time.process_time()
        loaded = PreTrainedTokenizerFast.from_pretrained(folder, **options)
        seconds.append(time.process_time() - started)
    return min(seconds), parsed.count("tokenizer.json"), loaded


plain, parses, one = measure()
spared, none, other = measure(added_tokens_decoder={})
text = "".join(letters[:50]) + "<end>"
print(f"as it is: {plain:.2f} s of CPU, tokenizer.json parsed in Python {parses} times")
print(f"with added_tokens_decoder={{}}: {spared:.2f} s, {none} times; ratio {plain / spared:.2f}")
assert one(text).input_ids == other(text).input_ids
assert one.added_tokens_decoder.keys() == other.added_tokens_decoder.keys()
assert (parses, none) == (1, 0), "it is parsed another number of times now"
assert plain > 1.15 * spared
PYTHON
"$folder/venv/bin/python" "$folder/measure.py" "$folder/tokenizer" 2>/dev/null
