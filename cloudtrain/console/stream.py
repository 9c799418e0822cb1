"""Writing to a stream that may end, or know few letters, at any time.

A closed terminal must not end a command that is about to bring checkpoints home, so
what reports goes on in silence; only the command's own data may fail for want of a
reader (`cloudtrain logs | head`).
"""

from __future__ import annotations

import re
from typing import TextIO

CONTROLS = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # a title or a link
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # a colour or a move
    r"|\x1b[@-Z\\^_]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)
"""What would move the cursor or change the terminal: ECMA-48 sequences and control letters."""


def plain(text: str) -> str:
    """Return a text that changes nothing on a terminal but what it prints.

    A line that a progress bar wrote over itself is its last state.
    """
    lines = (line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))
    return CONTROLS.sub("", "\n".join(lines)).expandtabs(8)


def put(stream: TextIO, text: str) -> None:
    """Write and flush. Letters that the stream's encoding lacks become `?`; raises `OSError`."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()


def tell(stream: TextIO, text: str) -> None:
    """Write as `put` does, for someone who may have left: a stream that is gone is no error."""
    try:
        put(stream, text)
    except (OSError, ValueError):  # ValueError: it was closed
        return
