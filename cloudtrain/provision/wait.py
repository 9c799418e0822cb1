"""Waiting for capacity: asking again and again, politely, until a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cloudtrain.errors import CapacityError
from cloudtrain.events import Note, Progress, Reporter

T = TypeVar("T")
FIRST_S = 5.0
LONGEST_S = 300.0
"""The pauses between two asks grow from the first to the longest: a launch quota refills slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to keep asking, in hours; 0 asks once."""

    hours: float = 0.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    spread: Callable[[], float] = random.random


def patiently(ask: Callable[[], T], patience: Patience, reporter: Reporter) -> T:
    """Return what `ask` returns, asked again as long as the cloud has no capacity.

    Nothing is held or paid for between two asks. Raises the last `CapacityError` at the
    deadline, and everything else at once.
    """
    began = patience.clock()
    end = began + patience.hours * 3600
    pause = FIRST_S
    while True:
        try:
            return ask()
        except CapacityError as error:
            now = patience.clock()
            if now >= end:
                raise
            if pause == FIRST_S:
                reporter.emit(Note(error.message, level="warning", hint="waiting; Ctrl-C ends it"))
        reporter.emit(
            Progress(
                "wait for capacity",
                now - began,
                end - began,
                "seconds",
                detail=f"asking again in {min(pause, end - now):.0f} s",
            )
        )
        # Half of the pause is chance, so that many who wait do not ask at the same time.
        patience.sleep(min(pause * (0.5 + patience.spread() / 2), end - now))
        pause = min(pause * 1.5, LONGEST_S)
