#!/usr/bin/env bash
# DVC empties dvc.lock and writes it anew after each stage, with a YAML writer in pure Python: while that lasts, which is tens
# of milliseconds for a pipeline of some size, whoever reads the file sees its beginning alone. A process that is killed then
# leaves it so, and every later command of DVC ends with "validation failed" or "is invalid", until git gives the file back.
# Seen: dvc 3.67.1: 16 of a hundred looks at dvc.lock, while `dvc repro` ran 20 short stages beside 100 others, saw a part.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dvc==3.67.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/site"
cd "$folder"
mkdir project && cd project
git init --quiet
dvc init --quiet
cat > "$folder/look.py" <<'PYTHON'
import subprocess
import sys
from pathlib import Path

from dvc.utils.serialize import dump_yaml

stages = {f"s{n}": {"cmd": f"echo {n} > o{n}", "outs": [f"o{n}"]} for n in range(120)}
Path("given").write_text("data")
dump_yaml("dvc.yaml", {"stages": stages})
subprocess.run(["dvc", "repro", "--quiet"], check=True)
lock = Path("dvc.lock")
whole = len(lock.read_bytes())
run = subprocess.Popen(["dvc", "repro", "--quiet", "--force", "--single-item", *(f"s{n}" for n in range(20))])
looks = parts = 0
while run.poll() is None:
    looks += 1
    parts += len(lock.read_bytes()) < whole
assert run.returncode == 0
assert len(lock.read_bytes()) == whole
print(f"dvc 3.67.1: {parts} of {looks} looks at dvc.lock, of {whole} bytes, saw a part of it ({100 * parts / looks:.1f} %)")
lock.write_bytes(lock.read_bytes()[: whole // 2 - 7])
said = subprocess.run(["dvc", "status"], capture_output=True, text=True)
print(f"left so, `dvc status` ends with {said.returncode}: {said.stderr.strip().splitlines()[0]}")
sys.exit(0 if parts and said.returncode else "no longer so")
PYTHON
python "$folder/look.py"
