"""A trainer's output as lines that can be shown: progress bars as they were last, no control codes."""

from __future__ import annotations

import re

CONTROL = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f]"
)
"""Escape sequences and control characters: colours and cursor moves, and whatever else
a program on another machine might want to do to this terminal. Tabs and newlines stay."""


class Lines:
    """Puts pieces of output together into lines. A piece may end anywhere, within a character too."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        """Take a piece and return the lines it ended.

        Of a line that was written over and over, only the last state is kept, at once,
        so that an hour of progress bars does not pile up.
        """
        *whole, rest = (self._rest + piece).split(b"\n")
        self._rest = rest[rest.rstrip(b"\r").rfind(b"\r") + 1 :]
        return [clean(line) for line in whole]

    def end(self) -> list[str]:
        """Return what is left without a newline."""
        rest, self._rest = self._rest, b""
        return [clean(rest)] if rest else []


def clean(line: bytes) -> str:
    """Return the last state of one line, without control codes."""
    shown = CONTROL.sub(b"", line.rstrip(b"\r").rsplit(b"\r", 1)[-1])
    return shown.decode("utf-8", "replace")


def last_state(text: str) -> str:
    """Return the last line of `text` that shows anything."""
    shown = (clean(line.encode()).strip() for line in reversed(text.split("\n")))
    return next((line for line in shown if line), "")
