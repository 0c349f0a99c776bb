"""A file of an earlier version is refused in a line that has the former name of a key or column, and today's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

from yoyak.core.errors import UserError
from yoyak.core.records import RENAMED, read_json, write_json
from yoyak.evaluation.tables import read_stage_table
from yoyak.reporting.console import print_run


def back(name: str, *keys: str) -> Callable[[Any], None]:
    """Gives a key of the object under `keys` its former name."""

    def change(content: Any) -> None:
        for key in keys:
            content = content[key]
        content[name] = content.pop(RENAMED[name])

    return change


FORMER = {
    "best.minus": ("scores", back("minus", "best"), ": the key 'best.minus' is named 'best.delta' now"),
    "of test": (
        "scores",
        back("minus", "test", "best"),
        ": the key 'test.best.minus' is named 'test.best.delta' now",
    ),
    "a fault": (
        "scores",
        back("unfinished", "diagnostics", "bart_mini"),
        ": the key 'diagnostics.bart_mini.unfinished' is named 'diagnostics.bart_mini.no_sentence_end' now",
    ),
    "the ensemble": ("ensemble", back("gain"), ": the key 'gain' is named 'delta' now"),
    "a repair": (
        "postprocessing",
        back("gain", "rules", "normalise_spaces"),
        ": the key 'rules.normalise_spaces.gain' is named 'rules.normalise_spaces.delta' now",
    ),
}


@pytest.mark.parametrize(("name", "change", "told"), FORMER.values(), ids=FORMER)
def test_a_former_key_of_metrics(tmp_path: Path, name: str, change: Callable[[Any], None], told: str) -> None:
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    print_run(tmp_path)
    path = tmp_path / f"metrics/{name}.json"
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)
    with pytest.raises(UserError) as error:
        print_run(tmp_path)
    assert str(error.value) == f"{path}{told}; run `dvc repro`"


def test_a_former_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("fname,unfinished,rouge1\ndev_0,True,1.5\n")
    with pytest.raises(UserError) as error:
        read_stage_table(path, ["fname", "no_sentence_end"], ["rouge1"])
    assert str(error.value) == f"{path}: column 'unfinished' is named 'no_sentence_end' now; run `dvc repro`"


def test_a_model_may_have_a_former_name(tmp_path: Path) -> None:
    """Names of models are keys, too."""
    shutil.copytree(ROOT / "metrics", tmp_path / "metrics")
    path = tmp_path / "metrics/scores.json"
    content = read_json(path)
    for board in (content, content["test"]):
        board["models"]["gain"] = board["models"].pop("bart_mini")
        board["best"]["delta"]["minus"] = board["best"]["delta"].pop("bart_mini", None)
    write_json(path, content)
    print_run(tmp_path)
