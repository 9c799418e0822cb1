"""Runs one command of cloudtrain and ends it with SIGKILL at one point of its way.

    python -m tests.support.crash AT WHEN FOUND VERB [ARGUMENT...]

Points are counted in the order in which the command comes by: every call to the cloud,
every command on the machine, every program it starts, and every row of its journal
(the edges of the host key's replacement among them). AT 0 kills nowhere. How many
points there were is written to FOUND, one line a point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from botocore.httpsession import URLLib3Session

from cloudtrain.__main__ import main
from cloudtrain.journal.log import Journal
from cloudtrain.ssh.remote import Remote


class Points:
    """Counts points, and ends the process at the fatal one."""

    def __init__(self, at: int, when: str, found: Path) -> None:
        self.at, self.when, self.found = at, when, found
        self.count = 0
        self.lock = threading.Lock()

    def come_by(self, name: str) -> bool:
        """Count one point; whether it is fatal after it took effect."""
        with self.lock:
            self.count += 1
            with self.found.open("a") as file:
                file.write(f"{name}\n")
            fatal = self.count == self.at
        if fatal and self.when == "before":
            self.die()
        return fatal

    @staticmethod
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def instrument(points: Points) -> None:
    """Put a point round everything whose effect outlives the process."""

    def around(name: Callable[..., str], call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            fatal = points.come_by(name(*args))
            done = call(*args, **kwargs)
            if fatal:
                points.die()
            return done

        return counted

    opening = Remote.open

    @contextmanager
    def open_counted(self: Remote, command: str, *, timeout: float | None = None) -> Generator[Any]:
        fatal = points.come_by(f"remote {command[:60]!r}")
        with opening(self, command, timeout=timeout) as channel:
            yield channel
            if fatal:
                points.die()

    def sent(*args: Any) -> str:
        return f"call {args[1].body!r:.80}"

    def told(*args: Any) -> str:
        return f"journal {args[1]}"

    def started(*args: Any) -> str:
        return f"program {args[1]!r:.60}"

    places: list[tuple[Any, str, Any]] = [
        (URLLib3Session, "send", around(sent, URLLib3Session.send)),
        (Journal, "append", around(told, Journal.append)),
        (subprocess.Popen, "__init__", around(started, subprocess.Popen.__init__)),
        (Remote, "open", open_counted),
    ]
    for owner, attribute, value in places:
        setattr(owner, attribute, value)


if __name__ == "__main__":
    at, when, found, *command = sys.argv[1:]
    instrument(Points(int(at), when, Path(found)))
    sys.argv = ["cloudtrain", *command]
    main()
