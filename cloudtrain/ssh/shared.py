"""One OpenSSH connection beside the control connection, carrying several commands at once.

OpenSSH does its cryptography in C and outside of this process, so bulk data goes
this way. The handshake runs in the background: nobody waits for it who has another
line. When this process dies, in whatever way, the connection ends with it: its own
command reads from a pipe that only we hold.
"""

from __future__ import annotations

import fcntl
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self, cast

from cloudtrain.errors import ConnectError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh import openssh
from cloudtrain.ssh.channel import CHUNK

BROKE = 255
"""OpenSSH's own exit code for a line that it could not make or keep."""


FAST = "aes128-gcm@openssh.com"
"""Offered first: with the AES instructions that every GPU machine has, it costs half of OpenSSH's own first."""


class Pipe:
    """One command over the shared connection; the same words as `Channel`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        streams = process.stdin, process.stdout, process.stderr
        self._stdin, self._stdout, self._stderr = (cast("IO[bytes]", stream) for stream in streams)
        with suppress(OSError, AttributeError):  # fewer turns between us and ssh; Linux only
            fcntl.fcntl(self._stdin.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)

    def write(self, data: bytes | memoryview) -> None:
        """Send all of `data` to the command's input. Raises `ConnectError` when it is gone."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._stdin.write(rest) :]
        except (OSError, ValueError) as error:
            raise ConnectError("the connection closed while sending") from error

    def close_input(self) -> None:
        """Say that no more input comes."""
        with suppress(OSError):
            self._stdin.close()

    def read(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of output, b"" at its end."""
        return _read(self._stdout, size)

    def read_error(self, size: int = CHUNK) -> bytes:
        """Return up to `size` bytes of error output, b"" at its end."""
        return _read(self._stderr, size)

    def exit_code(self) -> int:
        """Wait for the command's end. Raises `ConnectError` when the line went first."""
        code = self._process.wait()
        if code == BROKE or code < 0:
            raise ConnectError("the line broke", hint="run the same command again; it continues")
        return code


class SharedLine:
    """An OpenSSH connection to a verified machine. Raises nothing: ask `ready`."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._environment = openssh.environment(target)
        self._folder: Path | None = None
        self._options: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        # No room for a socket, or for a process: like one that the machine refused.
        with suppress(OSError):
            self._begin()

    def _begin(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ct-"))  # short: a socket's path has 107 bytes at most
        self._options = ["-o", f"ControlPath={self._folder / 's'}", "-o", f"Ciphers=^{FAST}"]
        args = openssh.ssh(self._target, "cat > /dev/null")
        self._process = subprocess.Popen(
            [args[0], *self._options, "-o", "ControlMaster=yes", *args[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether the connection is open, verified and authenticated."""
        return self.alive and self._folder is not None and (self._folder / "s").exists()

    @property
    def alive(self) -> bool:
        """Whether it still may become ready."""
        return self._process is not None and self._process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Wait until it is ready; False when it is not by then, or never will be."""
        end = time.monotonic() + seconds
        while self.alive and not self.ready and time.monotonic() < end:
            time.sleep(0.01)
        return self.ready

    @contextmanager
    def open(self, command: str) -> Generator[Pipe]:
        """Start `command` in the login shell; ended with the block. Raises `ConnectError`."""
        args = openssh.ssh(self._target, command)
        try:
            started = subprocess.Popen(
                [args[0], *self._options, "-o", "ControlMaster=no", *args[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                bufsize=0,
            )
        except OSError as error:
            raise ConnectError(f"cannot start ssh: {error}") from error
        with started as process:
            try:
                yield Pipe(process)
            finally:
                process.terminate()

    def rsync_shell(self) -> str:
        """Return the value of rsync's `-e` that goes over this connection."""
        return shlex.join(
            [
                "ssh",
                *self._options,
                "-o",
                "ControlMaster=no",
                *openssh.options(self._target),
                "-l",
                self._target.user,
            ]
        )

    def close(self) -> None:
        """End the connection and everything on it."""
        if self._process is not None:
            with suppress(OSError):
                if self._process.stdin is not None:
                    self._process.stdin.close()
            self._process.terminate()
            self._process.wait()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def available() -> bool:
    """Whether this computer has OpenSSH's client."""
    return shutil.which("ssh") is not None


def _read(stream: IO[bytes], size: int) -> bytes:
    try:
        return stream.read(size) or b""
    except (OSError, ValueError):
        return b""
