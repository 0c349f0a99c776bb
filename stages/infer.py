"""Stage `infer@<model>`: a trained model and the dev and test prompts in; predictions out.

`infer.py <model> untuned` is `infer_untuned@<model>`, with the base weights; an average's is `infer_averaged@<model>`,
and that of `<model>_tuned` is `infer_tuned@<model>`.
"""

import sys
from pathlib import Path

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.limits import LimitsParams
    from yoyak.core.params import read_section
    from yoyak.core.run import model_of_the_stage
    from yoyak.inference.params import read_config
    from yoyak.inference.run import infer

    name, untuned = model_of_the_stage(), sys.argv[2:] == ["untuned"]
    config = read_config(Path(f"data/resolved/{name}/generation.yaml"))
    limits = read_section(LimitsParams, "limits")
    infer(name, config, limits, untuned)


if __name__ == "__main__":
    main()
