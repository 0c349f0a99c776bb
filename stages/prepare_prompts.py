"""Stage `prepare_prompts`: CSVs and params.yaml in; prompts and one resolved file a model out."""

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    from yoyak.core.params import PARAMS
    from yoyak.preflight.check import read_params
    from yoyak.preflight.prepare import prepare

    prepare(read_params(PARAMS))


if __name__ == "__main__":
    main()
