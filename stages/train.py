"""Stage `train@<model>`: prompts and the model's resolved training parameters in; the trained model out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.limits import LimitsParams
    from yoyak.core.params import read_section
    from yoyak.core.run import model_of_the_stage
    from yoyak.training.params import TrackingParams, read_config
    from yoyak.training.run import Training, train

    name = model_of_the_stage()
    config = read_config(Path(f"data/resolved/{name}/training.yaml"))
    # Of the machine and its user, not of the model: no model is trained anew when they change.
    limits = read_section(LimitsParams, "limits")
    tracking = read_section(TrackingParams, "tracking")
    train(Training(name, config, limits, tracking))


if __name__ == "__main__":
    main()
