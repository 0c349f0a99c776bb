"""Models that are one but for the part of train that each leaves out: `kobart_f0` … are the family `kobart`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from yoyak.core.errors import UserError, quoted
from yoyak.core.records import Likelihood, Prediction, Prompt, Rescored, read_records
from yoyak.ensembling.features import Likelihoods
from yoyak.ensembling.weighting import family_of

HOW_TO_LEARN = (
    "`yoyak folds MODEL 5` writes entries for a family of each, or give each entry of the run `fold: {part: 0, of: 5}`"
)


def joined(predictions: Mapping[str, Sequence[Prediction]]) -> dict[str, list[Prediction]]:
    """Each family's candidates for each row, those of all its folds; the members hold the same rows in one order."""
    families: dict[str, list[Sequence[Prediction]]] = {}
    for name, rows in predictions.items():
        families.setdefault(family_of(name), []).append(rows)
    return {
        family: [
            row[0].model_copy(update={"candidates": tuple(each for fold in row for each in fold.candidates)})
            for row in zip(*folds, strict=True)
        ]
        for family, folds in families.items()
    }


def unseen(
    names: Sequence[str], prompts: Sequence[Prompt], rescorers: Sequence[str] = ()
) -> tuple[list[Prompt], dict[str, list[Prediction]]]:
    """Rows of train that neither a member nor a rescorer has seen, and each family's predictions for them: of a row
    that of the only fold which has left it out. There may be none."""
    left_out = _left_out(rescorers)
    rows = _left_out(names)
    common = [
        row
        for row in prompts
        if all(len(of_family.get(row.fname, ())) == 1 for of_family in rows.values())
        and all(row.fname in of_family for of_family in left_out.values())
    ]
    return common, {family: [of_family[row.fname][0] for row in common] for family, of_family in rows.items()}


def _left_out(names: Sequence[str]) -> dict[str, dict[str, list[Prediction]]]:
    """Of each family, by a row's name, the predictions of the folds that have not seen it."""
    rows: dict[str, dict[str, list[Prediction]]] = {family_of(name): {} for name in names}
    for name in names:
        path = _of_train(name)
        for row in read_records(path, Prediction) if path.exists() else ():
            rows[family_of(name)].setdefault(row.fname, []).append(row)
    return rows


def nothing_to_learn(why: str) -> UserError:
    """Where there are no rows that no member has seen."""
    return UserError(
        f"params.yaml: ensemble.strategy: learned learns on rows of train that no member has seen, and {why}; "
        f"{HOW_TO_LEARN}"
    )


def why_none(names: Sequence[str]) -> str:
    """Why `unseen` finds no rows."""
    seen_all = [name for name in dict.fromkeys(names) if not _of_train(name).exists()]
    return f"{', '.join(seen_all)} has seen all" if seen_all else "they left out different ones"


def leave_out(names: Sequence[str]) -> bool:
    """Whether any of the models is a fold: most runs have none."""
    return any(_of_train(name).exists() for name in names)


def _of_train(name: str) -> Path:
    return Path(f"predictions/{name}/train.jsonl")


def likelihoods(rescorers: Sequence[str], split: str, fnames: Sequence[str]) -> Likelihoods:
    """What the rescorers say of the candidates of each row: see `together`."""
    said = {}
    for name in rescorers:
        by_name = {row.fname: row for row in read_records(Path(f"rescored/{name}/{split}.jsonl"), Rescored)}
        said[name] = [by_name.get(fname) for fname in fnames]
    for row, fname in enumerate(fnames):
        for family in set(map(family_of, rescorers)):
            if not any(said[name][row] for name in rescorers if family_of(name) == family):
                raise UserError(f"rescored/{family}…/{split}.jsonl: {quoted(fname)} is missing; run `dvc repro`")
    return together(said)


def together(said: Mapping[str, Sequence[Rescored | None]]) -> dict[str, list[dict[str, Likelihood]]]:
    """Of each family and row the mean of what its folds say, by text; None where a fold has seen the row."""
    families: dict[str, list[Sequence[Rescored | None]]] = {}
    for name, rows in said.items():
        families.setdefault(family_of(name), []).append(rows)
    return {family: [_mean(row) for row in zip(*folds, strict=True)] for family, folds in families.items()}


def _mean(row: Sequence[Rescored | None]) -> dict[str, Likelihood]:
    folds = [{each.text: each for each in fold.texts} for fold in row if fold]
    return {
        text: Likelihood(
            text=text,
            log_probability=sum(fold[text].log_probability for fold in folds) / len(folds),
            tokens=folds[0][text].tokens,
        )
        for text in set(folds[0]).intersection(*folds[1:])
    }
