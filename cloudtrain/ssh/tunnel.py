"""A local port that leads to one on the machine, for as long as it is wanted.

The local port is bound first and stays bound: a busy one is an error at once, and a
dropped SSH connection shows as a pause, not as a refused page. Each local connection
becomes a direct-tcpip channel of one verified SSH connection (OpenSSH's MaxSessions
does not count those), which is made again when it is gone.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cloudtrain.errors import (
    AuthenticationFailed,
    CloudtrainError,
    ConnectError,
    HostKeyMismatch,
    UsageError,
)
from cloudtrain.events import Note, Reporter
from cloudtrain.ssh.sending import send_all, send_end

if TYPE_CHECKING:
    from cloudtrain.ssh.remote import Remote

CHUNK = 1 << 18
OPEN_S = 10.0
"""How long a channel may take to open."""
AGAIN_S = 600.0
"""How long a lost connection is made again before the tunnel gives up."""


@dataclass(frozen=True, slots=True)
class Forward:
    """From a port of 127.0.0.1 here to one of the machine's loopback. Local 0 picks one."""

    local_port: int
    remote_port: int
    remote_host: str = "127.0.0.1"


class Tunnel:
    """One forwarded port. Bind it, give it its remote port, close it."""

    def __init__(
        self,
        forward: Forward,
        *,
        connect: Callable[[], Remote],
        reporter: Reporter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._forward = forward
        self._connect = connect
        self._reporter = reporter
        self._clock = clock
        self._listener: socket.socket | None = None
        self._remote: Remote | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._acceptor: threading.Thread | None = None
        self.failure: CloudtrainError | None = None
        """Why it gave up; None while it works or still tries."""

    def __enter__(self) -> Self:
        self.bind()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        """The port that is bound here."""
        return int(self._listener.getsockname()[1]) if self._listener else self._forward.local_port

    def bind(self) -> None:
        """Take the local port. Raises `UsageError` at once when it cannot be had."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._forward.local_port))
        except (OSError, OverflowError) as error:
            listener.close()
            busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            why = "is busy" if busy else f"cannot be taken: {error}"
            raise UsageError(
                f"port {self._forward.local_port} of this computer {why}",
                hint="take another with `--port 9000`, or any free one with `--port 0`",
            ) from error
        listener.listen(128)
        self._listener = listener

    def serve(self, remote_port: int | None = None) -> None:
        """Connect and forward in the background until `close`. Raises what connecting raises."""
        if remote_port is not None:
            self._forward = Forward(self._forward.local_port, remote_port, self._forward.remote_host)
        if self._listener is None:
            self.bind()
        self._remote = self._connect()
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()

    def serve_until(self, stop: threading.Event) -> None:
        """Forward until `stop` is set.

        Raises `HostKeyMismatch` or `AuthenticationFailed` as soon as a new connection meets
        one, and `ConnectError` when the line stays lost for `AGAIN_S`.
        """
        while not stop.wait(0.2):
            if self.failure is not None:
                raise self.failure

    def close(self) -> None:
        """Give the port back, end every connection, join every thread. Twice is fine."""
        self._closed.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            if self._acceptor is not None:
                self._acceptor.join(5)
            self._listener.close()
            self._listener = None
        if self._remote is not None:
            self._remote.close()
        # Reading first, which tells the other side nothing: it must see a reset, not an end.
        # Writing too only where a thread is stuck in it, since nobody reads.
        for how in (socket.SHUT_RD, socket.SHUT_RDWR):
            for sock in self._open.copy():
                with contextlib.suppress(OSError):
                    sock.shutdown(how)
            for thread in self._threads:
                thread.join(2)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads = [known for known in self._threads if known.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                sock, peer = listener.accept()
            except OSError:
                self._closed.wait(0.1)  # out of descriptors, say: some come back
                continue
            self._open.add(sock)
            self._spawn(self._carry, sock, peer)

    def _carry(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        """Carry one connection to the machine and back until both sides are done."""
        channel: Any = None
        try:
            channel = self._channel(peer)
            if channel is not None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = threading.Thread(target=_copy_back, args=(channel, sock), daemon=True)
                back.start()
                _copy_out(sock, channel)
                back.join()
                if not channel.eof_received:
                    _make_abrupt(sock)
        finally:
            self._open.discard(sock)
            sock.close()
            if channel is not None:
                with contextlib.suppress(OSError, EOFError):
                    channel.close()  # on a line that broke it tries to say goodbye

    def _channel(self, peer: tuple[str, int]) -> Any:  # noqa: ANN401 - a paramiko channel
        """Open a channel, over a new connection if the old one is gone; None when it cannot be."""
        import paramiko

        from cloudtrain.ssh.remote import was_refused

        there = (self._forward.remote_host, self._forward.remote_port)
        for _ in range(3):
            remote = self._alive()
            if remote is None:
                return None
            try:
                return remote.transport.open_channel("direct-tcpip", there, peer, timeout=OPEN_S)
            except (paramiko.SSHException, ConnectError, EOFError, OSError) as error:
                if (
                    isinstance(error, paramiko.SSHException)
                    and was_refused(error)
                    and self._is_active(remote)
                ):
                    return None  # the machine is there; nobody listens on that port
                remote.close()
        return None

    def _alive(self) -> Remote | None:
        """Return the open connection, made again if it was lost; one thread does it for all."""
        with self._lock:
            if self._remote is not None and self._is_active(self._remote):
                return self._remote
            if self.failure is not None or self._closed.is_set():
                return None
            self._reporter.emit(Note("the tunnel's connection was lost; connecting again", level="warning"))
            self._remote = self._again()
            if self._remote is None:
                return None
            if self._closed.is_set():  # `close` went by while we connected
                self._remote.close()
                return None
            self._reporter.emit(Note("the tunnel is back"))
            return self._remote

    def _again(self) -> Remote | None:
        end = self._clock() + AGAIN_S
        pause = 0.2
        while not self._closed.is_set():
            try:
                return self._connect()
            except (HostKeyMismatch, AuthenticationFailed) as error:
                self.failure = error
                return None
            except ConnectError as error:
                if self._clock() + pause > end:
                    self.failure = error
                    return None
                self._closed.wait(pause)
                pause = min(pause * 1.5, 2.0)
            except CloudtrainError as error:
                self.failure = error
                return None
        return None

    @staticmethod
    def _is_active(remote: Remote) -> bool:
        try:
            return remote.transport.is_active()
        except ConnectError:
            return False


def _make_abrupt(sock: socket.socket) -> None:
    """Let closing reset it: an answer that a lost line cut must not look like a whole one."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _copy_out(sock: socket.socket, channel: Any) -> None:  # noqa: ANN401
    """Carry what the local side says; its end is passed on, the other direction stays open."""
    with contextlib.suppress(OSError, EOFError):
        while data := sock.recv(CHUNK):
            send_all(channel, data)
    with contextlib.suppress(OSError, EOFError):
        send_end(channel)


def _copy_back(channel: Any, sock: socket.socket) -> None:  # noqa: ANN401
    """Carry what the machine says; its end is passed on, the other direction stays open."""
    with contextlib.suppress(OSError, EOFError):
        while data := channel.recv(CHUNK):
            sock.sendall(data)
    if channel.eof_received:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
    if channel.closed:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
