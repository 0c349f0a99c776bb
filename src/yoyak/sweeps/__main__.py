"""`python -m yoyak.sweeps`."""

from yoyak.core.errors import exits_with_one_line


@exits_with_one_line
def main() -> None:
    # Not above: Ctrl-C while libraries are imported ends in one line, too.
    from yoyak.sweeps import cli

    cli.main()


if __name__ == "__main__":
    main()
