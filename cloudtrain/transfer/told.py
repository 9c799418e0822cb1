"""How far the machine is with work of its own: a download, an archive, a clone.

Its scripts say so in lines of their output, `@at DONE TOTAL FILES FILES_TOTAL DETAIL` with tabs
between: templates/told-lib.sh. Numbers are 0 where they are not known. `@differ COUNT` says how many
files were other than they must be.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloudtrain.errors import ConnectError
from cloudtrain.events import Progress, Reporter
from cloudtrain.ssh.remote import Channel

MARK = "@at"
DIFFER = "@differ"


@dataclass(slots=True)
class Told:
    """Turns such lines into `Progress`, with its rate since the first and the time that is left."""

    reporter: Reporter
    doing: str = ""
    unit: Literal["bytes", "objects"] = "bytes"
    clock: Callable[[], float] = time.monotonic
    differ: int = 0
    """Files that were other than they must be, and were replaced."""
    _first: tuple[float, int] | None = None
    _last: tuple[float, int] | None = None
    _best: float = 0.0
    _doing: str = ""

    def take(self, channel: Channel) -> None:
        """Read a script's output to its end, line by line. Raises `ConnectError` on a stall."""
        rest = b""
        while chunk := _read(channel):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self.line(line.decode("utf-8", "replace"))

    def line(self, text: str) -> None:
        """Report what a line says; one that says something else is passed over."""
        mark, *fields = text.split("\t")
        if mark == DIFFER and len(fields) == 1 and fields[0].isdigit():
            self.differ += int(fields[0])
        if mark != MARK or len(fields) != 5:
            return
        done, total, files, files_total = (int(field) if field.isdigit() else 0 for field in fields[:4])
        self._at(done, total, files, files_total, fields[4])

    def _at(self, done: int, total: int, files: int, files_total: int, detail: str) -> None:
        doing = detail if self.unit == "objects" else self.doing
        now = self.clock()
        if self._first is None or self._last is None or doing != self._doing or done < self._last[1]:
            self._first = self._last = (now, done)  # another part of the work, or from its beginning again
            self._doing, self._best = doing, 0.0
        mean = _rate(self._first, (now, done))
        self._best = max(self._best, _rate(self._last, (now, done)))
        self._last = (now, done)
        self.reporter.emit(
            Progress(
                "",
                done,
                total,
                self.unit,
                eta_s=max(0.0, total - done) / mean if mean and total else None,
                detail=detail or self.doing,
                rate=mean or None,
                best=self._best or None,
                files=files,
                files_total=files_total,
            )
        )


def _rate(before: tuple[float, int], now: tuple[float, int]) -> float:
    seconds = now[0] - before[0]
    return (now[1] - before[1]) / seconds if seconds > 0 else 0.0


def _read(channel: Channel) -> bytes:
    try:
        return channel.read()
    except ConnectError as error:
        raise ConnectError("the machine stopped answering", hint="run the same command again") from error
