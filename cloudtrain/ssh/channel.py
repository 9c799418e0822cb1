"""What one command on the machine says and is told, without anything blocking the rest."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from cloudtrain.errors import ConnectError
from cloudtrain.ssh.sending import send_all, send_end

if TYPE_CHECKING:
    import paramiko

CHUNK = 1 << 18
"""Bytes per write: what a stall is measured by."""
FEED = 1 << 15
"""Bytes of input that count as a sign of life: small, so that a slow line shows some."""


KILLED = 128
"""Stands for the exit code of a command that a signal ended: it has none of its own."""
_STALLED = "the machine stopped answering in the middle of a command"
_DYING_S = 0.5


class Channel:
    """One running command: write its input, read its output, take its exit code."""

    def __init__(self, raw: paramiko.Channel) -> None:
        self._raw = raw

    def write(self, data: bytes | memoryview) -> None:
        """Send all of `data` to the command's input. Raises `ConnectError` when it is gone."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), CHUNK):
                send_all(self._raw, view[start : start + CHUNK])
        except (OSError, EOFError) as error:
            raise ConnectError("the connection closed while sending") from error

    def close_input(self) -> None:
        """Say that no more input comes."""
        send_end(self._raw)

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of output, b"" at its end. Raises `ConnectError` on a stall."""
        try:
            return self._raw.recv(size)
        except TimeoutError as error:
            raise ConnectError(_STALLED) from error

    def read_error(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of error output, b"" at its end."""
        try:
            return self._raw.recv_stderr(size)
        except TimeoutError as error:
            raise ConnectError(_STALLED) from error

    def exit_code(self) -> int:
        """Wait for the command's end; `KILLED` when a signal ended it.

        Raises `ConnectError` if the line went first, or took longer than the timeout.
        """
        if not self._raw.status_event.wait(self._raw.gettimeout()):
            raise ConnectError(_STALLED)
        code = self._raw.recv_exit_status()
        if code != -1:
            return code
        # A dying transport wakes its channels first and says so last.
        self._raw.get_transport().join(_DYING_S)
        if self._raw.get_transport().is_active():
            return KILLED
        raise ConnectError("the connection closed before the command ended")

    def settimeout(self, seconds: float | None) -> None:
        """Bound every single read and write; None waits for ever."""
        self._raw.settimeout(seconds)


OUT, ERR, _FED = 0, 1, 2


class Talk:
    """Both outputs and the input of one command, carried at the same time.

    Three threads, because each may be the one that blocks: a command that fills its
    error output before it reads its input must not wait for us, nor we for it.
    """

    def __init__(self, stdin: bytes) -> None:
        self._stdin = stdin
        self._news: queue.SimpleQueue[tuple[int, bytes | None]] = queue.SimpleQueue()
        self._said: tuple[list[bytes], list[bytes]] = ([], [])
        self._threads: list[threading.Thread] = []

    def start(self, channel: Channel) -> None:
        """Begin to carry; the threads end with the channel at the latest."""
        self._spawn(self._hear, OUT, channel.read)
        self._spawn(self._hear, ERR, channel.read_error)
        if self._stdin:
            self._spawn(self._feed, channel)
        else:
            self._end_input(channel)

    def listen(self, timeout: float | None, on_line: Callable[[str], None] | None) -> None:
        """Collect until both outputs ended. Raises `ConnectError` after `timeout` of silence."""
        ended = 0
        rest = b""
        while ended < 2:
            try:
                kind, piece = self._news.get(timeout=timeout)
            except queue.Empty:
                raise ConnectError(_STALLED) from None
            if piece is None:
                ended += 1
            elif kind != _FED:
                self._said[kind].append(piece)
                if kind == OUT and on_line is not None:
                    *lines, rest = (rest + piece).split(b"\n")
                    for line in lines:
                        on_line(line.decode("utf-8", "replace").rstrip("\r"))
        if on_line is not None and rest:
            on_line(rest.decode("utf-8", "replace"))

    def text(self, kind: int) -> str:
        """Return everything one output said."""
        return b"".join(self._said[kind]).decode("utf-8", "replace")

    def join(self) -> None:
        """Wait for the threads, which end when the channel is closed."""
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _hear(self, kind: int, read: Callable[[], bytes]) -> None:
        with suppress(ConnectError, OSError, EOFError):
            while piece := read():
                self._news.put((kind, piece))
        self._news.put((kind, None))

    def _feed(self, channel: Channel) -> None:
        with suppress(ConnectError):  # it may end without reading; its exit code tells
            for start in range(0, len(self._stdin), FEED):
                channel.write(self._stdin[start : start + FEED])
                self._news.put((_FED, b""))
            self._end_input(channel)

    @staticmethod
    def _end_input(channel: Channel) -> None:
        with suppress(OSError, EOFError):
            channel.close_input()
