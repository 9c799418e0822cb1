"""Questions whose answer is welcome but not needed, asked side by side to one deadline.

Denied, unknown or late, an answer is named in `missing` and its default is taken.
Threads are daemons: a stalled question must not hold a command that has its answer.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import botocore.exceptions as boto

from cloudtrain.errors import CloudError, CloudtrainError
from cloudtrain.providers.aws.errors import FAILURES, code_of

T = TypeVar("T")
K = TypeVar("K")

DEADLINE_S = 8.0
"""How long advice may take altogether."""
WIDTH = 12
"""How many questions of a kind are open at once."""
DENIED = (
    *FAILURES,
    CloudtrainError,
    TimeoutError,
    KeyError,
    ValueError,
    IndexError,
    TypeError,
)
"""What an answer that is not to be had looks like; the latter four are answers of another shape."""


@dataclass(slots=True)
class Advice:
    """Collects answers until `end`, and what did not come."""

    deadline_s: float = DEADLINE_S
    clock: Callable[[], float] = time.monotonic
    missing: list[str] = field(default_factory=list[str])
    end: float = 0.0

    def __post_init__(self) -> None:
        self.end = self.clock() + self.deadline_s

    def take(self, future: Future[T], what: str, default: T) -> T:
        """Return an answer, or the default with a word about what is missing."""
        try:
            return self.wait(future)
        except DENIED as error:
            self.say(what, error)
            return default

    def wait(self, future: Future[T]) -> T:
        """Return an answer, or raise what it failed with, `TimeoutError` when it is late."""
        return future.result(timeout=max(0.0, self.end - self.clock()))

    def say(self, what: str, error: BaseException) -> None:
        """Name what is missing, once, with the reason."""
        text = f"{what} ({reason(error)})"
        if text not in self.missing:
            self.missing.append(text)


def reason(error: BaseException) -> str:
    """Return why an answer is missing, in a word."""
    if isinstance(error, boto.ClientError):
        return code_of(error)
    if isinstance(error, CloudError) and error.code:
        return error.code
    if isinstance(error, TimeoutError | boto.ReadTimeoutError | boto.ConnectTimeoutError):
        return "no answer in time"
    return type(error).__name__


def ask(question: Callable[[], T]) -> Future[T]:
    """Ask one question in a thread of its own."""
    return ask_each(lambda _: question(), [None])[None]


def ask_each(question: Callable[[K], T], items: Iterable[K], *, width: int = WIDTH) -> dict[K, Future[T]]:
    """Ask the same of several things, at most `width` at a time."""
    waiting: queue.SimpleQueue[tuple[K, Future[T]]] = queue.SimpleQueue()
    futures: dict[K, Future[T]] = {}
    for item in items:
        if item not in futures:
            futures[item] = Future()
            waiting.put((item, futures[item]))
    for _ in range(min(width, len(futures))):
        threading.Thread(target=_work, args=(question, waiting), daemon=True, name="advice").start()
    return futures


def _work(question: Callable[[K], T], waiting: queue.SimpleQueue[tuple[K, Future[T]]]) -> None:
    while True:
        try:
            item, future = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            future.set_result(question(item))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the answer
            future.set_exception(error)
