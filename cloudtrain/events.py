"""What happened, as values: the only way the inner layers speak to a user.

Workflows emit events into a `Reporter`; `console` decides how they look (rich
on a terminal, lines without one, JSON lines with `--json`). No layer below
`console` prints.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A named piece of work began."""

    stage: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StageFinished:
    """It ended. `seconds` is its wall time; `outcome` is one short phrase."""

    stage: str
    seconds: float
    outcome: str = ""
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running stage is. `total` 0 means unknown; `eta_s` None likewise.

    `rate` is what moves now and `best` the most that moved in any second or so, in units
    a second: what the line could do. `files` counts what is whole; 0 of 0 means unknown.
    """

    stage: str
    done: float
    total: float
    unit: Literal["bytes", "files", "objects", "steps", "epochs", "seconds"]
    eta_s: float | None = None
    detail: str = ""
    rate: float | None = None
    best: float | None = None
    files: int = 0
    files_total: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth one line. `level` warning goes on; it never stops anything."""

    text: str
    level: Literal["info", "warning", "success"] = "info"
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A line that came from the user's own program on the machine."""

    text: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class StageTime:
    """One bar of the waterfall. Times are seconds since the timeline's start."""

    stage: str
    start: float
    end: float
    outcome: str
    ok: bool
    after: tuple[str, ...] = ()
    """The stages that it waited for; of those it could have begun at the end of, the last."""

    @property
    def seconds(self) -> float:
        """Wall time of the stage."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Waterfall:
    """All stages of one command, in order of their start, and the longest chain."""

    stages: tuple[StageTime, ...]
    total_s: float
    critical: tuple[str, ...]


Event = StageStarted | StageFinished | Progress | Note | Output | Waterfall


class Reporter(Protocol):
    """Where events go. Implementations must be safe to call from many threads."""

    def emit(self, event: Event) -> None:
        """Take one event; never raise because of it."""
        ...


class Silent:
    """A reporter that drops everything."""

    def emit(self, event: Event) -> None:
        """Drop it."""


@dataclass(slots=True)
class Timeline:
    """Times the stages of one command and reports them as they begin and end.

    Thread safe: stages may overlap. `clock` is monotonic seconds.
    """

    reporter: Reporter
    clock: Callable[[], float] = time.monotonic
    _done: list[StageTime] = field(default_factory=list[StageTime])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _zero: float | None = None

    @contextmanager
    def stage(self, name: str, detail: str = "", after: tuple[str, ...] = ()) -> Generator[StageHandle]:
        """Report a stage around a block; an exception marks it failed and passes on.

        `after` names what it is known to have waited for; without, times tell.
        """
        with self._lock:
            if self._zero is None:
                self._zero = self.clock()
            zero = self._zero
        start = self.clock() - zero
        handle = StageHandle(name, self.reporter)
        self.reporter.emit(StageStarted(name, detail))
        ok = False
        try:
            yield handle
            ok = True
        finally:
            end = self.clock() - zero
            with self._lock:
                self._done.append(StageTime(name, start, end, handle.outcome, ok, after))
            self.reporter.emit(StageFinished(name, end - start, handle.outcome, ok))

    def waterfall(self) -> Waterfall:
        """Return everything timed so far, with its critical path."""
        with self._lock:
            stages = tuple(sorted(self._done, key=lambda s: (s.start, s.end)))
        total = max((s.end for s in stages), default=0.0)
        known = tuple(replace(one, after=_awaited(one, stages)) for one in stages)
        return Waterfall(known, total, critical_path(known))


@dataclass(slots=True)
class StageHandle:
    """Lets the body of a stage say how far it is, as a `Reporter`, and in one phrase how it ended."""

    stage: str
    reporter: Reporter
    outcome: str = ""

    def emit(self, event: Event) -> None:
        """Report an event; progress is this stage's, whatever the part at work calls itself."""
        self.reporter.emit(replace(event, stage=self.stage) if isinstance(event, Progress) else event)


def critical_path(stages: tuple[StageTime, ...]) -> tuple[str, ...]:
    """Name the chain of stages that the last one waited for, in order.

    Walking back from the stage that ended last, the predecessor is what it is known to
    have waited for, else the stage that ended latest before (or as) the current one
    started: it is the one whose shortening would have moved everything after it.
    """
    path: list[str] = []
    current = max(stages, key=lambda s: s.end, default=None)
    while current is not None:
        path.append(current.stage)
        current = _before(current, stages)
    return tuple(reversed(path))


def _awaited(stage: StageTime, stages: tuple[StageTime, ...]) -> tuple[str, ...]:
    before = _before(stage, stages)
    return (before.stage,) if before else ()


def _before(stage: StageTime, stages: tuple[StageTime, ...]) -> StageTime | None:
    """Return the stage that this one waited for longest, None for one that waited for nothing."""
    ended = [one for one in stages if one.end <= stage.start + 1e-3 and one.start < stage.start]
    known = [one for one in ended if one.stage in stage.after]
    return max(known or ended, key=lambda one: one.end, default=None)
