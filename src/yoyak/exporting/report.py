"""What `yoyak export` prints of what it has measured."""

from rich.markup import escape
from rich.table import Table

from yoyak.exporting.run import Exported


def tables(exported: Exported) -> list[Table | str]:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for column in (f"{exported.parity['rows']} rows of dev", "loss, nats a token", "ROUGE, greedy", "95 %"):
        table.add_column(column, overflow="fold")
    for row in exported.parity["models"]:
        low, high = row["ci95"]
        table.add_row(row["what"], f"{row['loss']:.4f}", f"{row['rouge_mean']:.2f}", f"{low:.2f} to {high:.2f}")
    pushed = [f"pushed: {exported.pushed}"] if exported.pushed else []
    return [table, *map(escape, exported.parity["checks"]), f"exported: {exported.folder}", *pushed]
