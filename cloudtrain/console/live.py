"""The live display of a terminal: every running stage at once, with how long it will still take.

The only module that draws with rich; it is imported when there is a terminal to draw on.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from cloudtrain.console import words
from cloudtrain.console.stream import plain
from cloudtrain.events import Event, Note, Output, StageFinished, StageStarted, Waterfall
from cloudtrain.events import Progress as Advanced

STYLES = {"warning": "yellow", "success": "green", "info": ""}
"""Colours only repeat what the words say."""


class LiveReporter:
    """A bar or a spinner for each running stage; a line for each that ended."""

    def __init__(self, stream: TextIO, *, color: bool) -> None:
        unicode = "utf" in (getattr(stream, "encoding", None) or "utf-8").lower()
        self._marks = ("✓", "✗") if unicode else ("ok", "FAIL")
        self._console = Console(file=stream, no_color=not color, highlight=False, force_terminal=True)
        self._progress = Progress(
            SpinnerColumn("dots" if unicode else "line"),
            TextColumn("{task.fields[stage]}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=20),
            TextColumn(
                "{task.fields[said]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            expand=True,
        )
        self._running: dict[str, list[TaskID]] = {}
        self._lock = threading.RLock()

    def emit(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            try:
                self._show(event)
            except (OSError, ValueError):  # the terminal is gone; the work goes on
                return

    def close(self) -> None:
        """Take the display down."""
        try:
            self._progress.stop()
        except (OSError, ValueError):
            return

    @contextmanager
    def held(self) -> Generator[None]:
        """Take the display down while somebody is asked something."""
        with self._lock:
            self.close()
            try:
                yield
            finally:
                if self._running:
                    self._progress.start()

    def _show(self, event: Event) -> None:
        match event:
            case StageStarted():
                self._begin(event)
            case StageFinished():
                self._finish(event)
            case Advanced():
                self._advance(event)
            case Note():
                self._line(words.note(event), STYLES[event.level])
            case Output(text):
                self._line(text)
            case Waterfall():
                self._line("\n".join(words.waterfall(event, width=self._console.width)))

    def _begin(self, event: StageStarted) -> None:
        if not self._running:
            self._progress.start()
        task = self._progress.add_task("", total=None, stage=event.stage, said=plain(event.detail))
        self._running.setdefault(event.stage, []).append(task)

    def _advance(self, event: Advanced) -> None:
        for task in self._running.get(event.stage, [])[-1:]:
            said = plain(words.progress(event))
            self._progress.update(task, completed=event.done, total=event.total or None, said=said)

    def _finish(self, event: StageFinished) -> None:
        # Two stages of one name may run at once, on two machines: either's bar will do.
        tasks = self._running.get(event.stage, [])
        if tasks:
            self._progress.remove_task(tasks.pop(0))
        if not tasks:
            self._running.pop(event.stage, None)
        self._line(words.finished(event, self._marks), "" if event.ok else "red")
        if not self._running:
            self._progress.stop()

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(plain(text), style=style), soft_wrap=True)
