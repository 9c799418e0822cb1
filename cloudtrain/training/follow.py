"""The training's output as it comes, until the training ends.

The log is followed on the machine by `tail`, which ends with the trainer; zero bytes
in between let this side notice a dead line within a minute, and let that side end
when nobody listens any more.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from pathlib import PurePosixPath

from cloudtrain.errors import ConnectError
from cloudtrain.models.run import Layout
from cloudtrain.models.training import Session
from cloudtrain.ssh.remote import Remote
from cloudtrain.training.lines import Lines
from cloudtrain.training.scripts import script
from cloudtrain.training.session import parse_session

SILENCE_S = 60
"""Seconds without even a zero byte after which the line is taken for dead; one comes every 15."""


def follow(
    remote: Remote,
    session: Session,
    on_line: Callable[[str], None],
    *,
    from_start: bool = False,
    lines: int = 10,
    until_end: bool = True,
) -> Session:
    """Give `on_line` the log's last `lines` lines (or all), and what comes, until the session ends.

    Returns the session as it is then. With `until_end` False it returns after the lines
    that are there. Progress bars come as they were last. Raises `ConnectError` when the
    line breaks; the training does not notice.
    """
    folder = PurePosixPath(session.log).parent
    mark = secrets.token_hex(8)
    wanted = "+1" if from_start else str(lines)
    words = ["bash", "-s", "--", str(folder), wanted, "follow" if until_end else "once", mark]
    shown = _Shown(on_line, mark)
    with remote.open(shlex.join(words), timeout=SILENCE_S) as channel:
        channel.write(script("session-follow.sh").encode())
        channel.close_input()
        while piece := channel.read():
            shown.take(piece)
        shown.end()
    if shown.last is None:
        raise ConnectError(
            "the connection closed while the log was followed", hint="`cloudtrain logs -f` goes on following"
        )
    root = str(folder.parent.parent)
    return parse_session(shown.last, Layout(root))[0]


class _Shown:
    """Hands lines on, keeps the marked last one back, and the empty line that ends the log before it."""

    def __init__(self, on_line: Callable[[str], None], mark: str) -> None:
        self._on_line = on_line
        self._mark = mark
        self._lines = Lines()
        self._empty = False
        self.last: str | None = None

    def take(self, piece: bytes) -> None:
        for line in self._lines.feed(piece):
            self._show(line)

    def end(self) -> None:
        for line in self._lines.end():
            self._show(line)

    def _show(self, line: str) -> None:
        if line.startswith(self._mark):
            self.last = line.removeprefix(self._mark)
            return
        if self._empty:
            self._on_line("")
        self._empty = not line
        if line:
            self._on_line(line)
