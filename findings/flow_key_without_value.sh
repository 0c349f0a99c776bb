#!/usr/bin/env bash
# `params: [params.yaml:]` is the short form of what dvc.yaml wants for "all of this file". PyYAML reads it as a mapping
# of one key without a value; ruamel.yaml, by which DVC reads dvc.yaml, as the text "params.yaml:", colon and all. A blank
# behind the colon makes the two agree.
# Seen: ruamel.yaml 0.19.1, PyYAML 6.0.3.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ruamel.yaml==0.19.1 PyYAML==6.0.3
cat > "$folder/read.py" <<'PYTHON'
import sys

import yaml
from ruamel.yaml import YAML


def both(text):
    return yaml.safe_load(text)["params"], YAML(typ="safe", pure=True).load(text)["params"]


mapping, text = [{"params.yaml": None}], ["params.yaml:"]
tight, spaced = both("params: [params.yaml:]\n"), both("params: [params.yaml: ]\n")
print(f"[params.yaml:]   PyYAML {tight[0]}, ruamel.yaml {tight[1]}")
print(f"[params.yaml: ]  PyYAML {spaced[0]}, ruamel.yaml {spaced[1]}")
sys.exit(0 if tight == (mapping, text) and spaced == (mapping, mapping) else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/read.py"
