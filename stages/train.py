"""Stage `train@<model>`: prompts and the model's resolved training parameters in; the trained model out."""

import sys
from pathlib import Path

from yoyak.core.errors import exits_with_one_line
from yoyak.core.limits import LimitsParams
from yoyak.core.params import check, read_yaml
from yoyak.core.records import write_json
from yoyak.training.params import TrackingParams, read_config
from yoyak.training.run import Training, train


@exits_with_one_line
def main() -> None:
    name, params = sys.argv[1], read_yaml(Path("params.yaml"))
    config = read_config(Path(f"data/resolved/{name}/training.yaml"))
    # Of the machine and its user, not of the model: no model is trained anew when they change.
    limits = check(LimitsParams, params["limits"], "params.yaml: limits")
    tracking = check(TrackingParams, params["tracking"], "params.yaml: tracking")
    write_json(Path(f"metrics/train/{name}.json"), train(Training(name, config, limits, tracking)))


if __name__ == "__main__":
    main()
