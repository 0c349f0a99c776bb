"""`python -m yoyak.sweeps`."""

from yoyak.sweeps.cli import main

if __name__ == "__main__":
    main()
