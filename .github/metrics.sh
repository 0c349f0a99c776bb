#!/usr/bin/env bash
# How parameters and metrics differ from a commit's, as Markdown; and plots, where DVC's remote has their data.
#
#     .github/metrics.sh BASE REPORT PLOTS
set -euo pipefail
base=$1 report=$2 plots=$3
export DVC_NO_ANALYTICS=1
# More than GitHub takes in a comment, 65,536 characters, is left out.
most=50000

mkdir -p "$(dirname "$report")"
metrics=$(dvc metrics diff --md "$base")
params=$(dvc params diff --md "$base")
scores=$(grep -E '^\| Path|^\|-|\.rouge_mean ' <<<"$metrics" || true)

{
  echo "## Scores"
  echo
  if [[ $scores == *rouge_mean* ]]; then echo "$scores"; else echo "No mean of ROUGE-1/2/L differs."; fi
  for title in Parameters Metrics; do
    [[ $title == Metrics ]] && table=$metrics || table=$params
    echo
    if [[ -z $table ]]; then echo "$title: none differs."; continue; fi
    printf '<details><summary>%s</summary>\n\n' "$title"
    # Whole lines.
    awk -v most=$((most / 2)) '{ length_so_far += length($0) + 1 } length_so_far > most { exit } { print }' <<<"$table"
    printf '\n</details>\n'
  done
  echo
  if dvc pull --quiet plots 2>/dev/null && dvc plots diff --quiet --out "$plots" "$base" >/dev/null; then
    echo "Curves and pictures of both: the artifact of this run, \`index.html\`."
  else
    echo "No curves: DVC's remote, which has their data, is not reached from here."
  fi
} >"$report"
