"""Folders of data for experiments: parts of train held out as dev, so that what is chosen is chosen without dev.

    python experiments/fold_data.py data/raw folds --parts 5

`folds/f0` … `f4` each have a part of `train.csv` as `dev.csv` and the rest as `train.csv`; a dialogue that train has
twice is in one part, as `yoyak.folds` has it. `folds/dev` has train and dev as they are. In all of them the first rows
of dev stand for test, which no experiment is judged by.
"""

import argparse
from pathlib import Path

import pandas as pd

from yoyak.core.errors import UserError, exits_with_one_line
from yoyak.core.folds import Fold
from yoyak.core.records import Prompt
from yoyak.data.dialogues import turns
from yoyak.data.tables import read_table

COLUMNS = ("fname", "dialogue", "summary")
TEST_ROWS = 4


@exits_with_one_line
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder with train.csv and dev.csv")
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", type=int, default=5)
    asked = parser.parse_args()
    if asked.parts < 2:
        parser.error(f"--parts {asked.parts}: at least 2 are needed")
    folders = {name: asked.out / name for name in [*(f"f{part}" for part in range(asked.parts)), "dev"]}
    if asked.data.resolve() in [folder.resolve() for folder in folders.values()]:
        raise UserError(f"{asked.data} would be written over; choose another folder than {asked.out} for the parts")
    train, dev = (read_table(asked.data / f"{split}.csv", COLUMNS) for split in ("train", "dev"))
    for part in range(asked.parts):
        fold = Fold(part=part, of=asked.parts)
        held_out = pd.Series([_holds_out(fold, text) for text in train["dialogue"]])
        write(folders[f"f{part}"], train[~held_out], train[held_out])
    write(folders["dev"], train, dev)


def _holds_out(fold: Fold, dialogue: str) -> bool:
    return fold.holds_out(Prompt(fname="", system="", turns=tuple(turns(dialogue)), question=""))


def write(folder: Path, train: pd.DataFrame, dev: pd.DataFrame) -> None:
    """The four files that the pipeline reads."""
    folder.mkdir(parents=True, exist_ok=True)
    test = dev.head(TEST_ROWS)
    sample = test[["fname"]].assign(summary="요약문").reset_index(drop=True)
    train.to_csv(folder / "train.csv", index=False)
    dev.to_csv(folder / "dev.csv", index=False)
    test[["fname", "dialogue"]].to_csv(folder / "test.csv", index=False)
    sample.to_csv(folder / "sample_submission.csv")


if __name__ == "__main__":
    main()
