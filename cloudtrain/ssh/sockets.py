"""The bytes below SSH: a TCP connection of our own, or one that the user's `ssh` makes.

Neither paramiko's socket options nor its ProxyCommand will do: the former leave Nagle's
algorithm on; the latter loses what a full pipe does not take, and spins for ever when
its program has ended.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from typing import IO, Any

from cloudtrain.errors import ConnectError
from cloudtrain.models.machine import SshTarget
from cloudtrain.ssh import openssh

_SILENCE_MS = 60_000
"""How long sent bytes may stay unanswered by the machine's kernel before the line counts as cut."""
_HASTE = 256
"""Reads that are acknowledged at once: those of the handshake and of the first command."""
_REAP_S = 5


def dial(target: SshTarget, timeout: float) -> socket.socket:
    """Return a connection to the machine's port, or to what leads there.

    `timeout` seconds bound the TCP connection; through another host they bound nothing
    here, since only the machine's first words show that it was reached.
    Raises `ConnectError`.
    """
    hop = openssh.hop(target)
    return _reach(target, timeout) if hop is None else _Hop.start(hop)


def why(sock: socket.socket) -> str:
    """Return what the program of a hop complained about; empty for a connection of our own."""
    return sock.complaint() if isinstance(sock, _Hop) else ""


def _reach(target: SshTarget, timeout: float) -> socket.socket:
    try:
        plain = socket.create_connection((target.address, target.port), timeout)
    except OSError as error:
        raise ConnectError(f"{target.address}:{target.port} does not answer: {error}") from error
    sock = _Hasty(fileno=plain.detach())
    sock.settimeout(timeout)
    # With Nagle's algorithm on, the handshake alone waits twice for a delayed answer.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; paramiko itself never misses an answer
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS)
    return sock


class _Hasty(socket.socket):
    """Acknowledges the first reads at once.

    Until a session is open sshd has Nagle's algorithm on, and holds back the answer to
    our first command until what it sent before is acknowledged: 40 ms on Linux.
    """

    _left = _HASTE

    def recv(self, *args: Any) -> bytes:  # noqa: ANN401 - as its base
        data = super().recv(*args)
        if self._left and hasattr(socket, "TCP_QUICKACK"):
            self._left -= 1
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data


class _Hop(socket.socket):
    """Our end of a pair of sockets, whose other end is a program's input and output."""

    _program: subprocess.Popen[bytes]
    _errors: IO[bytes]
    _said = ""

    @classmethod
    def start(cls, argv: list[str]) -> _Hop:
        """Run `argv` behind a new socket. Raises `ConnectError` when it cannot be run."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads could fill
        ours, theirs = socket.socketpair()
        try:
            # A session of its own: Ctrl-C is for us, and ends the line when we are done.
            program = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            errors.close()
            ours.close()
            raise ConnectError(f"cannot run `{argv[0]}`: {error}") from error
        finally:
            theirs.close()
        hop = cls(fileno=ours.detach())
        hop._program, hop._errors = program, errors
        return hop

    def complaint(self) -> str:
        """Return the last line of what the program said on its error output."""
        if not self._errors.closed:
            # The program shares the file's position: reading must not move it.
            said = os.pread(self._errors.fileno(), 1 << 16, 0).decode("utf-8", "replace")
            self._said = (said.strip().splitlines() or [""])[-1]
        return self._said

    def close(self) -> None:
        """End the program too; closed already is fine."""
        super().close()
        self.complaint()
        self._program.terminate()
        try:
            self._program.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        self._errors.close()
