"""A bash script with bytes going in and coming out, over one channel.

`Remote.script` sends its text on standard input; here input carries data, so the
text rides in the command. It is ours and holds no secret; every value is an
argument, quoted.
"""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from cloudtrain.errors import ConnectError, TransferError
from cloudtrain.events import Progress, Reporter
from cloudtrain.ssh.remote import Channel, Remote

SILENCE_S = 180.0
"""No byte either way for so long means that the line is dead."""


class Sink(Protocol):
    """Somewhere to write bytes."""

    def write(self, data: bytes, /) -> object:
        """Take all of it."""
        ...


def exchange(
    remote: Remote,
    script: str,
    *args: str,
    feed: Callable[[Sink], object] | None = None,
    take: Callable[[Channel], None] | None = None,
    silence: float = SILENCE_S,
) -> bytes:
    """Run a script; `feed` writes its input, `take` reads its output (else it is returned).

    `silence` bounds, in seconds, how long a write may stand still and how long the
    script may think after its input ended. Raises `TransferError` with what the machine
    said when the script fails, and `ConnectError` when the line goes first.
    """
    command = shlex.join(["bash", "-c", script, "cloudtrain", *args])
    over = threading.Event()
    with remote.open(command, timeout=silence) as channel:
        said = _Drain(channel.read_error, over)
        out = None if take is not None else _Drain(channel.read, over)
        try:
            broken = _feed(channel, feed)
            if take is not None:
                take(channel)
            if out is not None and not out.ended(silence):
                raise ConnectError("the machine stopped answering", hint="run the same command again")
            code = channel.exit_code()
            said.ended(10)
        finally:
            over.set()
    if code != 0 or broken is not None:
        raise failure(said.text, code)
    return b"" if out is None else out.data


class _Drain:
    """Reads one stream to its end beside everything else: silence while we write is no fault."""

    def __init__(self, read: Callable[[], bytes], over: threading.Event) -> None:
        self._read, self._over = read, over
        self._parts: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def data(self) -> bytes:
        """What came until now."""
        return b"".join(self._parts)

    @property
    def text(self) -> str:
        """The same as text."""
        return self.data.decode("utf-8", "replace").strip()

    def ended(self, seconds: float) -> bool:
        """Wait for the stream's end; False when it did not come and nothing more came either."""
        while True:
            before = len(self._parts)
            self._thread.join(seconds)
            if not self._thread.is_alive():
                return True
            if len(self._parts) == before:
                return False

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                chunk = self._read()
            except ConnectError:
                continue  # a timeout of this read alone
            except (OSError, EOFError):
                return
            if not chunk:
                return
            self._parts.append(chunk)


_FULL = ("No space left", "Disk quota exceeded", "Wrote only ", "(23) Failure writing", "(23) Failed writing")
"""tar says of a short write only how short it was, and curl not even that."""
_HINT = re.compile(r"(?m)^hint: .*\s*\Z")


def failure(said: str, code: int) -> TransferError:
    """Return the error for what a program on the machine said when it failed.

    A script of ours that knows what to do ends with a line `hint: …`.
    """
    said, _, hint = said.rpartition("hint: ") if _HINT.search(said) else (said, "", "")
    last = "\n".join(said.strip().splitlines()[-5:]) or f"exit {code}"
    if any(words in said for words in _FULL) and "Permission denied" not in said:
        return TransferError(
            f"the machine's disk is full: {last}",
            hint="make room with `cloudtrain exec`, or give `instance.volume_gb` more and start anew",
        )
    hint = hint.strip() or "run the same command again"
    return TransferError(f"the machine could not take the files: {last}", hint=hint)


def _feed(channel: Channel, feed: Callable[[Sink], object] | None) -> ConnectError | None:
    """Write the input; a script that ended before reading it all is told by its exit code.

    Raises `ConnectError` when nothing could be written for too long: then no exit code comes.
    """
    try:
        if feed is not None:
            feed(channel)
        channel.close_input()
    except ConnectError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise
        return error
    except (OSError, EOFError) as error:
        return ConnectError(str(error))
    return None


@dataclass(slots=True)
class Meter:
    """Counts bytes and files from many threads and reports at most twice a second."""

    reporter: Reporter
    stage: str
    total: int
    detail: str = ""
    clock: Callable[[], float] = time.monotonic
    files: int = 0
    """How many files there are to move."""
    done: int = 0
    skipped: int = 0
    files_done: int = 0
    best: float = 0.0
    _began: float | None = None
    _said: float = 0.0
    _recent: deque[tuple[float, int]] = field(default_factory=lambda: deque[tuple[float, int]](maxlen=6))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int, files: int = 0) -> None:
        """Count bytes that moved, and files that are whole by it."""
        with self._lock:
            self.done += count
            self.files_done += files
        self._tell()

    def skip(self, count: int) -> None:
        """Count bytes that were there already: they are done, and say nothing of the line."""
        with self._lock:
            self.done += count
            self.skipped += count

    def at(self, done: int) -> None:
        """Say how many bytes have moved in all."""
        with self._lock:
            self.done = done
        self._tell()

    def finish(self) -> None:
        """Report the end."""
        with self._lock:
            self.files_done = self.files
        self._report(None, None)

    def _tell(self) -> None:
        with self._lock:
            now = self.clock()
            if self._began is None:
                self._began = now
                self._recent.append((now, self.skipped))
            if now - self._said < 0.5:
                return
            self._said = now
            self._recent.append((now, self.done))
            rate = self._rate()
            self.best = max(self.best, rate or 0.0)
            spent = now - self._began
            mean = (self.done - self.skipped) / spent if spent > 0.2 else 0.0
        self._report(rate, (self.total - self.done) / mean if mean > 0 else None)

    def _rate(self) -> float | None:
        """The last few seconds' bytes a second; None while it is too early to say."""
        (since, before), (now, done) = self._recent[0], self._recent[-1]
        return (done - before) / (now - since) if now - since > 0.2 else None

    def _report(self, rate: float | None, left: float | None) -> None:
        done = min(self.done, self.total)
        self.reporter.emit(
            Progress(
                stage=self.stage,
                done=done,
                total=self.total,
                unit="bytes",
                eta_s=None if left is None else max(0.0, left),
                detail=self.detail,
                rate=rate,
                best=self.best or None,
                files=min(self.files_done, self.files),
                files_total=self.files,
            )
        )
