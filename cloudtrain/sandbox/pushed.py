"""Keys that a machine takes for a while only, in a file of their own."""

from __future__ import annotations

import threading
from pathlib import Path


class PushedKeys:
    """The keys of one machine. The file is replaced whole: sshd reads it at every login."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._lines: list[str] = []

    def push(self, public: str, for_s: float) -> None:
        """Take a key for `for_s` seconds."""
        line = f"{public.strip()}\n"
        self._change([*self._lines, line])
        timer = threading.Timer(for_s, self._forget, (line,))
        timer.daemon = True
        timer.start()

    def clear(self) -> None:
        """Take no key any more."""
        with self._lock:
            self._lines = []
            self._path.unlink(missing_ok=True)

    def _forget(self, line: str) -> None:
        if line in self._lines:
            at = self._lines.index(line)
            self._change(self._lines[:at] + self._lines[at + 1 :])

    def _change(self, lines: list[str]) -> None:
        with self._lock:
            self._lines = lines
            part = self._path.with_suffix(".part")
            part.write_text("".join(lines))
            part.chmod(0o644)
            part.replace(self._path)
