"""Data folders for experiments: parts of train held out as dev, so that what is chosen is chosen without dev."""

from pathlib import Path

import pandas as pd

from yoyak.core.errors import UserError
from yoyak.core.folds import Fold
from yoyak.core.records import Prompt
from yoyak.data.dialogues import turns
from yoyak.sweeps import data_folder


def write_folds(data: Path, out: Path, parts: int) -> None:
    """Write `out/f0`, `out/f1` …, each with one part of train as dev, and `out/dev` with train and dev as they are.

    `data` has `train.csv` and `dev.csv`. A dialogue that train has twice is in one part, as `yoyak.core.folds` has it.
    Raises a `UserError` for fewer than two parts, and where `data` would be written over.
    """
    if parts < 2:
        raise UserError(f"--parts {parts}: at least 2 are needed")
    folders = {name: out / name for name in [*(f"f{part}" for part in range(parts)), "dev"]}
    if data.resolve() in [folder.resolve() for folder in folders.values()]:
        raise UserError(f"{data} would be written over; choose another folder than {out} for the parts")
    train, dev = data_folder.read_train_and_dev(data)
    for part in range(parts):
        fold = Fold(part=part, of=parts)
        held_out = pd.Series([_holds_out(fold, text) for text in train["dialogue"]])
        data_folder.write(folders[f"f{part}"], train[~held_out], train[held_out])
    data_folder.write(folders["dev"], train, dev)


def _holds_out(fold: Fold, dialogue: str) -> bool:
    return fold.holds_out(Prompt(fname="", system="", turns=tuple(turns(dialogue)), question=""))
