"""One lane to the machine: a script there that takes files, and answers for each lot.

A lot counts when it was answered. What broke off in the middle was not, so it is sent
again, by this command or by the next (templates/push-lane.sh). As soon as another push has
looked at what is there, nothing more is obeyed that lanes of an older one are told, or were.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from cloudtrain.errors import CloudtrainError, ConnectError, TransferError
from cloudtrain.ssh.remote import Remote
from cloudtrain.ssh.shared import SharedLine
from cloudtrain.transfer.pack import Batch, Piece, Squeeze, gzip, stream, tar
from cloudtrain.transfer.scripts import script
from cloudtrain.transfer.tree import Entry
from cloudtrain.transfer.wire import SILENCE_S, failure

_WRITE = 1 << 18
ALIVE = b"..."
"""A line that answers nothing: the machine is at work on what takes long."""


class Command(Protocol):
    """A command that runs on the machine, over whichever connection."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Send all of it. Raises `ConnectError`."""
        ...

    def read(self, size: int = ..., /) -> bytes:
        """Return some output, b"" at its end."""
        ...

    def read_error(self, size: int = ..., /) -> bytes:
        """Return some error output, b"" at its end."""
        ...

    def close_input(self) -> None:
        """Say that no more comes."""
        ...

    def exit_code(self) -> int:
        """Wait for the end. Raises `ConnectError` when the line went first."""
        ...


class Lane:
    """Speaks the protocol of push-lane.sh over one command. Made by `open_lane`."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._rest = b""
        self._written = 0
        self._said = bytearray()
        self._errors = threading.Thread(target=self._listen, daemon=True)
        self._errors.start()

    def send(self, task: Batch | Piece, squeeze: Squeeze) -> int:
        """Send one lot; return the bytes that went over the line. `answer` tells its fate."""
        return self._batch(task, squeeze) if isinstance(task, Batch) else self._piece(task, squeeze)

    def say(self, word: str, data: bytes = b"", *words: str) -> None:
        """Give a command, with its data. Raises what `broke` returns."""
        head = " ".join((word, str(len(data)), *words))
        self._write(f"{head}\n".encode() + data + b"end\n")

    def answer(self) -> str:
        """Wait for the next answer. Raises what `broke` returns."""
        while (line := self._line()) == ALIVE:
            pass
        return line.decode("utf-8", "surrogateescape")

    def _line(self) -> bytes:
        while b"\n" not in self._rest:
            before = self._written
            try:
                chunk = self._command.read()
            except (ConnectError, OSError, EOFError) as error:
                if self._written > before and isinstance(error.__cause__, TimeoutError):
                    continue  # a thin line: nothing came, but something went
                raise self.broke(error) from error
            if not chunk:
                raise self.broke(None)
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def finish(self) -> None:
        """Let the script end."""
        with contextlib.suppress(ConnectError, OSError, EOFError):
            self._command.close_input()

    def broke(self, error: Exception | None) -> CloudtrainError:
        """Say why the lane ended: `TransferError` by the machine's word, else `ConnectError`."""
        if isinstance(error, ConnectError) and isinstance(error.__cause__, TimeoutError):
            return error
        try:
            self.finish()
            code = self._command.exit_code()
        except ConnectError as gone:
            return gone
        self._errors.join(10)
        return failure(self._said.decode("utf-8", "replace").strip(), code)

    def _batch(self, batch: Batch, squeeze: Squeeze) -> int:
        data, word = tar(batch.entries), "tar"
        way = squeeze.way(data)
        if way is not None:
            data, word = gzip(data, way), "tar.gz"
        self._write(f"{word} {len(data)}\n".encode())
        self._write(data)
        self._write(b"end\n")
        return len(data)

    def _piece(self, piece: Piece, squeeze: Squeeze) -> int:
        words = f"{piece.offset} {piece.entry.size} {piece.id} {piece.size}\n"
        chunks = stream(piece)
        first = next(chunks)
        length, way = piece.size, squeeze.way(first)
        if way is not None:
            data = gzip(b"".join((first, *chunks)), way)
            length, first, chunks = len(data), data, iter(())
        self._write(f"part{'' if way is None else '.gz'} {length} {words}".encode())
        self._write(first)
        for chunk in chunks:
            self._write(chunk)
        # Its length was promised, so it goes to its end; then the machine throws it away.
        self._write(b"torn\n" if piece.id in piece.torn else b"end\n")
        return length

    def _write(self, data: bytes | bytearray) -> None:
        try:
            view = memoryview(data)
            for start in range(0, len(data), _WRITE):
                self._command.write(view[start : start + _WRITE])
                self._written += 1
        except (ConnectError, OSError, EOFError) as error:
            raise self.broke(error) from error

    def _listen(self) -> None:
        with contextlib.suppress(ConnectError, OSError, EOFError):
            while chunk := self._command.read_error():
                self._said += chunk[: 1 << 16]


@contextmanager
def open_lane(over: Remote | SharedLine, *args: str) -> Generator[Lane]:
    """Start the script over a connection: `args` are its arguments. Raises `ConnectError`."""
    command = shlex.join(["bash", "-c", script("push-lib", "push-lane"), "cloudtrain", *args])
    opened = over.open(command, timeout=SILENCE_S) if isinstance(over, Remote) else over.open(command)
    with opened as running:
        lane = Lane(running)
        try:
            yield lane
        finally:
            lane.finish()


def records(entries: tuple[tuple[Entry, str], ...]) -> bytes:
    """Return what `place` wants to know of big files that are there in pieces."""
    return b"".join(
        b"%s\0%d\0%o\0%s\0" % (id.encode(), entry.mtime, entry.mode & 0o777, os.fsencode(entry.path))
        for entry, id in entries  # noqa: A001
    )


__all__ = ["Lane", "TransferError", "open_lane", "records"]
