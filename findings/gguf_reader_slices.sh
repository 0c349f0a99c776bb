#!/usr/bin/env bash
# gguf's reader takes each string of a GGUF header as slices of a numpy.memmap. A slice of that class costs several times
# a slice of a plain array, since each makes a memmap object of its own. A vocabulary of 100,000 tokens shows it.
# Seen: gguf 0.19.0 with numpy 2.4.6 on x86_64, CPU time over a plain array 0.4 of that over the memmap.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys
import time

import gguf
import numpy as np

path = sys.argv[1]
writer = gguf.GGUFWriter(path, "llama")
tokens = [f"token{number}" for number in range(100_000)]
writer.add_token_list(tokens)
writer.add_tensor("output.weight", np.zeros((2, 2), dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()


class PlainReader(gguf.GGUFReader):
    """The same reader over a plain array of the same bytes."""

    def _get(self, *args, **kwargs):
        self.data = np.asarray(self.data)
        return super()._get(*args, **kwargs)


def seconds(reader):
    started = time.process_time()
    field = reader(path).fields["tokenizer.ggml.tokens"]
    took = time.process_time() - started
    assert [bytes(field.parts[place]).decode() for place in field.data] == tokens, "other tokens"
    return took


memmap, plain = (min(seconds(reader) for _ in range(3)) for reader in (gguf.GGUFReader, PlainReader))
print(f"gguf 0.19.0: {len(tokens):,} tokens: {memmap:.1f} s of CPU over a memmap, {plain:.1f} s over a plain array")
sys.exit(0 if plain < 0.6 * memmap else "no longer so: the memmap costs little")
PYTHON
"$folder/venv/bin/python" "$folder/measure.py" "$folder/tokens.gguf"
