"""Events as lines, as JSON lines, or live on a terminal."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, TextIO

from cloudtrain.console.jsonable import to_jsonable
from cloudtrain.console.words import duration, size
from cloudtrain.events import Event, Note, Output, Progress, StageFinished, StageStarted

if TYPE_CHECKING:
    from rich.progress import TaskID

EVERY_S = 10.0
"""Seconds between two progress lines of one stage where there is no terminal."""


class JsonReporter:
    """One JSON object a line, flushed at once."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write one event."""
        body = {field.name: to_jsonable(getattr(event, field.name)) for field in fields(event)}
        with self._lock:
            self._stream.write(json.dumps({"event": _kebab(type(event).__name__), **body}) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Nothing is held."""


class LineReporter:
    """A line at the end of every stage, progress now and then; fit for a log file."""

    def __init__(self, stream: TextIO, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._quiet = quiet
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}
        self._epoch: float = -1

    def emit(self, event: Event) -> None:
        """Write what is worth a line."""
        text = self._text(event)
        if text is not None:
            with self._lock:
                self._stream.write(text + "\n")
                self._stream.flush()

    def close(self) -> None:
        """Nothing is held."""

    def _text(self, event: Event) -> str | None:
        if isinstance(event, Note):
            return note_text(event) if event.level == "warning" or not self._quiet else None
        if self._quiet:
            return None
        if isinstance(event, StageStarted):
            self._said[event.stage] = self._clock()
        elif isinstance(event, StageFinished):
            return finished_text(event, ("ok  ", "FAIL"))
        elif isinstance(event, Output):
            return event.text
        elif isinstance(event, Progress):
            return self._progress(event)
        return None

    def _progress(self, event: Progress) -> str | None:
        now = self._clock()
        if event.unit == "epochs":
            if event.done == self._epoch:
                return None
            self._epoch = event.done
        elif now - self._said.get(event.stage, now) < EVERY_S:
            self._said.setdefault(event.stage, now)
            return None
        self._said[event.stage] = now
        return f"...  {event.stage}  {progress_text(event)}"


class LiveReporter:
    """rich's progress display: a bar or a spinner for each running stage, lines for what ended."""

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = RichConsole(file=stream, no_color=not color, highlight=False, force_terminal=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[stage]}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[said]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._marks = (
            ("✓", "✗") if "utf" in (getattr(stream, "encoding", "") or "").lower() else ("ok", "FAIL")
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            if isinstance(event, StageStarted):
                self._begin(event)
            elif isinstance(event, StageFinished):
                self._finish(event)
            elif isinstance(event, Progress):
                self._advance(event)
            elif isinstance(event, Note):
                self._line(note_text(event))
            elif isinstance(event, Output):
                self._line(event.text)

    def close(self) -> None:
        """Take the display down."""
        self._progress.stop()

    def _begin(self, event: StageStarted) -> None:
        if not self._tasks:
            self._progress.start()
        self._tasks[event.stage] = self._progress.add_task(
            "", total=None, stage=event.stage, said=event.detail
        )

    def _advance(self, event: Progress) -> None:
        task = self._tasks.get(event.stage)
        if task is not None:
            total = event.total or None
            self._progress.update(task, completed=event.done, total=total, said=progress_text(event))

    def _finish(self, event: StageFinished) -> None:
        task = self._tasks.pop(event.stage, None)
        if task is not None:
            self._progress.remove_task(task)
        self._line(finished_text(event, self._marks))
        if not self._tasks:
            self._progress.stop()

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def note_text(event: Note) -> str:
    """Return a note as text; the word says its level, colour never does alone."""
    text = f"warning: {event.text}" if event.level == "warning" else event.text
    return f"{text}\nhint: {event.hint}" if event.hint else text


def finished_text(event: StageFinished, marks: tuple[str, str]) -> str:
    """Return the line that ends a stage."""
    outcome = f"  {event.outcome}" if event.outcome else ""
    return f"{marks[0] if event.ok else marks[1]} {event.stage}{outcome}  {duration(event.seconds)}"


def progress_text(event: Progress) -> str:
    """Return how far a stage is, and how long it will take."""
    amount: Callable[[float], str] = size if event.unit == "bytes" else lambda value: f"{value:g}"
    of = f" of {amount(event.total)}" if event.total else ""
    unit = "" if event.unit == "bytes" else f" {event.unit}"
    eta = f", {duration(event.eta_s)} left" if event.eta_s is not None else ""
    detail = f"  {event.detail}" if event.detail else ""
    return f"{amount(event.done)}{of}{unit}{eta}{detail}"


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).strip("-")


AnyReporter = JsonReporter | LineReporter | LiveReporter
