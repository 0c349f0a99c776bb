#!/usr/bin/env bash
# How parameters and metrics differ from a commit's, as Markdown: .github/metrics.sh BASE
# They are in git. Curves are not, and DVC's remote is not reached from everywhere: `dvc plots diff` draws them.
set -euo pipefail
base=$1
export DVC_NO_ANALYTICS=1
# Of each table: a comment on GitHub has at most 65,536 characters.
most=25000

params=$(dvc params diff --md "$base")
metrics=$(dvc metrics diff --md "$base")
# Each run is of another commit, which says nothing.
metrics=$(grep -v -E '\| ([a-z_.]*\.)?commit ' <<<"$metrics" || true)

folded() {
  local title=$1 table=$2
  if [[ $(wc -l <<<"$table") -le 2 ]]; then
    printf '\n%s: none differs.\n' "$title"
    return
  fi
  printf '\n<details><summary>%s</summary>\n\n' "$title"
  # Whole lines.
  awk -v most="$most" '{ written += length($0) + 1 } written > most { print "| … | | | |"; exit } { print }' <<<"$table"
  printf '\n</details>\n'
}

printf '## Scores\n\n'
grep -E '^\| Path|^\|-|[. ]rouge_mean ' <<<"$metrics" |
  awk '{ rows = rows $0 "\n" } END { printf "%s", (NR > 2 ? rows : "No mean of ROUGE-1/2/L differs.\n") }'
folded Parameters "$params"
folded Metrics "$metrics"
