"""Processes beside this one: what they find comes back, and whatever happens none of them stays."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from yoyak.core.errors import UserError
from yoyak.core.workers import Work, Workers


def begin() -> Work:
    return work


def work(order: str) -> Iterator[object]:
    yield os.getpid()
    match order:
        case "refuse":
            raise UserError("no room\nfor this")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "wait":
            time.sleep(600)
    yield order


def refuse() -> Work:
    raise UserError("cannot begin")


def is_alive(process: int) -> bool:
    """A zombie is not: its parent has yet to be told."""
    state = Path(f"/proc/{process}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_each_does_what_it_is_told() -> None:
    with Workers("twin", ["", ""], begin) as workers:
        workers.tell(["a", "b"])
        first = list(workers.results())
        workers.tell(["c", "d"])
        second = list(workers.results())
    processes = {result for result in first if isinstance(result, int)}
    assert len(processes) == 2
    assert processes == {result for result in second if isinstance(result, int)}
    assert {result for result in [*first, *second] if isinstance(result, str)} == {"a", "b", "c", "d"}
    assert workers.peak_memory_gib > 0
    assert not any(map(is_alive, processes))


@pytest.mark.parametrize(
    ("order", "line"),
    [
        ("refuse", "no room\nfor this"),
        (
            "die",
            r"twin: the process of GPU 2 was killed \(SIGKILL\); `dvc repro` goes on where it was",
        ),
    ],
)
def test_the_end_of_one_is_the_end_of_all(order: str, line: str) -> None:
    with Workers("twin", ["", ""], begin) as workers:
        workers.tell(["wait", order])
        processes = []
        with pytest.raises(UserError, match=f"^{line}$"):
            processes.extend(workers.results())
    assert not any(map(is_alive, (process.pid or 0 for process in workers._processes)))


def test_one_that_cannot_begin() -> None:
    with Workers("twin", [""], refuse) as workers:
        workers._processes[0].join()
        with pytest.raises(UserError, match=r"^cannot begin$"):
            told_and_done(workers)


def told_and_done(workers: Workers) -> None:
    """Whichever of the two notices."""
    workers.tell(["a"])
    list(workers.results())


SCRIPT = """
from test_workers import begin
from yoyak.core.workers import Workers

if __name__ == "__main__":
    with Workers("twin", ["", ""], begin) as workers:
        workers.tell(["wait", "wait"])
        for process in workers.results():
            print(process, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_none_outlives_the_process_that_it_works_for(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C comes to all of a terminal's processes, and one of them answers it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    running = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout is not None
    processes = [int(running.stdout.readline()) for _ in range(2)]
    assert all(map(is_alive, processes))
    os.killpg(running.pid, how) if how == signal.SIGINT else running.send_signal(how)
    _, errors = running.communicate(timeout=30)
    assert errors.count("Traceback") == (how == signal.SIGINT)
    until = time.monotonic() + 30
    while any(map(is_alive, processes)):
        assert time.monotonic() < until
        time.sleep(0.01)
