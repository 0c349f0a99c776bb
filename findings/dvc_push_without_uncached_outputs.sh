#!/usr/bin/env bash
# `dvc push --run-cache` is for others to take over what a stage has computed, and `dvc repro --pull` for doing so. Where
# the stage has an output with `cache: false`, as metrics in git are, it runs again all the same: DVC keeps a copy of that
# output in its cache for the run cache, and asks the remote for it, but does not push it.
# Seen: dvc 3.67.1. Without the metrics file the second clone runs nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet dvc==3.67.1
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR="$folder/site-cache"

project() { # NAME METRICS: a project that has never run, as somebody else clones it
  mkdir "$folder/$1" && cd "$folder/$1"
  dvc init --quiet --no-scm
  dvc remote add --quiet --default storage "$folder/storage-$2"
  echo 1 > given
  {
    printf 'stages:\n  compute:\n    cmd: cp given model; echo 2 > score.json\n    deps: [given]\n    outs: [model]\n'
    [[ $2 == without ]] || printf '    metrics:\n      - score.json: {cache: false}\n'
  } > dvc.yaml
}

for metrics in without with; do
  project "first-$metrics" "$metrics"
  dvc repro --quiet
  dvc push --quiet --run-cache
  project "second-$metrics" "$metrics"
  echo "$metrics a metrics file:"
  dvc repro --pull 2>&1 | tee "$folder/said-$metrics"
done
grep --quiet "is cached - skipping run" "$folder/said-without" || { echo "no longer so: another fault"; exit 1; }
grep --quiet "Running stage" "$folder/said-with" || { echo "no longer so: nothing runs again"; exit 1; }
