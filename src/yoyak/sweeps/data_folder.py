"""The CSV files of a data folder, as the pipeline reads them."""

import shutil
from pathlib import Path

import pandas as pd

from yoyak.core.errors import UserError
from yoyak.data.dialogues import REFERENCE_COLUMN
from yoyak.data.tables import read_table

COLUMNS = ("fname", "dialogue", "summary")
TEST_ROWS = 4
REFERENCES = "test_references.csv"
"""In a data folder, where test's summaries are known."""


def read_train_and_dev(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables; a `UserError` names the folder that is not there, or the file and the row of a fault."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the one that train.csv and dev.csv are in")
    train, dev = (read_table(folder / f"{split}.csv", COLUMNS) for split in ("train", "dev"))
    return train, dev


def write(folder: Path, train: pd.DataFrame, dev: pd.DataFrame, test: pd.DataFrame | None = None) -> None:
    """Write the files that the pipeline reads.

    Without `test` the first rows of dev stand for it, for an experiment is not judged by test. Where `test` has
    summaries, they become its references.
    """
    folder.mkdir(parents=True, exist_ok=True)
    judged = test if test is not None else dev.head(TEST_ROWS)[["fname", "dialogue"]]
    train.to_csv(folder / "train.csv", index=False)
    dev.to_csv(folder / "dev.csv", index=False)
    judged[["fname", "dialogue"]].to_csv(folder / "test.csv", index=False)
    judged[["fname"]].assign(summary="요약문").reset_index(drop=True).to_csv(folder / "sample_submission.csv")
    if summaries := [column for column in judged.columns if REFERENCE_COLUMN.fullmatch(column)]:
        judged[["fname", *summaries]].to_csv(folder / REFERENCES, index=False)


def share_name(name: str, share: float) -> str:
    """Of the data folder with so large a share of the rows of train of the one called `name`, which all of them is."""
    return name if share == 1 else f"{name}_{round(100 * share)}"


def write_share(whole: Path, share: float, folder: Path) -> None:
    """Write the data folder `whole` with a share of its rows of train; a larger share has the rows of a smaller one."""
    train, _ = read_train_and_dev(whole)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    train.sample(frac=share, random_state=0).sort_index().to_csv(folder / "train.csv", index=False)
