#!/usr/bin/env bash
# A folder has a whole `tokenizer.json`, a BPE whose words begin with ▁, and a `config.json` with `model_type: bart`, as
# koBART's repository has. `AutoTokenizer` takes the vocabulary and the merges out of it, and builds a RoBERTa's tokenizer
# of bytes around them, without a word: the Korean of a text is lost, for the vocabulary has no bytes; of koBART's own, which
# has some, a text becomes 2.7 times as many tokens. `PreTrainedTokenizerFast` reads the same folder as the file says.
# Seen: transformers 5.23.0, tokenizers 0.23.3: of two sentences '..' is left, 2 tokens in place of 6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet transformers==5.23.0 tokenizers==0.23.3
cat > "$folder/measure.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder, text = Path(sys.argv[1]), "회의는 세 시에 시작합니다. 늦지 마세요."
folder.mkdir()
tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
names = ["<s>", "</s>", "<pad>", "<unk>"]
tokenizer.train_from_iterator([text] * 5, trainers.BpeTrainer(vocab_size=200, special_tokens=names))
tokenizer.save(str(folder / "tokenizer.json"))
ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
(folder / "config.json").write_text(json.dumps({"model_type": "bart", "vocab_size": 200, **ids}))

of_file = tokenizer.encode(text).ids
auto, fast = AutoTokenizer.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
by_auto, by_fast = (each(text, add_special_tokens=False)["input_ids"] for each in (auto, fast))
print(f"tokenizer.json: {len(of_file)} tokens; PreTrainedTokenizerFast: {len(by_fast)}, {fast.decode(by_fast)!r}")
print(f"AutoTokenizer, {type(auto).__name__}: {len(by_auto)}, {auto.decode(by_auto)!r}")
assert by_fast == of_file and fast.decode(by_fast) == text
assert type(auto).__name__ == "RobertaTokenizer", "it builds another class now"
assert by_auto != of_file and auto.decode(by_auto) == "..", "it reads the file otherwise now"
PYTHON
"$folder/venv/bin/python" "$folder/measure.py" "$folder/model" 2>/dev/null
