"""Processes beside this one, each with a GPU of its own: they do what they are told, and none outlives this one."""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Thread
from types import TracebackType
from typing import Any, Self

from yoyak.core import errors, gpu
from yoyak.core.errors import UserError

SECONDS_TO_END = 30
Work = Callable[[Any], Iterator[Any]]
"""From an order to its results."""


@dataclass(frozen=True)
class Done:
    """A worker has done what it was told."""

    peak_memory_gib: float


@dataclass(frozen=True)
class Fault:
    """A worker cannot go on."""

    line: str
    """For the user."""


@dataclass(frozen=True)
class Death:
    """A worker has ended, by whatever."""

    number: int


class Workers:
    """Open as a context: at its end, and at that of this process, be it killed, all workers are killed."""

    def __init__(self, who: str, gpus: Sequence[str], begin: Callable[[], Work]) -> None:
        """A worker for each of `gpus`, named as in `CUDA_VISIBLE_DEVICES`. `begin`, which must be picklable, is called
        in each, and returns what does the work; `who` begins the lines that tell of a death."""
        self.who, self.gpus, self.begin = who, gpus, begin
        self.peak_memory_gib = 0.0
        """Most that a worker has had in use, in GiB, when it was last done."""
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._at_work = 0

    def __len__(self) -> int:
        return len(self.gpus)

    def __enter__(self) -> Self:
        for number, name in enumerate(self.gpus):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(target=_work, args=(theirs, self.begin))
            with _environment_of_a_worker(name):
                process.start()
            # The worker's alone: once it has ended, however it did, we read the end of what it sent.
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
            Thread(target=self._receive, args=(number, ours), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            with suppress(OSError):
                connection.send(None)
            # What libraries write at a process' end is worth the wait, where all went well.
            process.join(0 if error else SECONDS_TO_END)
            process.kill()
        for process in self._processes:
            process.join()

    def tell(self, orders: Sequence[Any]) -> None:
        """One to each worker."""
        for connection, order in zip(self._connections, orders, strict=True):
            self._at_work += 1
            try:
                connection.send(order)
            except OSError:
                # It has ended: before the end of what it sent comes its reason, if it gave one.
                list(self.results())

    def share(self, work: Work, orders: Sequence[Any]) -> Iterator[Any]:
        """Results of all orders as they come: the first is this process' own, and the others go to a worker each."""
        own, *others = orders
        self.tell(others)
        for result in work(own):
            yield result
            yield from self._results_so_far()
        yield from self.results()

    def _results_so_far(self) -> Iterator[Any]:
        """Those that have come since; never waits."""
        while not self._messages.empty():
            yield from self._results_in(self._messages.get())

    def results(self) -> Iterator[Any]:
        """All that are still to come, as they come."""
        while self._at_work:
            yield from self._results_in(self._messages.get())

    def _results_in(self, message: Any) -> Iterator[Any]:
        match message:
            case Done(peak_memory_gib):
                self._at_work -= 1
                self.peak_memory_gib = max(self.peak_memory_gib, peak_memory_gib)
            case Fault(line):
                raise UserError(line)
            case Death(number):
                raise UserError(
                    f"{self.who}: {_how_ended(self._processes[number], self.gpus[number] or str(number + 1))}"
                )
            case _:
                yield message

    def _receive(self, number: int, connection: Connection) -> None:
        """In a thread: a worker never waits until we listen."""
        try:
            while True:
                self._messages.put(connection.recv())
        except (EOFError, OSError):
            self._messages.put(Death(number))


def _how_ended(process: SpawnProcess, gpu_name: str) -> str:
    process.join()
    code = process.exitcode or 0
    if code < 0:
        return (
            f"the process of GPU {gpu_name} was killed ({signal.Signals(-code).name}); `dvc repro` goes on where it was"
        )
    return f"the process of GPU {gpu_name} has ended with exit code {code}; its error stands above"


@contextmanager
def _environment_of_a_worker(name: str) -> Iterator[None]:
    """What a process that starts meanwhile inherits: one GPU; and Ctrl-C is for this process to answer."""
    ours = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = name
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if ours is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = ours


def _work(connection: Connection, begin: Callable[[], Work]) -> None:
    """The whole of a worker."""
    orders: queue.SimpleQueue[Any] = queue.SimpleQueue()
    Thread(target=_listen, args=(connection, orders), daemon=True).start()
    try:
        work = begin()
        while (order := orders.get()) is not None:
            for result in work(order):
                connection.send(result)
            connection.send(Done(gpu.peak_memory_gib()))
    except BaseException as error:
        line = errors.line_of(error)
        if line is None:
            raise
        connection.send(Fault(line))


def _listen(connection: Connection, orders: queue.SimpleQueue[Any]) -> None:
    """In a thread of a worker's: whatever the worker is at, it ends with the process that gives the orders."""
    try:
        while True:
            orders.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)
