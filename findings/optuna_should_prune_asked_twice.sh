#!/usr/bin/env bash
# Optuna's SuccessiveHalvingPruner notes that a trial has ended a rung while it is asked whether the trial is to stop.
# Asked a second time about the same report, `should_prune` looks at the next rung, which is not reached yet, and lets the
# trial go on. So a process that is killed between `should_prune` and `tell`, and asks again when it goes on with the
# trial, has another answer than before. MedianPruner answers the same each time.
# Seen: optuna 5.0.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optuna==5.0.0
cat > "$folder/ask.py" <<'PYTHON'
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


def asked_twice(pruner):
    study = optuna.create_study(direction="maximize", pruner=pruner)
    good = study.ask()
    good.report(2.0, 1)
    good.should_prune()
    study.tell(good, 2.0)
    bad = study.ask()
    bad.report(1.0, 1)
    return bad.should_prune(), bad.should_prune()


halving = asked_twice(optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2))
median = asked_twice(optuna.pruners.MedianPruner(n_startup_trials=1))
print(f"the worse of two trials is to stop: SuccessiveHalvingPruner {halving}, MedianPruner {median}")
sys.exit(0 if (halving, median) == ((True, False), (True, True)) else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/ask.py"
