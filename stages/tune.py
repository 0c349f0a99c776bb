"""Stage `tune@<model>`: a trained model and the prompts in; `<model>_tuned`, which has learned from ROUGE, out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.limits import LimitsParams
    from yoyak.core.params import read_section
    from yoyak.core.run import model_of_the_stage, tuned
    from yoyak.tuning.params import read_config
    from yoyak.tuning.run import Tuning, tune

    name = model_of_the_stage()
    config = read_config(Path(f"data/resolved/{tuned(name)}/tuning.yaml"))
    # Of the machine, not of the model: no model is tuned anew when they change.
    tune(Tuning(name, config, read_section(LimitsParams, "limits")))


if __name__ == "__main__":
    main()
