"""One line of `yoyak doctor`, and patience for what may never answer."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Literal, NamedTuple, TypeVar

from yoyak.core.errors import UserError

T = TypeVar("T")
PATIENCE = 8.0
"""Seconds that a server has to answer."""


class Finding(NamedTuple):
    """What a look at one thing came to."""

    mark: Literal["ok", "warning", "problem"]
    """A run works with warnings, and ends at a problem."""
    what: str
    told: str
    """What is so, and where it is not ok, what to do."""


def within_patience(work: Callable[[], T], who: str) -> T:
    """What `work` returns or raises, or a `UserError` that `who` does not answer. Nobody waits for it any longer."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001, it is raised where the answer is waited for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return future.result(PATIENCE)
    except TimeoutError:
        if future.done():
            raise
        raise UserError(f"{who} has not answered for {PATIENCE:g} s; check the network") from None
