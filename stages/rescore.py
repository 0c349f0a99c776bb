"""Stage `rescore@<model>`: a trained model and all members' candidates in; how likely it finds each of them out."""

from pathlib import Path

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core import stale_outputs
    from yoyak.core.limits import LimitsParams
    from yoyak.core.params import read_section
    from yoyak.core.run import RunParams, model_of_the_stage
    from yoyak.inference.params import read_config
    from yoyak.rescoring.run import rescore

    name, run = model_of_the_stage(), read_section(RunParams, "run")
    stale_outputs.put_away(Path("predictions"), run.predicted)
    config = read_config(Path(f"data/resolved/{name}/generation.yaml"))
    rescore(name, config, read_section(LimitsParams, "limits"), run.scored)


if __name__ == "__main__":
    main()
