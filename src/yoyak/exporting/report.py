"""What `yoyak export` prints of what it has measured."""

from gettext import gettext as _

from rich.markup import escape
from rich.table import Table

from yoyak.exporting.run import Exported


def tables(exported: Exported) -> list[Table | str]:
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for column in (
        _("{rows} rows of dev").format(rows=exported.parity["rows"]),
        _("loss, nats a token"),
        _("ROUGE, greedy"),
        "95 %",
    ):
        table.add_column(column, overflow="fold")
    for row in exported.parity["models"]:
        low, high = row["ci95"]
        table.add_row(row["what"], f"{row['loss']:.4f}", f"{row['rouge_mean']:.2f}", f"{low:.2f}–{high:.2f}")
    pushed = [_("pushed: {name}").format(name=exported.pushed)] if exported.pushed else []
    folder = _("exported: {folder}").format(folder=exported.folder)
    return [table, *map(escape, exported.parity["checks"]), folder, *pushed]
