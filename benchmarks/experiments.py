"""The page of all runs, of a repository with many experiments.

    python benchmarks/experiments.py

200 experiments of four models and an ensemble, each of 500 dev rows: written by `git` and into DVC's cache as `dvc exp
run` leaves them, for to run them would take half an hour. Seconds of `yoyak report --all` when nothing has been read
yet and when all has, and of opening the page in headless Chromium; each beside `dvc exp show` of the same repository.
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import recording
from playwright.sync_api import sync_playwright

from yoyak.core import gpu
from yoyak.core.params import read_yaml, write_yaml
from yoyak.evaluation import leaderboard
from yoyak.evaluation.leaderboard import ScoringParams
from yoyak.metrics.rouge import COMPETITION

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))
import written_texts
from project import Project
from written_experiments import repository_of_experiments

EXPERIMENTS, ROWS = 200, 500
MODELS = {f"model_{model}": {"right": 0.4 + model / 50} for model in range(4)}
BEST = "model_3"
JUDGING = ScoringParams(**COMPETITION._asdict(), bootstrap_samples=leaderboard.BOOTSTRAP_SAMPLES, seed=leaderboard.SEED)
WHO = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")


def main() -> None:
    recording.require_clean_tree()
    with tempfile.TemporaryDirectory() as folder:
        project = repository_of_experiments(Path(folder) / "project", ROWS, MODELS)
        write_experiments(project)
        ours = {name: seconds(project, "yoyak", "report", "--all") for name in ("nothing read yet", "all read before")}
        theirs = seconds(project, "dvc", "exp", "show", "--all-commits", "--csv")
        page = project.root / "experiments.html"
        print(f"experiments.html: {page.stat().st_size / 1e6:.2f} MB; opened in {opened(page):.2f} s")
    recording.record(
        "experiments",
        [
            recording.row(
                f"{EXPERIMENTS} experiments of {ROWS} rows, {name}",
                "seconds to write the page",
                figure,
                theirs,
                "`dvc exp show --all-commits --csv`, nothing read before, no intervals",
                gpu.peak_memory_gib(),
                "python benchmarks/experiments.py",
            )
            for name, figure in ours.items()
        ],
    )


def seconds(project: Project, *command: str) -> float:
    started = time.perf_counter()
    project.run(*command)
    return time.perf_counter() - started


def opened(page: Path) -> float:
    """Seconds until its table and matrix are drawn."""
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=shutil.which("chromium")).new_page()
        started = time.perf_counter()
        window.goto(page.as_uri())
        window.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - started


# Experiments as DVC leaves them


def write_experiments(project: Project) -> None:
    """The ensemble is one model, which differs between experiments by the share of words that it has right."""
    root = project.root
    params, lock = read_yaml(root / "params.yaml"), read_yaml(root / "dvc.lock")
    metrics = {name: json.loads((root / f"metrics/{name}.json").read_text()) for name in ("scores", "ensemble")}
    table = pd.read_csv(root / "scores/rows.csv")
    references = [written_texts.reference(row) for row in range(ROWS)]
    for number in range(EXPERIMENTS):
        right = 0.4 + number / 1000
        texts = [written_texts.said(words, right, f"{BEST} {row}") for row, words in enumerate(references)]
        figures = leaderboard.score(texts, [(" ".join(words),) for words in references], COMPETITION)
        changed = copy.deepcopy(params)
        changed["models"][BEST]["right"] = right
        table.loc[(table["model"] == BEST) & (table["split"] == "dev"), "rouge_mean"] = figures.mean(axis=1).round(4)
        dev = [{"fname": f"dev_{row}", "text": text} for row, text in enumerate(texts)]
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in dev)
        scores, joined = copy.deepcopy(metrics["scores"]), copy.deepcopy(metrics["ensemble"])
        (written,) = leaderboard.entries_of([figures], JUDGING)
        for entry in (scores["models"][BEST], joined["ensemble"]):
            entry |= {key: written[key] for key in ("rouge_mean", "ci95")}
        locked = copy.deepcopy(lock)
        _set_out(locked, "score", "scores/rows.csv", cached(root, table.to_csv(index=False)))
        _set_out(locked, "ensemble", "ensemble", cached_folder(root, {"dev.jsonl": lines}))
        for name, content in (("params.yaml", changed), ("dvc.lock", locked)):
            write_yaml(root / name, content)
        for name, content in (("scores", scores), ("ensemble", joined)):
            (root / f"metrics/{name}.json").write_text(json.dumps(content))
        commit(root, f"try-{number:03}")
    project.run("git", "checkout", "--quiet", ".")


def cached(root: Path, text: str) -> dict[str, Any]:
    """The text in DVC's cache, and what `dvc.lock` has of it."""
    content = text.encode()
    md5 = hashlib.md5(content).hexdigest()
    path = root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"md5": md5, "size": len(content)}


def cached_folder(root: Path, files: dict[str, str]) -> dict[str, Any]:
    """The same of a folder."""
    found = [{"md5": cached(root, text)["md5"], "relpath": name} for name, text in files.items()]
    whole = cached(root, json.dumps(found))
    path = root / f".dvc/cache/files/md5/{whole['md5'][:2]}/{whole['md5'][2:]}"
    path.rename(f"{path}.dir")
    return {"md5": f"{whole['md5']}.dir", "size": sum(map(len, files.values())), "nfiles": len(files)}


def _set_out(lock: dict[str, Any], stage: str, path: str, values: dict[str, Any]) -> None:
    (out,) = (out for out in lock["stages"][stage]["outs"] if out["path"] == path)
    out.update(values)


def commit(root: Path, name: str) -> None:
    """What is in the folder, as an experiment that began at the commit that is checked out."""

    def git(*command: str) -> str:
        environment = {**os.environ, "GIT_INDEX_FILE": str(root / ".git/of_experiments")}
        environment |= {
            f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        return subprocess.run(
            ["git", *command], cwd=root, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    base = git("rev-parse", "HEAD")
    git("read-tree", base)
    git("update-index", "params.yaml", "dvc.lock", "metrics/scores.json", "metrics/ensemble.json")
    tried = git("commit-tree", git("write-tree"), "-p", base, "-m", name)
    git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", tried)


if __name__ == "__main__":
    main()
