#!/usr/bin/env bash
# A DVC project in a folder with a Korean name: `dvc repro` and `dvc exp run` work there, while `dvc exp run --temp` ends
# with "'ascii' codec can't encode characters", in a UTF-8 locale, too: it writes the settings of its copy in ASCII.
set -euo pipefail
export LC_ALL=C.UTF-8
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dvc==3.67.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/site"
mkdir "$folder/요약"
cd "$folder/요약"
git init --quiet
git config user.name Tester
git config user.email tester@localhost
dvc init --quiet
printf 'stages:\n  copy:\n    cmd: echo ${rank} > out.txt\n    params: [rank]\n    outs: [out.txt]\n' > dvc.yaml
echo 'rank: 1' > params.yaml
git add --all
git commit --quiet --message "a project"
dvc repro --quiet
git add --all
git commit --quiet --message "its first run"
dvc exp run --quiet --set-param rank=2
echo "dvc exp run: ended well"
if printed=$(dvc exp run --temp --set-param rank=3 2>&1); then
  echo "dvc exp run --temp: ended well; no longer so"
  exit 1
fi
grep --only-matching "'ascii' codec can't encode characters" <<< "$printed" | head -1 | sed 's/^/dvc exp run --temp: /'
dvc version | head -1
