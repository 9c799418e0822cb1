"""Events as lines or as JSON lines, to streams that may end at any time.

`live` has the display for terminals; all three are safe to call from many threads,
and none raises because of an event.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields
from typing import Protocol, TextIO

from cloudtrain.console.jsonable import dumps
from cloudtrain.console.stream import plain, tell
from cloudtrain.console.words import finished, note, progress, waterfall
from cloudtrain.events import Event, Note, Output, Progress, StageFinished, StageStarted, Waterfall

EVERY_S = 10.0
"""Seconds between two progress lines of one stage where there is no terminal."""


class ConsoleReporter(Protocol):
    """A `Reporter` that holds a stream until it is closed."""

    def emit(self, event: Event) -> None:
        """Take one event; never raise because of it."""
        ...

    def close(self) -> None:
        """Give the stream back as it was; twice is harmless."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Leave the terminal to a question for as long as it takes."""
        ...


def make_reporter(
    *,
    json: bool,
    quiet: bool,
    stream: TextIO,
    environ: Mapping[str, str],
    isatty: bool | None = None,
) -> ConsoleReporter:
    """Return the reporter for a stream: JSON lines, a live display on a terminal, else lines.

    `NO_COLOR` (https://no-color.org) and `TERM=dumb` are respected. With `quiet` only
    warnings are shown.
    """
    if json:
        return JsonReporter(stream)
    terminal = stream.isatty() if isatty is None else isatty
    if terminal and not quiet and environ.get("TERM") != "dumb":
        from cloudtrain.console.live import LiveReporter

        return LiveReporter(stream, color=not environ.get("NO_COLOR"))
    return LineReporter(stream, quiet=quiet)


class JsonReporter:
    """One JSON object a line, flushed at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write one event."""
        body = {field.name: getattr(event, field.name) for field in fields(event)}
        line = dumps({"event": _kebab(type(event).__name__), **body})
        with self._lock:
            tell(self._stream, line + "\n")

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def held(self) -> Generator[None]:
        """Write nothing while somebody is asked something."""
        with self._lock:
            yield


class LineReporter:
    """A line where a stage begins and where it ends, progress now and then; fit for a log file."""

    def __init__(self, stream: TextIO, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._quiet = quiet
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def emit(self, event: Event) -> None:
        """Write what is worth a line."""
        if self._quiet and not (isinstance(event, Note) and event.level == "warning"):
            return
        with self._lock:
            text = self._text(event)
            if text is not None:
                tell(self._stream, plain(text) + "\n")

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def held(self) -> Generator[None]:
        """Write nothing while somebody is asked something."""
        with self._lock:
            yield

    def _text(self, event: Event) -> str | None:
        match event:
            case Note():
                return note(event)
            case StageStarted(stage, detail):
                self._said[stage] = self._clock()
                return f"..   {stage}  {detail}".rstrip()
            case StageFinished():
                return finished(event, ("ok  ", "FAIL"))
            case Progress():
                return self._progress(event)
            case Output(text):
                return text
            case Waterfall():
                return "\n".join(waterfall(event))

    def _progress(self, event: Progress) -> str | None:
        now = self._clock()
        if now - self._said.setdefault(event.stage, now) < EVERY_S:
            return None
        self._said[event.stage] = now
        return f"..   {event.stage}  {progress(event)}"


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).strip("-")
