"""What every benchmark does with its figures: a table to look at, and a file of rows that belong to a commit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from yoyak.core import environment, repository


def require_clean_tree() -> None:
    """Figures of uncommitted code belong to nothing."""
    if subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout:
        sys.exit("error: uncommitted changes; commit them, so that the figures belong to a commit")


def in_a_process(
    script: str, *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> Any:
    """The last line that `script` prints, as JSON: each side of a comparison runs in a process of its own, in `folder`
    where it leaves files in the one that it runs in."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment, cwd=folder)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def row(
    name: str, unit: str, ours: float, baseline: float, baseline_name: str, peak_gib: float, command: str
) -> dict[str, Any]:
    """`ratio` is above 1 where ours is better: of rates ours over theirs, of seconds theirs over ours. Of losses it is
    ours over theirs, and 1 where they agree."""
    ratio = baseline / ours if unit.startswith("seconds") else ours / baseline
    return {
        "name": name,
        "device": environment.describe()["device"],
        "unit": unit,
        "ours": float(f"{ours:.4g}"),
        "baseline": float(f"{baseline:.4g}"),
        "baseline_name": baseline_name,
        "ratio": round(ratio, 2),
        "peak_gib": round(peak_gib, 2),
        "commit": repository.commit(),
        "command": command,
    }


def record(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows and write `benchmarks/results/<name>.json`."""
    table = Table(title=f"{name} on {rows[0]['device']}")
    for column in ("name", "unit", "ours", "baseline", "baseline_name", "ratio", "peak_gib"):
        table.add_column(column, justify="left" if "name" in column or column == "unit" else "right")
    for each in rows:
        table.add_row(*(str(each[column.header]) for column in table.columns))
    Console().print(table)
    path = Path(f"benchmarks/results/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")
