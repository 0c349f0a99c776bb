#!/usr/bin/env bash
# DVCFileSystem of a DVC project that is a folder of a larger git repository (`dvc init --subdir`): of the workspace its
# root is the project. Of a git revision the same call begins at the root of git's tree, where there is no DVC, and
# sees no file at all, not even by its path from git's root; with `subrepos=True` that path is the file's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dvc==3.67.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/site"
mkdir -p "$folder/repository/project"
cd "$folder/repository"
git init --quiet
git config user.name Tester
git config user.email tester@localhost
cd project
dvc init --quiet --subdir
echo rows > data.txt
dvc add --quiet data.txt
git add --all
git commit --quiet --message "a project in a folder"
cd ..
python - <<'PYTHON'
import sys
from importlib.metadata import version

from dvc.api import DVCFileSystem

PATHS = ("data.txt", "project/data.txt")
seen = {}
for name, options in {"workspace": {}, "HEAD": {"rev": "HEAD"}, "HEAD, subrepos": {"rev": "HEAD", "subrepos": True}}.items():
    system = DVCFileSystem("project", **options)
    seen[name] = [system.exists(path) for path in PATHS]
    print(f"{name}: " + ", ".join(f"{path} {'is there' if there else 'is not'}" for path, there in zip(PATHS, seen[name])))
print(f"dvc {version('dvc')}")
expected = {"workspace": [True, False], "HEAD": [False, False], "HEAD, subrepos": [False, True]}
sys.exit(0 if seen == expected else "no longer so")
PYTHON
