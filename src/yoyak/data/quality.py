"""What was found in dialogues as they were read: sizes, repairs, rows that stand twice, rows without speakers."""

import hashlib
import statistics
from array import array
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

from yoyak.core.errors import quoted
from yoyak.core.records import Dialogue
from yoyak.core.speakers import speakers


class Quality:
    """Of the rows of a split, which it is given one at a time and does not keep."""

    def __init__(self, of_train: Container[bytes] = ()) -> None:
        """`of_train` are the `texts` of the train split, where this is another."""
        self.texts: set[bytes] = set()
        """A digest of each different dialogue."""
        self.several_summaries = False
        """Whether any row has them."""
        self._of_train = of_train
        self._rows = self._repaired = self._in_train = 0
        self._characters, self._summary_characters, self._turns = array("L"), array("L"), array("L")
        self._speakers: Counter[str] = Counter()
        self._first_unlabelled = ""

    def add(self, row: Dialogue, turns: Sequence[str]) -> None:
        """A row and its cleaned turns."""
        text = "\n".join(turns)
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        found = str(len(speakers(text)))
        if found == "0" and not self._speakers["0"]:
            self._first_unlabelled = row.fname
        self._rows += 1
        self._repaired += text != row.dialogue
        self._in_train += digest in self._of_train
        self.texts.add(digest)
        self._characters.append(len(text))
        self._summary_characters.extend(map(len, row.summaries))
        self._turns.append(len(turns))
        self._speakers[found] += 1
        self.several_summaries |= len(row.summaries) > 1

    def report(self) -> dict[str, Any]:
        """The split's part of `metrics/data.json`."""
        return {
            "rows": self._rows,
            "dialogue_characters": _spread(self._characters),
            "summary_characters": _spread(self._summary_characters),
            "turns": _spread(self._turns),
            "speakers": dict(sorted(self._speakers.items())),
            "repaired_rows": self._repaired,
            "rows_in_train_too": self._in_train,
            "duplicate_dialogues": self._rows - len(self.texts),
        }

    def note_on_labels(self) -> list[str]:
        """A line on the rows in which nobody speaks under a label that we know: their number and the first; or none."""
        count = self._speakers["0"]
        if not count:
            return []
        others = f" (and {count - 1} more of {self._rows} rows)" if count > 1 else ""
        return [
            f"{quoted(self._first_unlabelled)}{others}: nobody speaks under a label such as `#Person1#:` or `A:`, so "
            "that each line is read as a turn"
        ]


def _spread(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }
