#!/usr/bin/env bash
# After `dvc exp run -S list=[a]`, `-S list=[]` fails with "YAML file structure is corrupted" of a params.yaml that is
# valid, where a comment stands behind the list and another list behind it is empty. DVC writes through ruamel.yaml,
# which moves the comment to the list's first entry and ends no line after an empty list; DVC then reads what it has
# written. A comment above the list does no harm.
# Seen: dvc 3.67.1 with ruamel.yaml 0.19.1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dvc==3.67.1 ruamel.yaml==0.19.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/site-cache"
mkdir "$folder/project" && cd "$folder/project"
git init --quiet
git config user.name finder && git config user.email finder@example.com
dvc init --quiet
cat > params.yaml <<'YAML'
run:
  tuned: []      # a comment behind a list
  others: []

data:
  dir: here
YAML
cat > dvc.yaml <<'YAML'
stages:
  say:
    cmd: date > said
    params: [run]
    outs: [said]
YAML
git add . && git commit --quiet -m start
dvc exp run --quiet -S 'run.tuned=[a]'
cat params.yaml
if said=$(dvc exp run -S 'run.tuned=[]' 2>&1); then
  echo "no longer so: the list can be emptied"
  exit 1
fi
echo "$said"
grep --quiet "corrupted" <<<"$said" || { echo "no longer so: another fault"; exit 1; }
