"""How far an inference is, to look at: dialogues a second, and the time left."""

from yoyak.core import progress
from yoyak.core.progress import Reporter, span


class Pace:
    """Dialogues a second of this run, which a `reporter` shows."""

    def __init__(self, reporter: Reporter, missing: int, rows: int, at_work: int) -> None:
        """`missing` of `rows` are to be done; `at_work` are begun before the first of these is done."""
        self.reporter, self.missing, self.rows, self.at_work = reporter, missing, rows, at_work
        self.started = progress.clock()
        reporter.begin(rows - missing, rows)

    def show(self, done: int) -> None:
        """`done` by this run; those at work are half done, on average."""
        worth = done + min(self.at_work, self.missing - done) / 2
        rate = worth / (progress.clock() - self.started)
        left = (self.missing - worth) / rate
        of_all = self.rows - self.missing + done
        note = f"{_rate(rate)}, {span(left)} left"
        self.reporter.show(of_all, note, f"{of_all} of {self.rows} dialogues, {note}", left)

    def end(self) -> None:
        seconds = progress.clock() - self.started
        of_them = "done" if self.missing == self.rows else f"{self.missing} of them"
        self.reporter.end(self.rows, f"{of_them} in {span(seconds)}, {_rate(self.missing / seconds)}")


def _rate(a_second: float) -> str:
    return f"{a_second:.1f}/s" if a_second >= 0.1 else f"{60 * a_second:.1f}/min"
